"""The boot application as a real process: confined, started again, ended with everything that it started."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.appbench import FRAME, SLEEP, Bench, gone
from tests.support.applications import make_package
from zentrid.adapters.appprocess import CHILD
from zentrid.adapters.ringfile import RingFile
from zentrid.core.apps import AppError, AppLimits


# --- confined ---------------------------------------------------------------------------------------------------------
async def test_it_inherits_nothing_and_is_limited(bench):
    source = textwrap.dedent("""
        import json, os, resource, signal, sys, time
        status = dict(line.split(':', 1) for line in open('/proc/self/status'))
        print(json.dumps({
            "env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv[1:], "session": os.getsid(0) == os.getpid(),
            "fds": [[n, os.readlink(f'/proc/self/fd/{n}')] for n in sorted(map(int, os.listdir('/proc/self/fd')))
                    if os.path.exists(f'/proc/self/fd/{n}')],
            "files": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
            "nnp": status["NoNewPrivs"].strip(), "ignored": status["SigIgn"].strip(), "umask": status["Umask"].strip()}))
        time.sleep(100)
        """)
    bench.package(source, arguments=("first",))
    secret = os.open(bench.top, os.O_RDONLY)
    os.set_inheritable(secret, True)
    os.environ["SECRET"] = "x"
    try:
        bench.begin("one 'the second'")
        await bench.until(bench.said)
    finally:
        os.close(secret)
        del os.environ["SECRET"]
    told = json.loads("".join(bench.said()))
    assert told["argv"] == ["first", "the second"]
    assert set(told["env"]) - {"LC_CTYPE"} == {
        "PATH", "HOME", "USER", "LANG", "TMPDIR", "PYTHONUNBUFFERED", "ZENTRI_APP", "ZENTRI_APP_DIR", "ZENTRI_FILES",
    }  # fmt: skip
    assert told["env"]["ZENTRI_APP_DIR"] == str(bench.top / "one")
    assert told["cwd"] == str(bench.tmp / "home")
    assert [number for number, _ in told["fds"]] == [0, 1, 2]
    assert told["fds"][0][1] == "/dev/null"
    assert (told["files"], told["core"], told["nnp"], told["umask"]) == ([32, 32], [0, 0], "1", "0022")
    assert told["session"]
    assert int(told["ignored"], 16) & (1 << (signal.SIGXFSZ - 1) | 1 << (signal.SIGTERM - 1)) == 1 << (
        signal.SIGXFSZ - 1
    ), "its own Python ignores that again"
    assert bench.cage.limits == [AppLimits(64, 32)]
    assert (bench.tmp / "home").stat().st_mode & 0o777 == 0o700


async def test_the_first_folder_wins_and_a_path_will_do(bench):
    make_package(bench.second, "one", "import time; print('image'); time.sleep(100)")
    bench.begin("one")
    await bench.until(lambda: bench.said() == ["image"])
    bench.package("import time; print('data'); time.sleep(100)")
    await bench.runner.restart()
    await bench.until(lambda: bench.said()[-1] == "data")
    bench.runner.follow(f"{sys.executable} -ISuc 'import time; print(1 + 1); time.sleep(100)'")
    await bench.until(lambda: bench.said()[-1] == "2")
    assert bench.info().name == Path(sys.executable).name


# --- ends -------------------------------------------------------------------------------------------------------------
async def test_every_end_by_itself_is_told_and_it_is_started_again_with_growing_delays(bench):
    bench.package("print('hello'); print('bye', end='')")
    start_s = time.monotonic()
    bench.begin("one")
    await bench.until(lambda: bench.exits)
    assert bench.runner.problem == "the boot application one ended with exit code 0; started again in 1 s"
    await bench.until(lambda: len(bench.exits) == 3)
    assert time.monotonic() - start_s > 1 + 2
    assert bench.runner.problem == "the boot application one ended with exit code 0; started again in 4 s"
    end = bench.exits[0]
    assert (end.name, end.exit_code, end.signal, end.frames) == ("one", 0, None, ())
    assert end.output == "hello\nbye"
    assert end.reason == "the boot application one ended with exit code 0"
    assert 0 <= end.uptime_s < 5
    assert bench.info().restarts == 2
    assert bench.info().state == "waiting"
    assert RingFile(bench.tmp / "log" / "app.log").tail(1), "an end is on the disk at once"


async def test_a_signal_brings_the_frames_of_its_core(bench):
    pid = await bench.up()
    bench.crashes["take"] = True
    os.kill(pid, signal.SIGSEGV)
    await bench.until(lambda: bench.exits)
    assert (bench.exits[0].signal, bench.exits[0].exit_code, bench.exits[0].frames) == (11, None, (FRAME,))
    assert bench.runner.problem == "the boot application one ended by signal 11; started again in 1 s"


async def test_a_core_that_never_comes_is_fine(bench):
    os.kill(await bench.up(), signal.SIGABRT)
    await bench.until(lambda: bench.exits)
    assert (bench.exits[0].signal, bench.exits[0].frames) == (6, ())


async def test_the_want_of_memory_is_told_as_such(bench):
    pid = await bench.up()
    bench.cage.out_of_memory = True
    os.kill(pid, signal.SIGKILL)
    await bench.until(lambda: bench.exits)
    assert "used more than its 64 MiB of memory (system.app.memory)" in bench.exits[0].reason
    assert "64 MiB" in (bench.runner.problem or "")


async def test_a_steady_run_begins_the_delays_anew(bench, monkeypatch):
    monkeypatch.setattr("zentrid.core.apps.STEADY_S", 0.0)
    bench.package("print('hello')")
    bench.begin("one")
    await bench.until(lambda: len(bench.exits) == 3)
    assert bench.runner.problem.endswith("started again in 1 s")


async def test_what_it_leaves_behind_is_ended_and_does_not_hold_up_its_end(bench):
    bench.package("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(100)\nprint('end')")
    bench.begin("one")
    await bench.until(lambda: bench.exits, 10)
    assert not bench.cage.occupied()
    assert bench.exits[0].output == "end"


async def test_whoever_hears_of_an_end_may_fail(bench):
    bench.error = ValueError("x")
    bench.package("")
    bench.begin("one")
    await bench.until(lambda: len(bench.exits) == 2)


async def test_an_end_while_the_board_goes_down_is_none(bench):
    pid = await bench.up()
    bench.going_down = True
    os.kill(pid, signal.SIGTERM)
    await bench.until(lambda: bench.info().pid is None)
    await asyncio.sleep(1.7)
    assert bench.exits == []
    assert bench.info().pid is None


async def test_stop_comes_after_the_application_heard_of_the_shutdown_itself(bench):
    """Init tells all processes at once; the application may be the first to end."""
    os.kill(await bench.up(), signal.SIGTERM)
    await bench.until(lambda: bench.info().pid is None)
    await bench.runner.stop()
    await asyncio.sleep(1)
    assert bench.exits == []


# --- stopping ---------------------------------------------------------------------------------------------------------
STUBBORN = textwrap.dedent("""
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in range(3):
        if os.fork() == 0:
            os.setsid()
            os.fork()
            time.sleep(100)
    print('up')
    time.sleep(100)
    """)


@pytest.mark.parametrize("source", [SLEEP, STUBBORN], ids=["willing", "stubborn"])
async def test_stop_ends_everything_of_it(bench, source):
    await bench.up(source)
    await bench.until(bench.said)
    start_s = time.monotonic()
    await bench.runner.stop(timeout_s=10 if source is SLEEP else 1)
    took_s = time.monotonic() - start_s
    assert not bench.cage.occupied()
    assert took_s < 8, "the one that is willing needs no signal 9, the other one gets it in time"
    assert bench.exits == []
    assert not bench.task.done(), "the supervisor must not take the end for its own"
    assert "was stopped" in bench.log[-1]


async def test_stopped_by_hand_it_stays_so_until_it_is_started(bench):
    pid = await bench.up()
    assert await bench.runner.stop_by_hand() == "one is stopped; 'app start' or a restart of the device starts it."
    assert gone(pid)
    assert bench.runner.problem == "the boot application one was stopped by hand; 'app start' starts it"
    await asyncio.sleep(1.5)
    assert bench.info().state == "stopped"
    assert bench.exits == []
    assert await bench.runner.start() == f"one runs, process {bench.info().pid}."
    assert bench.runner.problem is None
    same = bench.info().pid
    assert await bench.runner.start() == f"one runs, process {same}."


async def another_supervisor(bench, setting):
    """End this one and begin another on the same folders, as after a crash of zentrid."""
    await bench.end()
    next_one = Bench(bench.tmp)
    next_one.begin(setting)
    await asyncio.sleep(0.3)
    return next_one


async def test_stopped_by_hand_it_stays_so_over_a_restart_of_the_supervisor(bench):
    await bench.up()
    await bench.runner.stop_by_hand()
    second = await another_supervisor(bench, "one")
    assert second.runner.stopped_by_hand
    assert second.info().state == "stopped"
    assert second.runner.problem == "the boot application one was stopped by hand; 'app start' starts it"
    await second.runner.start()
    third = await another_supervisor(second, "one")
    await third.until(lambda: third.info().state == "running")
    assert not third.runner.stopped_by_hand
    await third.end()


async def test_another_setting_lifts_the_hold_for_good(bench):
    await bench.up()
    await bench.runner.stop_by_hand()
    bench.package(SLEEP, "two")
    second = await another_supervisor(bench, "two")
    await second.until(lambda: second.info().state == "running")
    third = await another_supervisor(second, "one")
    await third.until(lambda: third.info().state == "running")
    await third.end()


def no_mark(path):
    path.unlink()


def folder_for_mark(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [no_mark, folder_for_mark, lambda path: path.write_bytes(b"\xff"), lambda path: path.write_bytes(b"o")]
)
async def test_a_hold_that_cannot_be_read_is_none(bench, damage):
    await bench.up()
    await bench.runner.stop_by_hand()
    damage(bench.tmp / "held")
    second = await another_supervisor(bench, "one")
    await second.until(lambda: second.info().state == "running")
    await second.runner.stop_by_hand()
    assert second.runner.stopped_by_hand, "also where the mark cannot be written"
    await second.end()


async def test_restart_replaces_it_without_an_exception(bench):
    pid = await bench.up()
    assert "runs, process" in await bench.runner.restart()
    assert gone(pid)
    assert bench.info().pid not in (None, pid)
    assert (bench.exits, bench.info().restarts) == ([], 0)


async def test_start_does_not_wait_for_the_delay(bench):
    bench.package("import sys; sys.exit(3)")
    bench.begin("one")
    await bench.until(lambda: len(bench.exits) == 3)  # the next start is in 4 s
    bench.package(SLEEP)
    start_s = time.monotonic()
    await bench.runner.start()
    assert time.monotonic() - start_s < 3
    assert bench.runner.problem is None


async def test_without_a_setting_or_a_loop_there_is_nothing_to_start(bench):
    with pytest.raises(AppError, match="safe mode"):
        await bench.runner.start()
    bench.begin("")
    await asyncio.sleep(0.1)
    for action in (bench.runner.start, bench.runner.stop_by_hand, bench.runner.restart):
        with pytest.raises(AppError, match=r"system\.boot\.app"):
            await action()
    assert bench.runner.problem is None


# --- the setting --------------------------------------------------------------------------------------------------------
async def test_the_same_setting_changes_nothing_another_one_replaces(bench):
    pid = await bench.up()
    bench.runner.follow("one")
    await asyncio.sleep(0.3)
    assert bench.info().pid == pid
    bench.package(SLEEP, "two")
    bench.runner.follow("two")
    await bench.until(lambda: bench.info().name == "two" and bench.info().state == "running")
    assert gone(pid)
    bench.runner.follow("")
    await bench.until(lambda: not bench.cage.occupied())
    assert bench.runner.problem is None
    assert bench.exits == []


# --- the list -----------------------------------------------------------------------------------------------------------
async def test_the_list_has_all_packages(bench):
    pid = await bench.up()
    bench.package(SLEEP, "two")
    (bench.top / "two" / "app.json").write_text("{")
    make_package(bench.second, "three", SLEEP)
    make_package(bench.second, "one", SLEEP)
    (bench.top / "Not-A-Name").mkdir()
    infos = {info.name: info for info in bench.runner.list()}
    assert list(infos) == ["one", "three", "two"]
    one = infos["one"]
    assert (one.boot, one.state, one.pid, one.version) == (True, "running", pid, "1.0.0")
    assert one.since_s is not None
    assert one.since_s >= 0
    assert (infos["three"].boot, infos["three"].state, infos["three"].pid) == (False, "off", None)
    assert infos["two"].state == "bad"
    assert "no JSON" in infos["two"].description


# --- the supervisor's own end -------------------------------------------------------------------------------------------
SUPERVISOR = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from tests.support.applications import MarkedCage
    from zentrid.adapters.apps import AppRunner
    from zentrid.adapters.ringfile import RingFile
    from zentrid.core.apps import AppLimits
    tmp = Path(sys.argv[1])
    async def ended(end): print(end, flush=True)
    async def main():
        runner = AppRunner([tmp / "data"], RingFile(tmp / "log"), lambda: AppLimits(64, 32), ended, lambda pid: None,
                           cage=MarkedCage(tmp / "home"), account=None, home=tmp / "home")
        runner.follow("one")
        await runner.run()
    asyncio.run(main())
    """)


