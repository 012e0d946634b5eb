"""The board itself, by its driver: it boots, answers, restarts, loses its power and comes back."""

import re

import pytest

from scripts.board_driver.chosen import BOARD
from scripts.board_driver.watched import WatchedBoard
from tests.board.conftest import BoardFactory

pytestmark = [pytest.mark.board, pytest.mark.timeout(400)]

VERSION = re.compile(
    r"[A-Z0-9]+-[A-Z0-9]+_[A-Z0-9]+-\d+\.\d+\.\d+, \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, Zentri-.*, Board:" + BOARD.name
)


def test_version_is_answered_on_the_console(module_board: WatchedBoard):
    answer = module_board.send("version")
    assert answer.ok
    assert VERSION.fullmatch(answer.body)


def test_an_unknown_command_has_its_code_and_leaves_the_console_usable(module_board: WatchedBoard):
    assert module_board.send("no_such_command").code == 3
    assert module_board.send("version").ok


def test_a_long_answer_comes_whole(module_board: WatchedBoard):
    lines = module_board.send("get all").expect_ok().splitlines()
    assert len(lines) > 20
    assert all(re.match(r"[a-z0-9_.]+:", line) for line in lines)


def test_reset_and_power_cuts_end_in_a_healthy_board_again(board: BoardFactory):
    one = board()
    one.up()
    one.wait_for_console("zentri: warm=0")
    one.wait_for_healthy()
    one.reset()
    one.wait_for_console("zentri: warm=1")
    one.wait_for_healthy()
    one.power_cycle()
    one.wait_for_console("zentri: warm=0")
    one.power_cycle(off_s=0.5)  # in the middle of its start
    one.wait_for_console("zentri: warm=0")
    one.wait_for_healthy()


def test_reboot_is_the_boards_own_restart(board: BoardFactory):
    one = board()
    one.up()
    one.wait_for_healthy()
    assert one.reboot().ok
    one.wait_for_healthy()


def test_both_copies_of_the_boot_state_bad_is_told_and_the_board_comes_back(board: BoardFactory):
    one = board()
    one.up()
    one.wait_for_healthy()
    one.power_cut()
    for offset in (0, 512 * 1024):
        one.disk_flip_bit("bootstate", offset + 100)
    with one.expecting("state-lost") as seen:
        one.power_on()
        one.wait_for_healthy()
    assert [hit.pattern for hit in seen] == ["state-lost"]


def test_every_write_of_the_board_is_recorded_when_asked(board: BoardFactory, tmp_path):
    log = tmp_path / "writes.log"
    one = board(write_log=log)
    one.up()
    one.wait_for_healthy()
    one.down()
    assert log.read_bytes()[:8] == (0x6A736677736872).to_bytes(8, "little")  # dm-log-writes' magic
    assert log.stat().st_size > 8192
