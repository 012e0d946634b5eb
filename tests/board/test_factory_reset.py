"""Factory reset on the real board: by button and by command, both tiers, cut in the middle, on destroyed data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from, preparing, set_and_save
from tests.board.states import read_state, write_state
from zentrid.core import names
from zentrid.core.bootstate import Fault
from zentrid.core.version import Version

pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]

MIB = 1024 * 1024
KEPT_FAULT = Fault("application", "a", "1.0.0", 40, "2026-11-02T00:00:00Z", "exit code 3")
FLOOR = Version(1, 0, 0)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Path]:
    """The disk of a board that was used: it has a name, a file on data, a fault."""
    folder = tmp_path_factory.mktemp("used") / "disk"
    with preparing(world, folder) as one:
        set_and_save(one, "system.boot.healthy_after 1", "system.watchdog.timeout 15", "system.name boiler-room")
        one.wait_for_healthy()
        one.succeed("echo old > /data/file; sync")
        one.power_cut()
        write_state(one, faults=1, fault_records=(KEPT_FAULT,))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cold(board: BoardFactory, used: Path, world: World) -> WatchedBoard:
    """A board of its own with a copy of the used disk; its power is off."""
    one = board_from(board, world, used)
    one.power_cut()  # long before the boot script reads the disk
    return one


def mac(board: WatchedBoard) -> str:
    return board.send("get network.mac").expect_ok().strip()


def name(board: WatchedBoard) -> str:
    return board.send("get system.name").expect_ok().strip()


def has_file(board: WatchedBoard) -> bool:
    return board.wait_until_succeeds("ls -a /data").split().count("file") == 1


def expect_used(board: WatchedBoard) -> None:
    """The board is as its owner left it."""
    assert name(board) == "boiler-room"
    assert has_file(board)


def expect_reset(board: WatchedBoard, *, settings_only: bool = False) -> None:
    """Settings are at their defaults, data is mounted, the file is gone (or not); what must survive has survived."""
    assert name(board) == ""
    assert board.send("get system.watchdog.timeout").expect_ok().strip() == "30"
    assert has_file(board) == settings_only
    assert " /data ext4 rw" in board.wait_until_succeeds("cat /proc/mounts")
    assert not board.led(), "the lamp goes out when the reset is done"
    assert "exit code 3" in board.send("faults_print").expect_ok(), "faults are about the software: they stay"
    board.power_cut()
    state = read_state(board)
    assert (state.factory_reset, state.floor, state.fault_records[0]) == (0, FLOOR, KEPT_FAULT)


def restarts(board: WatchedBoard, line: str) -> None:
    """Send a command that restarts the board; wait until it answers again."""
    with board.expecting("reset"):
        board.mark()
        assert board.send(line).expect_ok() == "Rebooting"
        board.wait_for_console("zentri: warm=1 exception=0", timeout_s=60)
    board.wait_for_answer()


@pytest.mark.parametrize("broken", [False, True], ids=["slots are good", "both slots are broken"])
def test_button_held_at_power_up(cold: WatchedBoard, broken: bool):
    if broken:
        for part in ("kernel_a", "kernel_b"):
            cold.disk_write(part, 0, b"\xa5" * MIB)
    cold.power_on(button_hold_s=12)
    cold.wait_for_console("factory reset asked for by the button")
    cold.wait_for_console("zentri: factory reset: making a new data file system")
    cold.wait_for_console("zentri: factory reset: done")
    assert cold.wait_for_answer().safe_mode == broken
    note = cold.wait_until_succeeds("cat /run/zentri/factory-reset")
    assert note.startswith("factory reset done (everything on data) in ")
    expect_reset(cold)


def test_button_held_while_running_and_nobody_can_take_its_line_away(cold: WatchedBoard):
    cold.power_on()
    cold.wait_for_healthy()
    taken = cold.fail("python3 -c \"import gpiod; gpiod.request_lines('/dev/gpiochip0', config={0: None})\"")
    assert "Device or resource busy" in taken
    with cold.button_held():
        cold.wait_for_led(on=True)
        cold.wait_for_led(on=False)
        cold.wait_for_led(on=True)
    cold.wait_for_led(on=False)
    expect_used(cold)
    with cold.expecting("reset"):
        cold.mark()
        with cold.button_held():
            cold.wait_for_console("The system is going down", timeout_s=60)
            assert cold.led(), "solid when heard"
        cold.wait_for_console("zentri: factory reset: done", timeout_s=120)
    cold.wait_for_answer()
    assert "exception=0" in cold.console_text_now.split("The system is going down")[-1], "a clean restart is no fault"
    expect_reset(cold)


def test_button_works_when_the_supervisor_does_not(cold: WatchedBoard):
    cold.power_on()
    cold.wait_for_healthy()
    with cold.expecting("reset"):
        cold.mark()
        cold.succeed("kill -STOP $(pidof python3)")
        cold.hold_button(45)  # the watchdog restarts the board meanwhile; a finger stays where it is
        cold.wait_for_console("zentri: factory reset: done", timeout_s=120)
    cold.wait_for_answer()
    assert cold.console_text_now.count("zentri: factory reset: done") == 1, "one press is one reset"
    assert "1: hang, slot a" in cold.send("faults_print").expect_ok()
    expect_reset(cold)


def test_command_wants_the_right_mac_and_knows_two_tiers(cold: WatchedBoard):
    cold.power_on()
    cold.wait_for_healthy()
    own = mac(cold)
    wrong = own[:-1] + ("0" if own[-1] != "0" else "1")
    assert not cold.send(f"factory_reset {wrong}").ok
    assert not cold.send("factory_reset").ok
    assert not cold.send(f"fac -s {wrong}").ok
    expect_used(cold)
    restarts(cold, f"factory_reset -s {own.lower()}")
    assert "removing the settings" in cold.console_text_now
    expect_reset(cold, settings_only=True)
    cold.power_on()
    cold.wait_for_answer()
    restarts(cold, f"fac {own.replace(':', '-')}")
    expect_reset(cold)


def test_a_reset_that_is_cut_is_done_at_the_next_start(cold: WatchedBoard):
    write_state(cold, factory_reset=1)
    for line in (
        "Starting kernel",
        "factory reset: making a new data file system",
        "factory reset: writing the defaults",
    ):
        cold.power_on()
        cold.wait_for_console(line)
        cold.power_cut()
        assert read_state(cold).factory_reset == 1
    cold.power_on()
    cold.wait_for_console("zentri: factory reset: done")
    cold.power_cut()
    assert read_state(cold).factory_reset == 0
    cold.power_on()
    cold.wait_for_answer()
    expect_reset(cold)


def test_destroyed_data_is_brought_back_by_a_reset_of_everything_only(cold: WatchedBoard):
    size = names.partition("data").size_bytes
    noise = os.urandom(16 * MIB)
    for offset in range(0, size, len(noise)):
        cold.disk_write("data", offset, noise)
    write_state(cold, factory_reset=2)
    with cold.expecting("reset"):
        cold.power_on()
        cold.wait_for_console("the data file system cannot be mounted")
        cold.wait_for_console(r"\*\*\* The data partition cannot be mounted\. Entering Safe Mode\.")
        assert cold.wait_for_answer().safe_mode
        assert " /data tmpfs" in cold.wait_until_succeeds("cat /proc/mounts")
        cold.mark()
        cold.send(f"factory_reset {mac(cold)}").expect_ok()
        cold.wait_for_console("zentri: factory reset: done")
        # New data takes the reason of safe mode away: the board leaves it by itself.
        cold.wait_for_console("zentri: trying slot a")
        cold.wait_for_healthy()
    expect_reset(cold)
