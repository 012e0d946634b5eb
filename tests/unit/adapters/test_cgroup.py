"""The control group's files, as far as a folder can stand for one. That the limits hold is tested on the board."""

import os

import pytest

from zentrid.adapters.cgroup import MAX_PROCESSES, Cgroup
from zentrid.core.apps import AppLimits


class FolderCgroup(Cgroup):
    """A group in an ordinary folder: making it gives it the files that the kernel would."""

    def __init__(self, folder, *, swap=True):
        super().__init__(folder)
        self.folder = folder
        self.files = ["memory.max", "memory.oom.group", "pids.max"] + ["memory.swap.max"] * swap

    def _write(self, name, text):
        if name in self.files:
            (self.folder / name).touch()
        super()._write(name, text)


@pytest.fixture
def top(tmp_path):
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


def test_limits_are_written(top):
    cage = FolderCgroup(top / "app")
    cage.prepare(AppLimits(memory_mib=64, files=32))
    assert (top / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (top / "app" / "memory.max").read_text() == str(64 * 1024 * 1024)
    assert (top / "app" / "memory.oom.group").read_text() == "1"
    assert (top / "app" / "pids.max").read_text() == str(MAX_PROCESSES)
    assert cage.join_path == top / "app" / "cgroup.procs"


def test_without_the_kernel_behind_it_preparing_fails(top):
    with pytest.raises(OSError, match=r"memory\.max"):
        Cgroup(top / "app").prepare(AppLimits(64, 32))
    with pytest.raises(OSError, match="subtree_control"):
        Cgroup(top / "none" / "app").prepare(AppLimits(64, 32))


def test_counts_are_read(top):
    cage = FolderCgroup(top / "app")
    assert not cage.occupied()
    assert not cage.ran_out_of_memory()
    assert cage.kill()
    (top / "app").mkdir()
    (top / "app" / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    (top / "app" / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert not cage.occupied()
    assert not cage.ran_out_of_memory()
    (top / "app" / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (top / "app" / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert cage.occupied()
    assert cage.ran_out_of_memory()


def test_what_cannot_be_ended_is_told_and_raises_nothing(top, monkeypatch):
    monkeypatch.setattr("zentrid.adapters.cgroup.EMPTY_TIMEOUT_S", 0.1)
    (top / "app" / "cgroup.kill").mkdir(parents=True)
    (top / "app" / "cgroup.events").write_text("populated 1\n")
    assert Cgroup(top / "app").kill() is False


def test_what_does_not_end_keeps_the_next_from_starting(top, monkeypatch):
    monkeypatch.setattr("zentrid.adapters.cgroup.EMPTY_TIMEOUT_S", 0.1)
    (top / "app").mkdir()
    (top / "app" / "cgroup.events").write_text("populated 1\n")
    (top / "app" / "cgroup.kill").touch()
    cage = FolderCgroup(top / "app")
    assert not cage.kill()
    assert (top / "app" / "cgroup.kill").read_text() == "1"
    with pytest.raises(OSError, match="do not end"):
        cage.prepare(AppLimits(64, 32))


def test_terminate_asks_each_process(top):
    pid = os.fork()
    if not pid:
        os.execv("/bin/sleep", ["sleep", "100"])
    (top / "app").mkdir()
    (top / "app" / "cgroup.procs").write_text(f"{pid}\n")
    Cgroup(top / "app").terminate()
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 15
    Cgroup(top / "app").terminate()
    Cgroup(top / "none").terminate()
