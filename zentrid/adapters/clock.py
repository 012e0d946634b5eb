"""Raises the system clock to the earliest time it can be."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from pathlib import Path
from typing import Final

MAX_TIME_FILE_BYTES: Final = 200
log = logging.getLogger(__name__)


def last_signed_time(tuf_folder: Path) -> str:
    """Return when signed metadata was last accepted, as the worker remembered it; empty if that is not known."""
    try:
        with (tuf_folder / "time.json").open("rb") as stream:
            return str(json.loads(stream.read(MAX_TIME_FILE_BYTES))["accepted"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def raise_system_clock(floor: datetime | None) -> bool:
    """Set the system clock to `floor` if it is earlier; tell whether that was done. A refusal is logged."""
    if floor is None or time.time() >= floor.timestamp():
        return False
    try:
        time.clock_settime(time.CLOCK_REALTIME, floor.timestamp())
    except OSError as error:
        log.error("the clock is before %s and cannot be set: %s", floor.isoformat(), error)
        return False
    log.warning("the clock was before %s and was set to it; the real-time clock has lost the time", floor.isoformat())
    return True
