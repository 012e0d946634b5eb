"""Console, button and lamp on a real QEMU with the stand-in firmware."""

import threading

import pytest

from scripts.board_driver.board import Board
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import (
    BadConsoleError,
    BoardAssertionError,
    BrokenBoardError,
    DeadlineError,
    MachineError,
)
from scripts.board_driver.machine_mode import Answer
from scripts.board_driver.qmp import Qmp
from scripts.board_driver.serial import SerialLink
from scripts.board_driver.watched import WatchedBoard


@pytest.fixture
def board(stand_in: WatchedBoard) -> WatchedBoard:
    stand_in.up()
    stand_in.wait_for_console(r"warm=0 button=0\r\n> ", 20)
    return stand_in


def read_all(link: SerialLink) -> None:
    for _ in range(100):
        link.receive(1)


def test_send_gives_code_body_and_log_and_leaves_human_mode(board: WatchedBoard):
    assert board.send("version") == Answer(0, "TEST-BARE_FIRMWARE-1.0.0, Board:virt")
    assert board.send("fail") == Answer(1, "Command failed", ("the reason",))
    assert board.send("nonsense").code == 3
    with SerialLink(board.run) as link:
        link.send(b"version\r\n")
        board.wait_for_console(r"> version\r\nTEST-BARE_FIRMWARE.*\r\n> ", 10)


def test_send_works_when_a_line_was_left_half_typed(board: WatchedBoard):
    with SerialLink(board.run) as link:
        link.send(b"pani")
        board.wait_for_console("pani", 10)
    with SerialLink(board.run) as link:
        link.send(b"c")
    assert board.send("version").ok  # and no panic


def test_send_works_when_somebody_left_the_console_in_machine_mode(board: WatchedBoard):
    with SerialLink(board.run) as link:
        link.send(b"set system.cmd.format machine\r\n")
        board.wait_for_console("R000008", 10)
    assert board.send("version").ok


def test_safe_mode_is_seen_and_is_not_healthy(board: WatchedBoard):
    assert board.send("safe").ok
    assert board.send("version").safe_mode
    with pytest.raises(BoardAssertionError, match="safe mode"):
        board.wait_for_healthy(20)


def test_no_answer_is_a_deadline_error_that_says_what_was_asked(board: WatchedBoard):
    with pytest.raises(DeadlineError, match="answer to 'silent'"):
        board.send("silent", 1.5)


def test_a_busy_console_is_told_when_ssh_is_no_way_either(board: WatchedBoard):
    with SerialLink(board.run), pytest.raises(MachineError, match="SSH"):
        Board(board.name).send("version", 3)


def test_a_power_cut_ends_the_console(board: WatchedBoard):
    with SerialLink(board.run) as link:
        board.power_cut()
        with pytest.raises(MachineError, match="power was cut"):
            read_all(link)


def test_a_panic_breaks_the_board_for_good(board: WatchedBoard):
    with SerialLink(board.run) as link:
        link.send(b"panic\r\n")
        with pytest.raises(BadConsoleError, match="Kernel panic") as caught:
            board.wait_for_console("never printed", 5)
    assert caught.value.pattern == "panic"
    with pytest.raises(BrokenBoardError, match="Kernel panic"):
        board.send("version")


def test_an_expected_panic_breaks_nothing(board: WatchedBoard):
    with board.expecting("panic") as seen:
        board.send("panic")
        board.wait_for_console("asked for", 5)
    assert [hit.pattern for hit in seen] == ["panic"]
    assert board.send("version").ok


def test_a_reset_that_nobody_wanted_is_bad(board: WatchedBoard):
    with SerialLink(board.run) as link:
        link.send(b"reboot\r\n")
        with pytest.raises(BadConsoleError) as caught:
            board.wait_for_console("never printed", 10)
    assert caught.value.pattern == "reset"


def test_leaving_the_context_tells_of_a_bad_console_that_no_verb_saw(stand_in: WatchedBoard):
    def work():
        with stand_in as board:
            board.up()
            board.wait_for_console("> ", 20)
            with SerialLink(board.run) as link:
                link.send(b"panic\r\n")
                seen = b""
                while b"asked for" not in seen:
                    seen += link.receive(10)

    with pytest.raises(BadConsoleError):
        work()
    assert "Kernel panic" in stand_in.console_text


def test_reboot_is_no_bad_reset(board: WatchedBoard):
    assert board.reboot(30).ok
    assert "warm=1" in board.console_text_now
    board.check()


def test_the_lamp_follows_the_button(board: WatchedBoard):
    assert not board.led()
    with board.button_held():
        board.wait_for_led(on=True, timeout_s=5)
    board.wait_for_led(on=False, timeout_s=5)
    with pytest.raises(DeadlineError, match="lamp to be on; it is off"):
        board.wait_for_led(on=True, timeout_s=0.2)


def test_the_button_can_be_down_from_before_the_start(board: WatchedBoard):
    board.power_cycle(button_hold_s=0.5)
    board.wait_for_console("button=1", 20)
    board.wait_for_led(on=False, timeout_s=5)


def test_the_button_stays_down_over_a_reset(board: WatchedBoard):
    finger = threading.Thread(target=board.hold_button, args=(3,))
    finger.start()
    board.wait_for_led(on=True, timeout_s=5)
    board.reset()
    board.wait_for_console("warm=1", 20)
    board.wait_for_led(on=True, timeout_s=1)  # the reset has cleared the line in QEMU
    finger.join()
    board.wait_for_led(on=False, timeout_s=5)


def test_a_button_press_has_limits(board: WatchedBoard):
    for hold_s in (0, -1, 601):
        with pytest.raises(ValueError, match="held"):
            board.hold_button(hold_s)


def test_a_console_that_has_gone_deaf_hears_again(board: WatchedBoard):
    with SerialLink(board.run) as link:
        assert not link.unstick()
        link.send(b"lose interrupt\r\n")
        board.wait_for_console("Type now", 10)
        link.send(b"x" * 20)
        limit = Deadline(10, "the lost interrupt")
        while not link.unstick():
            limit.check()
        link.send(b"\x15version\r\n")
        board.wait_for_console("TEST-BARE_FIRMWARE", 10)
        assert not link.unstick()


def test_send_gets_through_to_a_deaf_console_by_itself(board: WatchedBoard):
    with SerialLink(board.run) as link:
        link.send(b"lose interrupt\r\n")
        board.wait_for_console("Type now", 10)
        link.send(b"x" * 20)
    assert board.send("version", 20).ok


def test_nothing_is_typed_while_the_board_restarts(board: WatchedBoard):
    assert board.send("version").ok
    with board.expecting("reset"):
        board.send("reboot").expect_ok()
        assert board.send("version").ok
    restart = board.console_text_now.split("Rebooting")[-1]
    assert restart.index("> ") < restart.index("set system.cmd.format")


def test_a_power_cut_by_the_test_itself_breaks_nothing(board: WatchedBoard):
    cut = threading.Timer(0.5, board.power_cut)
    cut.start()
    with pytest.raises(MachineError, match="power was cut"):
        board.send("silent", 20)
    cut.join()
    board.power_on()
    assert board.wait_for_answer(20).ok


def test_a_qemu_that_ends_by_itself_breaks_the_board(board: WatchedBoard):
    with Qmp(board.run.qmp) as qmp:
        qmp.command("quit")
    limit = Deadline(10, "QEMU to end")
    while board.powered:
        limit.check()
    with pytest.raises(MachineError, match="has no power"):
        board.send("version")
    with pytest.raises(BrokenBoardError, match="has no power"):
        board.power_on()
    assert board.down()
