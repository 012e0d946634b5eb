"""Deadlines as objects: made once, handed down, so that the waits inside one verb share one limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from scripts.board_driver.errors import DeadlineError

MAX_TIMEOUT_S = 24 * 3600.0


class Deadline:
    """A moment by which something must have happened.

    `timeout_s`: seconds from now, more than 0, at most a day (ValueError otherwise). `what`: the words after "waited
    for" in the message. `clock`: a monotonic clock in seconds.
    """

    def __init__(self, timeout_s: float, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"a time limit must be more than 0 and at most {MAX_TIMEOUT_S:.0f} s, not {timeout_s}")
        self._clock = clock
        self._began_s = clock()
        self.timeout_s = timeout_s
        self.what = what

    @property
    def elapsed_s(self) -> float:
        """Seconds since the deadline was made."""
        return self._clock() - self._began_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.timeout_s - self.elapsed_s)

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return self.remaining_s <= 0

    def slice_s(self, most_s: float) -> float:
        """Return `most_s`, or less if less is left: the longest wait for one step. Never 0, which would mean "poll"."""
        return max(0.001, min(most_s, self.remaining_s))

    def error(self, detail: str = "") -> DeadlineError:
        """Return the error that says what was waited for, how long, and what was seen instead."""
        return DeadlineError(f"waited {self.timeout_s:g} s for {self.what}" + (f"; {detail}" if detail else ""))

    def check(self, detail: str = "") -> None:
        """Raise DeadlineError if the moment has passed."""
        if self.expired:
            raise self.error(detail)
