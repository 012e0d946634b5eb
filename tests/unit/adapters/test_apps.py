"""The boot application as a real process: confined, started again, ended with everything that it started."""

import asyncio
import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.applications import MarkedCage, make_package
from zentrid.adapters import appprocess
from zentrid.adapters.appprocess import CHILD, AppProcess, Launch, StartError
from zentrid.adapters.apps import AppRunner
from zentrid.adapters.ringfile import RingFile
from zentrid.core.apps import AppError, AppLimits
from zentrid.ports import AppExit, Frame

FRAME = Frame("/app/main", "ab12", 0x1234)
SLEEP = "import time\nprint('up')\ntime.sleep(100)"


class Bench:
    """A runner on folders of its own."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.top, self.second = tmp / "data", tmp / "image"
        self.cage = MarkedCage(tmp / "home")
        self.exits: list[AppExit] = []
        self.crashes: dict[str, bool] = {}
        self.going_down = False
        self.error: Exception | None = None
        self.ring = RingFile(tmp / "log" / "app.log")
        self.runner = AppRunner(
            (self.top, self.second), self.ring, lambda: AppLimits(64, 32), self._on_exit,
            lambda pid: (11, (FRAME,)) if self.crashes.get("take") else None,
            cage=self.cage, account=None, home=tmp / "home", hold=tmp / "held", going_down=lambda: self.going_down,
        )  # fmt: skip
        self.task: asyncio.Task[None] | None = None

    async def _on_exit(self, end):
        self.exits.append(end)
        if self.error is not None:
            raise self.error

    def package(self, source, name="one", **options):
        return make_package(self.top, name, source, **options)

    def begin(self, setting=None):
        if setting is not None:
            self.runner.follow(setting)
        self.task = asyncio.create_task(self.runner.run())

    async def up(self, source=SLEEP, setting="one"):
        self.package(source)
        self.begin(setting)
        await self.until(lambda: self.info().state == "running")
        return self.info().pid

    async def end(self):
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task

    async def until(self, condition, timeout_s=20):
        give_up_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up_s, (self.runner.problem, self.exits, self.log)
            assert self.task is not None
            assert not self.task.done(), self.task
            await asyncio.sleep(0.02)

    def info(self):
        return next(info for info in self.runner.list() if info.boot)

    @property
    def log(self):
        return [line.split(" ", 1)[1] for line in self.runner.log_lines(10_000)]

    def said(self):
        return [line.removeprefix("app: ") for line in self.log if line.startswith("app: ")]


@pytest.fixture
async def bench(tmp_path):
    one = Bench(tmp_path)
    yield one
    await one.end()
    assert not one.cage.occupied(), "something of the application is left"


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


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
        "PATH", "HOME", "USER", "LANG", "TMPDIR", "PYTHONUNBUFFERED", "ZENTRI_APP", "ZENTRI_APP_DIR",
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
