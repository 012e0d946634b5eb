"""The desk: button, power switch, keyboard, with a board in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from scripts.board_driver.errors import MachineError
from scripts.panel import desk as desk_module
from scripts.panel.desk import Desk, Look


class MemoryBoard:
    """A board that notes what is done to it."""

    def __init__(self) -> None:
        self.powered = True
        self.lit = True
        self.button = False
        self.did: list[str] = []
        self.broken = False

    def led(self) -> bool:
        """Return it, or fail."""
        if self.broken:
            raise MachineError("QEMU is gone")
        return self.lit

    def hold_button(self, hold_s: float, released: threading.Event | None = None) -> None:
        """Hold it, as the real one does."""
        assert released is not None
        self.button = True
        give_up_s = time.monotonic() + hold_s
        while self.powered and time.monotonic() < give_up_s and not released.wait(0.005):
            pass
        self.button = False

    def power_on(self, *, button_hold_s: float = 0, released: threading.Event | None = None) -> None:
        """Note it."""
        self.powered = True
        self.did.append(f"on, button {'down' if button_hold_s else 'up'}")
        if button_hold_s:
            self.hold_button(button_hold_s, released)

    def power_cut(self) -> None:
        """Note it."""
        self.powered = False
        self.did.append("off")

    def reset(self) -> None:
        """Note it."""
        self.did.append("reset")


class MemoryLine:
    """A serial line: one at a time may have it."""

    def __init__(self, desk_lines: list[MemoryLine]) -> None:
        self.typed = b""
        self.unstuck = 0
        self.open = False
        self.echo = True
        desk_lines.append(self)

    def __enter__(self) -> MemoryLine:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def send(self, data: bytes) -> None:
        """Type."""
        self.typed += data

    def receive(self, timeout_s: float) -> bytes:
        """Return an echo, or nothing."""
        time.sleep(0.005)
        return b"x" if self.echo else b""

    def unstick(self) -> bool:
        """Note it."""
        self.unstuck += 1
        return True


def until(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


@pytest.fixture
def board() -> MemoryBoard:
    return MemoryBoard()


@pytest.fixture
def lines() -> list[MemoryLine]:
    return []


@pytest.fixture
def desk(board: MemoryBoard, lines: list[MemoryLine], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(desk_module, "HANDS_OFF_S", 0.15)
    return Desk(board, lambda: MemoryLine(lines))  # type: ignore[arg-type,return-value]


def test_what_is_seen(desk: Desk, board: MemoryBoard) -> None:
    assert desk.look() == Look(power=True, led=True, pressed=False)
    board.lit = False
    assert desk.look() == Look(power=True, led=False, pressed=False)
    board.broken = True
    assert desk.look() == Look(power=False, led=False, pressed=False), "a board that goes away meanwhile is dark"


def test_the_button_is_down_as_long_as_the_finger_is_there(desk: Desk, board: MemoryBoard) -> None:
    desk.press()
    desk.press()
    until(lambda: board.button)
    assert desk.look().pressed
    desk.release()
    until(lambda: not board.button)
    assert not desk.look().pressed
    desk.release()
    desk.press()
    until(lambda: board.button)
    desk.release()


def test_a_finger_stays_over_a_power_cut_and_is_there_before_the_next_start(desk: Desk, board: MemoryBoard) -> None:
    desk.press()
    until(lambda: board.button)
    desk.power(on=False)
    until(lambda: not board.button)
    assert desk.look() == Look(power=False, led=False, pressed=True)
    desk.power(on=True)
    until(lambda: board.button)
    assert board.did == ["off", "on, button down"]
    desk.release()
    until(lambda: not board.button)


def test_the_power_switch(desk: Desk, board: MemoryBoard) -> None:
    desk.power(on=True)
    assert board.did == [], "it is on"
    desk.power(on=False)
    desk.power(on=False)
    desk.power(on=True)
    desk.reset()
    assert board.did == ["off", "on, button up", "reset"]


def test_typing_has_the_line_only_while_there_is_typing(desk: Desk, lines: list[MemoryLine]) -> None:
    for key in (b"v", b"e", b"r", b"\r"):
        desk.type(key)
    until(lambda: lines and lines[0].typed == b"ver\r")
    until(lambda: not lines[0].open)
    assert len(lines) == 1
    desk.type(b"x")
    until(lambda: len(lines) == 2 and lines[1].typed == b"x")


def test_a_line_that_does_not_hear_is_mended(
    desk: Desk, lines: list[MemoryLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "UNHEARD_S", 0.05)
    desk.type(b"x")
    until(lambda: lines)
    lines[0].echo = False
    desk.type(b"y")
    until(lambda: lines[0].unstuck == 1)
    until(lambda: not lines[0].open)
    assert lines[0].unstuck == 1


def test_a_line_that_somebody_else_has_is_said(board: MemoryBoard) -> None:
    def taken() -> MemoryLine:
        raise MachineError("somebody else uses the serial console")

    said: list[str] = []
    desk = Desk(board, taken)  # type: ignore[arg-type]
    desk.complain = said.append
    desk.type(b"x")
    until(lambda: said == ["Nothing was typed: somebody else uses the serial console."])