async def test_a_killed_supervisor_leaves_no_second_instance(bench):
    source = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(100)\nprint(os.getpid())\ntime.sleep(100)"
    )
    bench.package(source)
    first = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(bench.tmp)])
    try:
        give_up_s = time.monotonic() + 20
        while len(list(bench.cage.pids())) != 2:
            assert time.monotonic() < give_up_s
            await asyncio.sleep(0.05)
        parents = {
            pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in bench.cage.pids()
        }
        [leader] = [pid for pid, parent in parents.items() if parent == first.pid]
        [child] = set(parents) - {leader}
    finally:
        first.kill()
        first.wait()
    give_up_s = time.monotonic() + 20
    while not gone(leader):
        assert time.monotonic() < give_up_s, "the application outlived its supervisor"
        await asyncio.sleep(0.02)
    assert not gone(child)
    bench.begin("")
    await bench.until(lambda: gone(child))


def test_a_child_whose_supervisor_is_gone_does_not_start(tmp_path):
    read, write = os.pipe()
    order = {
        "argv": ["/bin/sh", "-c", f"touch {tmp_path / 'ran'}"], "directory": "/", "files": 32, "parent": 1, "status_fd": write,
        "join": None, "uid": None, "gid": None,
    }  # fmt: skip
    with contextlib.closing(os.fdopen(read, "rb")):
        done = subprocess.run([sys.executable, "-I", "-S", CHILD, json.dumps(order)], pass_fds=(write,), timeout=20)
        os.close(write)
    assert done.returncode == 1
    assert not (tmp_path / "ran").exists()
