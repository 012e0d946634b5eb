"""The factory-reset button while the device runs: from timed edges of its line to what the lamp and the device do. Pure.

Only a press that began while somebody watched counts: it needs its rising edge. A button that is stuck, or still down since
the boot script heard it, asks for nothing until it was let go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

HOLD_S: Final = 10.0
"""So long the button must be held. At power-up the boot script wants 5 s; a running device is held on purpose."""
BOUNCE_S: Final = 0.030
"""A level that lasts less is the contact's bouncing, not a finger."""


class Seen(Enum):
    """What the button asks for now."""

    NOTHING = "nothing"
    HELD = "held"
    """Down, not long enough yet: the lamp blinks."""
    RESET = "reset"
    """Held long enough: once for each press."""


@dataclass(frozen=True)
class Button:
    """The button as far as it is known. All times are seconds of one clock that nobody sets."""

    pressed_s: float | None = None
    """When the press began that we saw beginning; None: there is none."""
    released_s: float | None = None
    """When its level fell again; it may be a bounce until BOUNCE_S have passed."""
    heard: bool = False
    """This press has been reported as a reset."""

    def edge(self, *, rising: bool, at_s: float) -> Button:
        """Take an edge of the line."""
        now = self._settled(at_s)
        if not rising:
            return replace(now, released_s=at_s) if now.pressed_s is not None and now.released_s is None else now
        if now.pressed_s is None:
            return Button(pressed_s=at_s)
        return replace(now, released_s=None)

    def level(self, *, high: bool) -> Button:
        """Take the line's level, read when no edge waited. Low without an edge: it was lost, and nobody knows since when.

        Such a press is forgotten: it must neither last for ever nor count as a long one.
        """
        return self if high or self.released_s is not None else Button()

    def step(self, now_s: float) -> tuple[Button, Seen]:
        """Return the button and what it asks for at `now_s`."""
        if self._held_s(now_s) >= HOLD_S and not self.heard:
            return replace(self, heard=True), Seen.RESET
        now = self._settled(now_s)
        if now.pressed_s is None or now.heard or now._held_s(now_s) < BOUNCE_S:
            return now, Seen.NOTHING
        return now, Seen.HELD

    def left_s(self, now_s: float) -> float:
        """Return how long the button must still be held; HOLD_S when it is not down."""
        return max(0.0, HOLD_S - self._held_s(now_s))

    def _held_s(self, now_s: float) -> float:
        if self.pressed_s is None:
            return 0.0
        return (now_s if self.released_s is None else self.released_s) - self.pressed_s

    def _settled(self, now_s: float) -> Button:
        """Return the button with a release that was no bounce carried out."""
        if self.released_s is not None and now_s - self.released_s >= BOUNCE_S:
            return Button()
        return self
