"""The boot application on the real board: its limits, its rights, its log, its end with everything that it started."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from, preparing, set_and_save
from tests.board.states import read_state

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]

PROGRAM = (Path(__file__).parents[1] / "support" / "boot_application.py").read_text()
APP_JSON = json.dumps({"name": "t-app", "version": "0.1.0", "command": ["bin/main"], "description": "a test's own"})
FOLDER = "/data/zentri/apps/t-app"


def write_file(board: WatchedBoard, path: str, content: str, mode: str) -> None:
    text = base64.b64encode(content.encode()).decode()
    board.succeed(f"mkdir -p $(dirname {path}) && echo {text} | base64 -d > {path} && chmod {mode} {path} && sync")


@pytest.fixture(scope="module")
def with_package(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Path]:
    """The disk of a healthy board with the package on it and as its boot application."""
    folder = tmp_path_factory.mktemp("with-package") / "disk"
    with preparing(world, folder) as one:
        write_file(one, f"{FOLDER}/bin/main", PROGRAM, "755")
        write_file(one, f"{FOLDER}/app.json", APP_JSON, "644")
        set_and_save(one, "system.boot.healthy_after 1", 'system.boot.app "t-app sleep"', "system.app.memory 48")
        one.wait_for_healthy()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def running(board: BoardFactory, with_package: Path, world: World) -> WatchedBoard:
    """A board whose boot application runs."""
    one = board_from(board, world, with_package)
    one.wait_for_healthy()
    return one


def log_of(board: WatchedBoard) -> list[str]:
    return [line.rstrip() for line in board.send("app log -n 200").expect_ok().splitlines()]


def wait_for_log(board: WatchedBoard, text: str, timeout_s: float = 90) -> str:
    """Wait until a line of the application's log since its last start holds `text`; return the line."""
    give_up_s = time.monotonic() + timeout_s
    while True:
        lines = log_of(board)
        found = [line for line in lines if text in line]
        if found:
            return found[-1]
        assert time.monotonic() < give_up_s, "\n".join(lines)
        time.sleep(0.5)


def play(board: WatchedBoard, part: str) -> None:
    """Let the application do another thing: a setting that takes effect at once."""
    board.send(f'set system.boot.app "t-app {part}"').expect_ok()
    pid = board.send("app start").expect_ok().split()[-1].rstrip(".")
    wait_for_log(board, f"begin {part} {pid}")


def row(board: WatchedBoard) -> list[str]:
    [line] = [line for line in board.send("app list").expect_ok().splitlines() if line.split()[:1] == ["t-app"]]
    return line.split()


def processes(board: WatchedBoard) -> dict[str, str]:
    """Return the command line of each process, by its number."""
    loop = "for p in /proc/[0-9]*; do echo ${p##*/} $(tr '\\0' ' ' < $p/cmdline); done"
    lines = board.succeed(f"({loop}) 2> /dev/null").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def instances(board: WatchedBoard) -> list[str]:
    return [pid for pid, command in processes(board).items() if f"{FOLDER}/bin/main" in command]


def pids(board: WatchedBoard) -> list[str]:
    return board.succeed("cat /sys/fs/cgroup/zentri-app/cgroup.procs").split()


def test_it_has_no_rights_but_its_own(running: WatchedBoard):
    assert row(running)[2:4] == ["yes", "running"]
    running.succeed("ls /data/zentri/settings.json /identity/*key* /dev/vda1 /dev/watchdog")
    play(running, "rights")
    wait_for_log(running, "rights told")
    told = [line.split(" app: ", 1)[1] for line in log_of(running) if " app: " in line]
    assert "user zentri-app 901 901 [] /data/zentri/appdata" in told
    assert f"capabilities {' '.join(['0000000000000000'] * 4)} 1" in told
    assert "nice 5 fds ['0', '1', '2']" in told
    assert "cgroup 0::/zentri-app" in told
    assert not [line for line in told if line.startswith(("OPENED", "KILLED"))], told
    for path in ("/identity/", "/dev/vda1 r+b", "/dev/watchdog r+b", "/data/zentri/settings.json rb"):
        assert [line for line in told if line.startswith(f"refused {path}")], (path, told)
    assert [line for line in told if line.startswith("refused the command socket 13")]
    assert running.succeed("stat -c '%U %a' /data/zentri/appdata /data/zentri/appdata/mine").split()[:2] == [
        "zentri-app",
        "700",
    ]


