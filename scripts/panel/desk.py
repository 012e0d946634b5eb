"""The board as it stands on a desk: lamp, button, power switch, and a keyboard on its serial line. Everything blocks."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from scripts.board_driver.errors import BoardAssertionError, MachineError
from scripts.board_driver.power import MAX_HOLD_S
from scripts.board_driver.serial import SerialLink

HANDS_OFF_S: Final = 2.0
"""The serial line is given up after so long without a key, so that `scripts/board` can have it."""
UNHEARD_S: Final = 1.0
MAX_KEYS: Final = 256
"""So many pieces of typing may wait."""
_STEP_S: Final = 0.05


class OnTheDesk(Protocol):
    """What the desk needs of a board; `scripts.board_driver.board.Board` has it."""

    @property
    def powered(self) -> bool:
        """Whether the power is on."""

    def led(self) -> bool:
        """Return whether the lamp is lit."""

    def hold_button(self, hold_s: float, released: threading.Event | None = None) -> None:
        """Press the button for so long, or until `released`."""

    def power_on(self, *, button_hold_s: float = 0, released: threading.Event | None = None) -> object:
        """Switch the power on; with `button_hold_s` the button is down from before the start, so long or until `released`."""

    def power_cut(self) -> None:
        """Cut it."""

    def reset(self) -> None:
        """Pull the reset line."""


@dataclass(frozen=True)
class Look:
    """What a person sees."""

    power: bool
    led: bool
    pressed: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class Desk:
    """One board. Methods may be called from any thread."""

    def __init__(self, board: OnTheDesk, open_line: Callable[[], SerialLink]) -> None:
        """Take the board, and what opens its serial line for typing."""
        self._board = board
        self._open_line = open_line
        self._finger: threading.Event | None = None
        self._changing = threading.Lock()
        self._keys: queue.Queue[bytes] = queue.Queue(MAX_KEYS)
        self._hand: threading.Thread | None = None
        self.complain: Callable[[str], None] = lambda _sentence: None
        """Told what went wrong behind the caller's back."""

    def look(self) -> Look:
        """Return what is to be seen now. A board that goes away meanwhile is dark."""
        pressed = self._finger is not None
        with suppress(MachineError, BoardAssertionError):
            if self._board.powered:
                return Look(power=True, led=self._board.led(), pressed=pressed)
        return Look(power=False, led=False, pressed=pressed)

    def power(self, *, on: bool) -> None:
        """Turn the power switch; turning it to where it is does nothing. Raises MachineError."""
        with self._changing:
            if on == self._board.powered:
                return
            if not on:
                self._board.power_cut()
            elif self._finger is None:
                self._board.power_on()
            else:
                threading.Thread(target=self._plug_in, args=(self._finger,), name="plug", daemon=True).start()

    def _plug_in(self, finger: threading.Event) -> None:
        """Switch the power on while the button is down: the ROM looks at it before anything else."""
        try:
            self._board.power_on(button_hold_s=MAX_HOLD_S, released=finger)
        except (MachineError, BoardAssertionError) as error:
            self.complain(f"{error}.")

    def reset(self) -> None:
        """Pull the reset line. Raises MachineError."""
        self._board.reset()

    # --- the button ---------------------------------------------------------------------------------------------------
    def press(self) -> None:
        """Put a finger on the button; it stays there until `release`."""
        with self._changing:
            if self._finger is None:
                self._finger = threading.Event()
                threading.Thread(target=self._hold, args=(self._finger,), name="finger", daemon=True).start()

    def release(self) -> None:
        """Take the finger away."""
        with self._changing:
            if self._finger is not None:
                self._finger.set()
            self._finger = None

    def _hold(self, released: threading.Event) -> None:
        """Hold on, whether the power is on or not."""
        while not released.wait(_STEP_S):
            # The power may go at any moment; the finger stays.
            with suppress(MachineError, BoardAssertionError):
                if self._board.powered:
                    self._board.hold_button(MAX_HOLD_S, released)

    # --- the keyboard -------------------------------------------------------------------------------------------------
    def type(self, data: bytes) -> None:
        """Type on the serial console, in the background. What is too much is dropped."""
        with suppress(queue.Full):
            self._keys.put_nowait(data)
        with self._changing:
            if self._hand is None:
                self._hand = threading.Thread(target=self._type_all, name="hand", daemon=True)
                self._hand.start()

    def _type_all(self) -> None:
        try:
            with self._open_line() as line:
                self._carry(line)
        except MachineError as error:
            if self._forget_keys():
                self.complain(f"Nothing was typed: {error}.")
        finally:
            with self._changing:
                self._hand = None
            if not self._keys.empty():
                self.type(b"")

    def _forget_keys(self) -> bool:
        """Forget what waits to be typed; return whether there was any."""
        some = False
        with suppress(queue.Empty):
            while True:
                self._keys.get_nowait()
                some = True
        return some

    def _carry(self, line: SerialLink) -> None:
        """Type what there is; what the board prints meanwhile is in its log, where it is read from."""
        typed_s, unheard = time.monotonic(), False
        while time.monotonic() - typed_s < HANDS_OFF_S:
            with suppress(queue.Empty):
                while True:
                    line.send(self._keys.get_nowait())
                    typed_s, unheard = time.monotonic(), True
            if line.receive(_STEP_S):
                unheard = False
            elif unheard and time.monotonic() - typed_s > UNHEARD_S:
                line.unstick()
                unheard = False
