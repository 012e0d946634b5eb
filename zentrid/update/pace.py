"""When to try something again: after its interval when it worked, after growing pauses when it did not."""

from __future__ import annotations

import math
import random
from typing import Final

FIRST_PAUSE_S: Final = 10.0
LONGEST_PAUSE_S: Final = 900.0
JITTER: Final = 0.1
"""Part of each interval by which it is shorter or longer, so that a fleet that started at one time spreads out."""
FAILURE_JITTER: Final = 0.5
"""The same of a pause after a failure: a server that was restarted failed all devices at one time."""
START_PART: Final = 0.05
"""Part of an interval over which the first tries of devices that got their power at one time are spread."""


def spread_s(interval_s: float) -> float:
    """Return this device's place among those that start at one time (seconds)."""
    return interval_s * START_PART * random.random()  # noqa: S311 - nothing secret


class Pace:
    """The time of the next try, on the clock of the caller (seconds)."""

    def __init__(self, start_s: float) -> None:
        self._next_s = start_s
        self._pause_s = FIRST_PAUSE_S
        self._worked_s: float | None = None
        """When it last worked, if nothing has failed since."""

    def due(self, now_s: float) -> bool:
        """Tell whether it is time."""
        return now_s >= self._next_s

    def at_most(self, interval_s: float) -> None:
        """The interval has become shorter since it last worked: do not wait for the old one."""
        if self._worked_s is not None and interval_s > 0:
            self._next_s = min(self._next_s, self._worked_s + interval_s * (1 + JITTER))

    def left_s(self, now_s: float) -> float:
        """Return how long it is until then; may be infinite."""
        return max(self._next_s - now_s, 0.0)

    def succeeded(self, now_s: float, interval_s: float) -> None:
        """It worked: the next time is an interval from now, give or take a tenth."""
        self._next_s, self._pause_s = now_s + _about(interval_s), FIRST_PAUSE_S
        self._worked_s = now_s

    def nothing_left(self) -> None:
        """It worked and there is no next time, until somebody says so."""
        self._next_s, self._pause_s = math.inf, FIRST_PAUSE_S

    def failed(self, now_s: float, *, grow: bool = True) -> None:
        """It did not work: again after a pause, which doubles with each failure up to a quarter of an hour.

        Half of it more or less, another each time.
        """
        self._worked_s = None
        self._next_s = now_s + _about(self._pause_s if grow else FIRST_PAUSE_S, FAILURE_JITTER)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S) if grow else FIRST_PAUSE_S


def _about(seconds: float, jitter: float = JITTER) -> float:
    return seconds * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - nothing secret
