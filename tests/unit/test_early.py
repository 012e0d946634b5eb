"""The factory reset of early user space, on a real ext4 file system in a file, with the power going at every step."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from zentrid.adapters.bootstate import DiskBootStateStore
from zentrid.adapters.settings import SettingsStore
from zentrid.core.bootstate import BootState, BootStateWriteError, Fault, add_fault
from zentrid.core.variable_list import VARIABLES
from zentrid.core.version import Version
from zentrid.early import EVERYTHING, SETTINGS_ONLY, Reset, asked, carry_out
from zentrid.factoryreset import early_notes

SIZE_BYTES = 16 * 1024 * 1024
SECRET = b"what the owner had here"
BEFORE = add_fault(
    BootState(seq=5, a_left=2, a_good=True, safemode=True, floor=Version(1, 2, 0)), Fault("panic", "a", "1.2.0", 3, "?")
)


class PowerCut(BaseException):
    """The power went: nothing in the program can catch that."""


class FileSystemInFile:
    """The board's tools on a partition that is a file. Nobody must be root: mounting is copying by debugfs.

    The power goes at operation `cut_at`, counted from 0, before it (`torn` False) or in the middle of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.cut_at: int | None = None
        self.torn = False
        self.done: list[str] = []
        self.failing: dict[str, int] = {}
        """Programs that end with this status and do nothing."""
        self._device: Path | None = None

    def _operation(self, name: str) -> bool:
        """Count; return whether the power goes in the middle of this one."""
        if self.cut_at == len(self.done):
            if not self.torn:
                raise PowerCut
            return True
        self.done.append(name)
        return False

    def run(self, *command: str) -> int:
        """Run the real program; torn: only every other block of what it changed arrives."""
        device = Path(command[-1])
        torn = self._operation(command[0])
        if command[0] in self.failing:
            return self.failing[command[0]]
        old = device.read_bytes() if torn else b""
        status = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode
        if torn:
            new, block = device.read_bytes(), 4096
            parts = ((old if n // block % 2 else new)[n : n + block] for n in range(0, len(new), block))
            device.write_bytes(b"".join(parts))
            raise PowerCut
        return status

    def mount(self, device: Path) -> Path:
        """Copy everything out."""
        torn = self._operation("mount")
        if torn:
            raise PowerCut
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        if b"Filesystem state" not in debugfs(device, "stats").stdout:
            raise OSError("mount ended with 32")
        debugfs(device, f"rdump / {self._folder}")
        self._device = device
        self._old = {path.name: path.read_bytes() for path in (self._folder / "zentri").glob("*")}
        return self._folder

    def unmount(self, folder: Path) -> None:
        """Copy what has changed in the supervisor's folder back."""
        assert self._device is not None
        torn = self._operation("umount")
        if "zentri" not in files(self._device, "/"):
            debugfs(self._device, "mkdir /zentri", write=True)
        new = {path.name: path.read_bytes() for path in (folder / "zentri").glob("*")}
        for name in sorted(name for name, data in self._old.items() if new.get(name) != data):
            debugfs(self._device, f"rm /zentri/{name}", write=True)
            if torn:
                raise PowerCut
        for name in sorted(name for name, data in new.items() if self._old.get(name) != data):
            debugfs(self._device, f"write {folder / 'zentri' / name} /zentri/{name}", write=True)
        if torn:
            raise PowerCut

    def flush(self, device: Path) -> None:
        """Count only: a file of this machine needs no flush."""
        if self._operation("flush"):
            raise PowerCut


def debugfs(device: Path, command: str, *, write: bool = False) -> subprocess.CompletedProcess[bytes]:
    words = ["debugfs", *(["-w"] if write else []), "-R", command, str(device)]
    return subprocess.run(words, capture_output=True, check=True)


def files(device: Path, folder: str) -> list[str]:
    """Return the names in a folder of the file system."""
    listing = debugfs(device, f"ls -p {folder}").stdout.decode()
    names = [line.split("/")[5] for line in listing.splitlines() if line.count("/") >= 6]
    return sorted(name for name in names if name not in ("", ".", "..", "lost+found"))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data partition with settings, an application's file and an update journal."""
    folder = tmp_path_factory.mktemp("used")
    store = SettingsStore(folder / "zentri", VARIABLES)
    for name in ("attic", "boiler-room"):
        store.values.set("system.name", name)
        store.save_now()
    (folder / "zentri/journal.json").write_bytes(b"{}")
    (folder / "secret").write_bytes(SECRET)
    device = folder / "data.img"
    with device.open("wb") as stream:
        stream.truncate(SIZE_BYTES)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(device)], check=True, capture_output=True)
    debugfs(device, "mkdir /zentri", write=True)
    for path in (folder / "zentri").iterdir():
        debugfs(device, f"write {path} /zentri/{path.name}", write=True)
    debugfs(device, f"write {folder / 'secret'} /secret", write=True)
    return device