def test_memory_files_and_processes_are_limited(running: WatchedBoard):
    play(running, "files")
    line = wait_for_log(running, " app: files ")  # not: "begin files"
    assert 240 <= int(line.split()[-2]) < 256
    assert line.endswith(" 24")
    play(running, "bomb")
    line = wait_for_log(running, " app: processes ")
    assert int(line.split()[-2]) == 63
    assert line.endswith(" 11")
    assert len(pids(running)) == 64
    play(running, "memory")
    sentence = "was ended because it used more than its 48 MiB of memory (system.app.memory); started again in 1 s"
    wait_for_log(running, sentence)
    wait_for_log(running, "memory (system.app.memory); started again in 2 s")
    running.send("set system.app.memory 24").expect_ok()
    running.send("app restart").expect_ok()
    wait_for_log(running, "more than its 24 MiB")


def test_a_crash_is_started_again_with_growing_delays(running: WatchedBoard):
    play(running, "crash")
    for delay in (1, 2, 4):  # `crash` runs for half a second
        wait_for_log(running, f"the boot application t-app ended by signal 11; started again in {delay} s")
    assert int(row(running)[6]) >= 2
    running.send("app start").expect_ok()
    play(running, "sleep")
    assert row(running)[3] == "running"


def test_stop_ends_what_it_forked_and_a_missing_one_is_told(running: WatchedBoard):
    play(running, "children")
    running.wait_until_succeeds("[ $(wc -l < /sys/fs/cgroup/zentri-app/cgroup.procs) = 7 ]")
    assert "t-app is stopped" in running.send("app stop").expect_ok()
    assert pids(running) == []
    assert instances(running) == []
    assert row(running)[3] == "stopped"
    running.send("app start").expect_ok()
    running.wait_until_succeeds("[ $(wc -l < /sys/fs/cgroup/zentri-app/cgroup.procs) = 7 ]")
    running.send("set system.boot.app nothing").expect_ok()
    answer = running.send("app start")
    assert answer.code == 1
    places = "/data/zentri/items/slot-a/apps or /data/zentri/apps or /usr/share/zentri/apps"
    assert f"there is no application called nothing in {places}" in str(answer)
    assert pids(running) == []
    running.send('set system.boot.app ""').expect_ok()


def test_a_killed_supervisor_leaves_one_instance_only(running: WatchedBoard):
    play(running, "children")
    running.wait_until_succeeds("[ $(wc -l < /sys/fs/cgroup/zentri-app/cgroup.procs) = 7 ]")
    before = set(pids(running))
    [supervisor] = [pid for pid, command in processes(running).items() if command.rstrip().endswith("-m zentrid")]
    running.succeed(f"kill -9 {supervisor}")
    running.wait_for_answer()
    play(running, "sleep")
    assert instances(running) == pids(running) == [row(running)[4]]
    assert not before & set(pids(running))


def test_its_output_survives_a_restart_and_a_power_cut_and_no_end_is_an_exception(running: WatchedBoard):
    pid = wait_for_log(running, "begin sleep").split()[-1]
    with running.expecting("reset"):
        running.reboot()
        running.wait_for_healthy()
    lines = log_of(running)
    assert [line for line in lines if line.endswith(f"zentrid: t-app, process {pid}, was stopped")], lines
    wait_for_log(running, f"begin sleep {row(running)[4]}")
    running.wait_until_succeeds(f"grep -q 'begin sleep {row(running)[4]}' /data/zentri/log/app.log")
    marker = log_of(running)[-1]
    running.power_cut()
    assert read_state(running).faults == 0
    running.power_on()
    running.wait_for_healthy()
    assert marker in log_of(running)
