"""Set-up mode: for a while the web server is open and its first page is the one for setting up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SetupMode:
    """Whether the device is being set up; lost with a restart."""

    def __init__(self, timeout_s: Callable[[], float], changed: Callable[[], None]) -> None:
        """Take how long it lasts, and who hears of each change."""
        self._timeout_s = timeout_s
        self._changed = changed
        self._end: asyncio.TimerHandle | None = None

    @property
    def left_s(self) -> float:
        """How long it still lasts; 0: it is not on."""
        return 0.0 if self._end is None else max(0.0, self._end.when() - asyncio.get_running_loop().time())

    @property
    def on(self) -> bool:
        """Whether it is on."""
        return self._end is not None

    def start(self) -> None:
        """Begin it, or begin its time anew."""
        self._cancel()
        self._end = asyncio.get_running_loop().call_later(self._timeout_s(), self.stop)
        self._changed()

    def stop(self) -> None:
        """End it; it may be over already."""
        if self._end is not None:
            self._cancel()
            self._changed()

    def _cancel(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