class Scene:
    """A device's disk, and resets on it."""

    def __init__(self, folder: Path, used: Path, tier: int) -> None:
        self.folder = folder
        self.tier = tier
        self.device = folder / "data.img"
        shutil.copy(used, self.device)
        state = folder / "bootstate"
        state.write_bytes(bytes(1024 * 1024))
        self.store = DiskBootStateStore(state)
        self.before = self.store.write(replace(BEFORE, factory_reset=tier))
        self.said: list[str] = []
        self.noted: list[str] = []

    def reset(
        self, cut_at: int | None = None, *, torn: bool = False, failing: dict[str, int] | None = None
    ) -> list[str]:
        """Run a reset; return the operations that were finished."""
        system = FileSystemInFile(self.folder / "mnt")
        system.cut_at, system.torn, system.failing = cut_at, torn, failing or {}
        self.carried_out = False
        self.marked: list[int] = []

        reset = Reset(system, self.store, self.device, self.said.append)
        with suppress(PowerCut):
            self.carried_out = carry_out(
                self.tier, lambda: reset, self.said.append, self.noted.append, self.marked.append
            )
        return system.done

    @property
    def requested(self) -> int:
        return self.store.read().factory_reset

    def expect_done(self) -> None:
        """Data is sound, settings are the defaults, and what must go has gone, what must stay has stayed."""
        check = subprocess.run(["e2fsck", "-f", "-n", str(self.device)], capture_output=True, check=False)
        assert check.returncode == 0, check.stdout
        system = FileSystemInFile(self.folder / "mnt")
        settings = SettingsStore(system.mount(self.device) / "zentri", VARIABLES)
        report = settings.load()
        assert (report.source, report.problems) == ("current", ())
        assert settings.values.text("system.name") == ""
        keeps = self.tier == SETTINGS_ONLY
        assert ("secret" in files(self.device, "/")) == keeps
        assert files(self.device, "/zentri") == (["journal.json", "settings.json"] if keeps else ["settings.json"])
        now = self.store.read()
        wanted = replace(self.before, factory_reset=0, seq=now.seq, safemode=self.before.safemode and keeps)
        assert now == wanted, "only the request is cleared, and the safe mode that damaged data asked for"


@pytest.fixture
def scene(tmp_path: Path, used: Path) -> Callable[[int], Scene]:
    counter = iter(range(1000))

    def make(tier: int) -> Scene:
        folder = tmp_path / str(next(counter))
        folder.mkdir()
        return Scene(folder, used, tier)

    return make


@pytest.mark.parametrize("tier", [EVERYTHING, SETTINGS_ONLY])
def test_reset(scene: Callable[[int], Scene], tier: int) -> None:
    one = scene(tier)
    one.reset()
    assert one.carried_out
    one.expect_done()
    assert one.said[-1] == "factory reset: done"
    assert one.noted[0].startswith("factory reset done")


@pytest.mark.parametrize("torn", [False, True], ids=["between", "within"])
@pytest.mark.parametrize("tier", [EVERYTHING, SETTINGS_ONLY])
def test_the_power_goes_at_every_step(scene: Callable[[int], Scene], tier: int, torn: bool) -> None:
    operations = scene(tier).reset()
    assert len(operations) >= 4
    for number in range(len(operations)):
        one = scene(tier)
        assert len(one.reset(number, torn=torn)) == number
        assert one.requested == tier, f"the request was cleared before {operations[number]} was done"
        one.reset()
        assert one.carried_out, (operations[number], one.noted)
        one.expect_done()


