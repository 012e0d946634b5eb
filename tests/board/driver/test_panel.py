"""The panel's desk on a real QEMU with the stand-in firmware: what a person does on the page, seen by the board."""

from __future__ import annotations

import time
from collections.abc import Callable

from scripts.board_driver.serial import SerialLink
from scripts.board_driver.watched import WatchedBoard
from scripts.panel.desk import Desk


def until(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


def test_a_board_under_a_persons_hands(stand_in: WatchedBoard) -> None:
    stand_in.up()
    desk = Desk(stand_in, lambda: SerialLink(stand_in.run))
    said: list[str] = []
    desk.complain = said.append
    stand_in.wait_for_console("button=0", 20)
    assert desk.look().power
    stand_in.mark()
    desk.type(b"version\r")
    stand_in.wait_for_console("TEST-BARE_FIRMWARE", 20)
    assert not desk.look().led
    desk.press()
    until(lambda: desk.look().led)  # the firmware's lamp shows the button
    desk.release()
    until(lambda: not desk.look().led)
    # A finger on the button through a power cut: the firmware sees it before anything else.
    desk.press()
    desk.power(on=False)
    assert not desk.look().power
    stand_in.mark()
    desk.power(on=True)
    stand_in.wait_for_console("button=1", 20)
    until(lambda: desk.look().power)
    desk.release()
    assert not desk.look().pressed
    stand_in.mark()
    desk.reset()
    stand_in.wait_for_console("button=0", 20)
    assert said == []
