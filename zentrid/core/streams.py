"""Streams: numbers that stand for open files and connections, and the rules for them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import Final

from zentrid.core.framing import MAX_DATA_BYTES
from zentrid.errors import ZentriError

MAX_STREAMS: Final = 16
HANDLES: Final = 100
"""Numbers are given out one after the other up to here: one that was closed does not soon mean something else."""
IDLE_S: Final = 300.0
"""A stream that no command touches for so long is closed."""
MAX_READ_BYTES: Final = MAX_DATA_BYTES
MAX_WRITE_BYTES: Final = 64 * 1024
"""In one `write`: held in memory until all has come, so that a broken connection leaves no half of it."""


class StreamError(ZentriError):
    """A stream cannot be used as was asked; the sentence says why and what to do."""

    reason = "stream"


class Poll(IntEnum):
    """What `poll` tells of a stream."""

    NOTHING = 0
    """Nothing to read now."""
    DATA = 1
    """There is something to read."""
    ENDED = 2
    """Nothing will come any more, or the file is written."""


def next_handle(last: int, used: Collection[int]) -> int:
    """Return the number after `last` that is free. `used` has fewer than HANDLES numbers."""
    return next(number for step in range(1, HANDLES + 1) if (number := (last + step) % HANDLES) not in used)