def test_old_files_cannot_be_brought_back_by_a_repair(scene: Callable[[int], Scene]) -> None:
    one = scene(EVERYTHING)
    one.reset()
    subprocess.run(["e2fsck", "-f", "-y", str(one.device)], capture_output=True, check=False)
    assert files(one.device, "/") == ["zentri"]
    assert files(one.device, "/lost+found") == []
    assert SECRET not in one.device.read_bytes()


def test_data_that_is_noise_is_reset_by_the_first_tier_and_left_alone_by_the_second(
    scene: Callable[[int], Scene],
) -> None:
    noise = b"\xa5\x5a" * (SIZE_BYTES // 2)
    settings_only = scene(SETTINGS_ONLY)
    settings_only.device.write_bytes(noise)
    settings_only.reset()
    assert not settings_only.carried_out
    assert settings_only.device.read_bytes() == noise, "only a reset of everything may wipe"
    assert settings_only.requested == SETTINGS_ONLY
    assert "cannot be mounted" in settings_only.noted[0]
    assert "factory reset of everything" in settings_only.noted[0]
    everything = scene(EVERYTHING)
    everything.device.write_bytes(noise)
    everything.reset()
    everything.expect_done()


@pytest.mark.parametrize("program", ["mke2fs", "e2fsck"])
def test_a_disk_that_fails_is_told_and_the_request_stays(scene: Callable[[int], Scene], program: str) -> None:
    one = scene(EVERYTHING)
    one.reset(failing={program: 8})
    assert not one.carried_out
    assert one.requested == EVERYTHING
    assert "the disk may be broken" in one.noted[0]
    assert one.said[-1] == one.noted[0]


def test_a_boot_state_that_cannot_be_written_is_told(scene: Callable[[int], Scene]) -> None:
    one = scene(EVERYTHING)

    class Refusing(DiskBootStateStore):
        def update(self, change: Callable[[BootState], BootState]) -> BootState:
            raise BootStateWriteError("test")

    good, one.store = one.store, Refusing(one.folder / "bootstate")
    one.reset()
    assert not one.carried_out
    assert "done, but will be done again" in one.noted[0]
    assert one.marked == [EVERYTHING], "the supervisor must know that only the request is left"
    one.store = good
    one.reset()
    assert one.marked == []
    one.expect_done()


def test_another_request_that_came_meanwhile_is_not_cleared(scene: Callable[[int], Scene]) -> None:
    one = scene(SETTINGS_ONLY)
    one.store.update(lambda state: replace(state, factory_reset=EVERYTHING))
    one.reset()
    assert one.requested == EVERYTHING


def test_a_lost_boot_state_is_left_to_the_supervisor(scene: Callable[[int], Scene]) -> None:
    one = scene(EVERYTHING)
    (one.folder / "bootstate").write_bytes(b"\xff" * 1024 * 1024)
    one.reset()
    assert not one.carried_out
    assert (one.folder / "bootstate").read_bytes() == b"\xff" * 1024 * 1024


def test_a_mistake_in_the_reset_does_not_stop_the_boot() -> None:
    noted: list[str] = []

    def broken() -> Reset:
        raise RuntimeError("no such thing")

    assert not carry_out(EVERYTHING, broken, noted.append, noted.append)
    assert "no such thing" in noted[0]


@pytest.mark.parametrize(
    ("arguments", "tier"),
    [
        ("console=ttyAMA0 zentri.slot=a zentri.reset=1 zentri.why=slot", EVERYTHING),
        ("zentri.reset=2", SETTINGS_ONLY),
        ("zentri.reset=0", 0),
        ("quiet", 0),
        ("zentri.reset=", 0),
        ("zentri.reset=11", 0),
        ("xzentri.reset=1", 0),
        ("zentri.reset=1 zentri.reset=0", 0),
    ],
)
def test_what_is_asked_for(arguments: str, tier: int) -> None:
    assert asked(arguments) == tier


def test_notes_for_the_supervisor(tmp_path: Path) -> None:
    assert early_notes(tmp_path) == ()
    (tmp_path / "factory-reset").write_bytes(b"one\n\ntwo \xff\n")
    assert early_notes(tmp_path) == ("one", "two \ufffd")
