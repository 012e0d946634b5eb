"""Real exceptions on the real board: each is one fault, and `faults_print` tells what it was after the restart."""

from __future__ import annotations

import re

import pytest

from scripts.board_driver import qtest
from scripts.board_driver.chosen import BOARD
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.conftest import BoardFactory

pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]

BACKGROUND = ">/dev/null 2>&1 </dev/null &"
KERNEL_ALIGN = 0x20_0000
"""The kernel's first symbol of the text section lies a little behind the beginning of its image, which is aligned."""
UNDEFINED = {64: 0x0000_0000, 32: 0xE7F0_00F0}[BOARD.bits]
"""An instruction that the processor does not have."""
SYSTEM_CALL = {64: "__arm64_sys_getpriority", 32: "sys_getpriority"}[BOARD.bits]


@pytest.fixture
def healthy(board: BoardFactory, world: World, tmp_path) -> WatchedBoard:
    """A healthy board that marks itself good quickly and has an impatient watchdog."""
    one = board(key=world.ssh_key(), image=world.places.image, identity=world.identity(8443, tmp_path / "identity"))
    one.up()
    one.wait_for_answer()
    one.send("set system.boot.healthy_after 1").expect_ok()
    one.send("set system.watchdog.timeout 15").expect_ok()
    one.send("save").expect_ok()
    one.wait_for_healthy()
    return one


def crash(board: WatchedBoard, command: str) -> list[str]:
    """Run what ends the system, wait until the board is healthy again; return the fault list."""
    board.mark()
    board.succeed(f"(sleep 1; {command}) {BACKGROUND}")
    board.wait_for_console(r"zentri: warm=1 exception=1", timeout_s=120)
    board.wait_for_healthy()
    return board.send("faults_print").expect_ok().splitlines()


def kernel_function(board: WatchedBoard, name: str) -> int:
    """Return the physical address of a kernel function."""
    symbols = {
        line.split()[2]: int(line.split()[0], 16)
        for line in board.succeed(f"grep -E ' (_text|_stext|{name})$' /proc/kallsyms").splitlines()
    }
    start = re.search(r"([0-9a-f]+)-[0-9a-f]+ : Kernel code", board.succeed("cat /proc/iomem"))
    assert start is not None
    begins = symbols["_stext"] // KERNEL_ALIGN * KERNEL_ALIGN if BOARD.bits == 64 else symbols["_text"]
    return symbols[name] - begins + int(start[1], 16)


def test_panic_oops_and_hang_are_told_apart(healthy: WatchedBoard):
    with healthy.expecting("reset", "panic", "oops", "call-trace"):
        [panic] = crash(healthy, "echo c > /proc/sysrq-trigger")
        assert re.fullmatch(
            r"0: panic, slot a, version 1\.0\.0, up [1-9]\d* s, 20\d\d-\S+Z, sysrq triggered crash", panic
        ), panic

        # Two dumps are left by this one: it is one fault all the same.
        qtest.request(healthy.run.qtest, f"writel 0x{kernel_function(healthy, SYSTEM_CALL):x} 0x{UNDEFINED:x}")
        faults = crash(healthy, "python3 -c 'import os; os.getpriority(0, 0)'")
        assert len(faults) == 2
        assert faults[0] == panic, "what was explained before stays as it is"
        assert re.fullmatch(
            r"1: oops, slot a, version 1\.0\.0, up [1-9]\d* s, 20\d\d-\S+Z, "
            rf"Internal error: Oops - [Uu]ndefined instruction: \S+ at {SYSTEM_CALL}\+0x0",
            faults[1],
        ), faults[1]

        faults = crash(healthy, "kill -STOP $(pidof python3)")
        assert len(faults) == 3
        assert faults[2].startswith("2: hang, slot a, version 1.0.0, "), faults[2]
        assert "no sign of life" in faults[2]
    assert healthy.succeed("ls /sys/fs/pstore") == "", "what was explained is deleted"
    healthy.send("faults_reset").expect_ok()
    assert healthy.send("faults_print").expect_ok() == "No faults"
    assert healthy.send("get system.fault.count").expect_ok().strip() == "0"


def test_a_clean_restart_is_no_fault(healthy: WatchedBoard):
    healthy.reboot()
    assert healthy.send("faults_print").expect_ok() == "No faults"
