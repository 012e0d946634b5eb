"""The boot application that cannot be started, and what a flood of its output does."""

import asyncio
import contextlib
import errno
import os
import resource
import sys
import time
from pathlib import Path

import pytest

from tests.support.appbench import SLEEP
from tests.support.applications import make_package
from zentrid.adapters import appprocess
from zentrid.adapters.appprocess import AppProcess, Launch, StartError
from zentrid.adapters.ringfile import RingFile
from zentrid.core.apps import AppError


def write_foreign(folder):
    machine = {"aarch64": 62}.get(os.uname().machine, 183)  # an ELF file for another processor
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(100)
    (folder / "main.py").write_bytes(header)


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (lambda folder: (folder / "main.py").unlink(), 127, "main.py is not there"),
        (lambda folder: (folder / "main.py").write_text("#!/nowhere/python\n"), 127, "interpreter or loader"),
        (lambda folder: (folder / "main.py").chmod(0o644), 126, "not executable"),
        (write_foreign, 126, "no program for this processor"),
        (lambda folder: (folder / "main.py").write_text("print(1)\n"), 126, "without '#!'"),
        (lambda folder: (folder / "app.json").write_text("{}"), 126, "name is missing"),
        (lambda folder: (folder / "app.json").unlink(), 126, "app.json cannot be read"),
        (lambda folder: folder.rename(folder.parent / "other"), 127, "no application called one in "),
    ],
)
async def test_what_cannot_be_started_is_told_once_and_tried_again(bench, damage, code, said):
    folder = bench.package(SLEEP)
    damage(folder)
    bench.begin("one")
    await bench.until(lambda: bench.runner.problem and "tried again in 2 s" in bench.runner.problem)
    assert said in bench.runner.problem
    assert bench.runner.problem.startswith("the boot application one cannot be started: ")
    [end] = bench.exits
    assert (end.exit_code, end.signal, end.uptime_s) == (code, None, 0.0)
    assert said in end.reason
    assert len([line for line in bench.log if "cannot be started" in line]) == 1, "the log is not filled by retries"
    bench.package(SLEEP)
    await bench.until(lambda: bench.runner.problem is None)
    assert len(bench.exits) == 1


async def test_a_setting_that_nobody_can_read_is_a_problem(bench):
    bench.begin("one 'open")
    await bench.until(lambda: bench.exits)
    assert "a quote that is not closed" in bench.runner.problem
    with pytest.raises(AppError, match="quote"):
        await bench.runner.start()
    assert bench.info().name == "one"


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN])
async def test_a_disk_that_gives_no_answer_is_told_once_and_tried_again(bench, monkeypatch, number):
    make_package(bench.second, "one", SLEEP)  # not taken instead: nobody knows whether the first folder has one
    bad, stat = bench.package(SLEEP), Path.stat

    def failing(path, **options):
        if path == bad:
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", failing)
    bench.begin("one")
    await bench.until(lambda: bench.runner.problem and "tried again in 2 s" in bench.runner.problem)
    assert f"{bad} cannot be read ({os.strerror(number)})" in bench.runner.problem
    assert [(end.exit_code, end.signal) for end in bench.exits] == [(126, None)]
    monkeypatch.setattr(Path, "stat", stat)
    await bench.until(lambda: bench.runner.problem is None)


async def test_what_the_system_refuses_unforeseen_does_not_end_the_supervisor(bench, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr("zentrid.adapters.apps.prepare", refuse)
    bench.package(SLEEP)
    bench.begin("one")
    await bench.until(lambda: bench.runner.problem and "tried again in 2 s" in bench.runner.problem)
    assert [end.exit_code for end in bench.exits] == [126]
    assert "cannot be started: the device refuses it" in bench.exits[0].reason


def open_files():
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("free", range(6))
async def test_without_room_for_files_nothing_starts_and_nothing_is_left_open(bench, free):
    bench.tmp.joinpath("home").mkdir()
    environment = {"HOME": str(bench.tmp / "home")}
    launch = Launch("one", (sys.executable, "-c", SLEEP), environment, bench.tmp, None, 32)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    before = open_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 20, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())
        with pytest.raises(StartError, match="no room for another process") as caught:
            await AppProcess.start(launch, bench.cage, lambda _: None)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.exit_code == 126
    await asyncio.sleep(0)
    assert open_files() == before


async def test_a_pipe_that_cannot_be_watched_ends_what_was_started(bench, monkeypatch):
    async def refuse(*_):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    bench.package(SLEEP)
    monkeypatch.setattr(asyncio.get_running_loop(), "connect_read_pipe", refuse)
    bench.begin("one")
    await bench.until(lambda: bench.runner.problem and "tried again in 2 s" in bench.runner.problem)
    assert [end.exit_code for end in bench.exits] == [126]
    assert not bench.cage.occupied()


async def test_a_cage_that_cannot_be_made_keeps_it_from_running(bench):
    bench.cage.broken = OSError(30, "Read-only file system")
    bench.package(SLEEP)
    bench.begin("one")
    await bench.until(lambda: bench.exits)
    assert "cannot be confined" in bench.runner.problem
    assert not bench.cage.occupied()


# --- output -------------------------------------------------------------------------------------------------------------
async def test_both_outputs_and_its_life_are_in_the_log(bench):
    pid = await bench.up("import sys, time\nprint('out')\nprint('err', file=sys.stderr)\ntime.sleep(100)")
    await bench.until(lambda: bench.said() == ["out", "err"])
    await bench.runner.stop_by_hand()
    assert bench.log == [
        f"zentrid: one started, process {pid}", "app: out", "app: err", f"zentrid: one, process {pid}, was stopped",
    ]  # fmt: skip


async def test_its_start_comes_before_its_output_however_soon_that_is(bench, monkeypatch):
    answer = appprocess._answer

    async def late(fd):  # as on a board that has much to do
        found = await answer(fd)
        await asyncio.sleep(1)
        return found

    monkeypatch.setattr(appprocess, "_answer", late)
    pid = await bench.up()
    await bench.until(bench.said)
    assert bench.log == [f"zentrid: one started, process {pid}", "app: up"]


async def test_output_is_on_the_disk_after_a_moment(bench):
    await bench.up()
    written = RingFile(bench.tmp / "log" / "app.log")
    await bench.until(lambda: any("app: up" in line for line in written.tail(10)), 8)


async def test_a_flood_is_bounded_and_the_loop_goes_on(bench):
    await bench.up("while True: print('0123456789' * 8)")
    slowest_s = 0.0
    for _ in range(60):
        before_s = time.monotonic()
        await asyncio.sleep(0.05)
        slowest_s = max(slowest_s, time.monotonic() - before_s - 0.05)
    await bench.runner.stop_by_hand()
    assert slowest_s < 1
    assert sum(len(line) for line in bench.said()) <= 65_536
    told = [line for line in bench.said() if "were not kept" in line]
    assert len(told) == 1
    total = sum(file.stat().st_size for file in (bench.tmp / "log").iterdir())
    assert total <= 2 * 65_536


@pytest.mark.parametrize("text", ["", "y"])
async def test_a_flood_of_short_lines_leaves_the_loop_to_others(bench, text):
    pid = await bench.up(f"import os\nos.execv('/usr/bin/yes', ['yes', '{text}'])")
    await bench.until(lambda: len(bench.ring.tail(10_000)) > 1000)
    since_s, used_s = time.monotonic(), time.thread_time()
    await asyncio.sleep(3)
    share = (time.thread_time() - used_s) / (time.monotonic() - since_s)
    assert share < 0.15, share
    assert bench.info().pid == pid
