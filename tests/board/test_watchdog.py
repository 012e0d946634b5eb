"""The hardware watchdog brings the board back whatever hangs: the supervisor, its event loop, its threads, a shutdown.

Hangs inside the supervisor are injected: the program that starts it is covered, for one boot, by one that starts the same
supervisor and then spoils it from inside.
"""

import pytest

from scripts.board_driver.watched import WatchedBoard
from tests.board.states import read_state

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]

MAIN = "/usr/lib/python3/dist-packages/zentrid/__main__.py"
COMPILED = "/usr/lib/python3/dist-packages/zentrid/__pycache__/__main__.cpython-313.pyc"
TIMEOUT_S = 15
RESET_WITHIN_S = 150.0

SPOILED = """
import asyncio, sys, threading, time
from zentrid import app, supervisor
from zentrid.core import health

supervisor.WATCHDOG_GRACE_S = 5.0
health.PULSE_LIMIT_S = 10.0
original = app.App._supervise

def blocked_loop(one):
    asyncio.get_running_loop().call_later(8, time.sleep, 100_000)

def deadlock(one):
    def keep():
        with one.store._lock:
            time.sleep(100_000)
    asyncio.get_running_loop().call_later(8, lambda: threading.Thread(target=keep, daemon=True).start())

def exception(one):
    async def fail():
        await asyncio.sleep(8)
        return {}["no such key"]
    async def keep_in_touch(**_):
        await fail()
    one.manager.dms.keep_in_touch = keep_in_touch

async def spoiled(one, stop):
    HOW(one)
    await original(one, stop)

app.App._supervise = spoiled
sys.exit(app.main())
"""


def start_spoiled(board: WatchedBoard, how: str) -> None:
    """Let the supervisor start anew and go wrong in the way called `how` a few seconds later."""
    code = SPOILED.replace("HOW(", f"{how}(")
    board.succeed(f"cat > /tmp/spoiled.py << 'END'\n{code}\nEND\nmount --bind /tmp/spoiled.py {MAIN}")
    board.succeed(f": > /tmp/nothing; mount --bind /tmp/nothing {COMPILED}")  # else the compiled original is what runs
    board.succeed("kill $(cat /run/zentrid/alive); sleep 1")


@pytest.fixture
def quick(cold: WatchedBoard) -> WatchedBoard:
    """A healthy board whose watchdog is impatient."""
    cold.power_on()
    cold.wait_for_answer()
    cold.send(f"set system.watchdog.timeout {TIMEOUT_S}").expect_ok()
    cold.send("save").expect_ok()
    cold.wait_for_healthy()
    return cold


@pytest.mark.parametrize("how", ["blocked_loop", "deadlock"])
def test_a_supervisor_that_hangs_inside_is_an_exception_and_the_board_is_back(quick: WatchedBoard, how: str):
    with quick.expecting("reset"):
        start_spoiled(quick, how)
        quick.wait_for_console(r"zentri: warm=1 exception=1 faults=1", timeout_s=RESET_WITHIN_S)
        quick.wait_for_healthy()
    assert "hang" in quick.send("faults_print").body


def test_a_shutdown_that_hangs_ends_in_a_reset(quick: WatchedBoard):
    """Init is stopped, so nobody carries the restart out, and nobody feeds the watchdog once it was asked for."""
    with quick.expecting("reset"):
        quick.succeed("mount --bind /bin/true /usr/sbin/reboot; kill -STOP 1")
        quick.send("reboot").expect_ok()
        quick.wait_for_console(r"zentri: warm=1 exception=0", timeout_s=RESET_WITHIN_S)
        quick.wait_for_healthy()
    assert quick.send("faults_print").body.strip() == "No faults", "a restart that was asked for is no exception"


def test_an_exception_in_the_supervisor_is_recorded_and_it_starts_again(quick: WatchedBoard):
    start_spoiled(quick, "exception")
    quick.wait_until_succeeds("test -e /run/zentrid/alive")  # the spoiled one has read its program
    quick.succeed(f"umount {MAIN} {COMPILED}")
    quick.wait_until_succeeds("grep -q 'no such key' /run/zentrid/zentrid.log", timeout_s=60)
    body = quick.wait_for_answer().body
    assert body
    printed = quick.send("faults_print").body
    assert "supervisor" in printed
    assert "KeyError: 'no such key'" in printed
    quick.power_cut()
    assert read_state(quick).faults == 1


def test_a_supervisor_killed_eight_times_ends_in_safe_mode(cold: WatchedBoard):
    # With the ordinary watchdog: to an impatient one a supervisor that starts slowly is one that hangs, and the board is reset.
    cold.power_on()
    cold.wait_for_healthy()
    with cold.expecting("reset"):
        for number in range(8):
            cold.wait_until_succeeds("kill -KILL $(cat /run/zentrid/alive)", timeout_s=60)
            if number < 7:
                cold.wait_until_succeeds(
                    f"[ $(grep -c 'fault: supervisor' /run/zentrid/zentrid.log) -gt {number} ]", timeout_s=60
                )
        cold.wait_for_console("SAFEMODE> ", timeout_s=120)
    assert cold.send("faults_print").body.count("killed, or out of memory") == 8
