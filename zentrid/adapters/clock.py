"""Sets the system clock to the earliest time it can be, when it cannot be right."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from zentrid.core.clock import mended

MAX_TIME_FILE_BYTES: Final = 200
log = logging.getLogger(__name__)


def last_signed_time(tuf_folder: Path) -> str:
    """Return when the newest timestamp was signed that the worker has seen; empty if that is not known.

    Never what a clock said: one that once stood in 2099 would put the device there at every start.
    """
    try:
        with (tuf_folder / "time.json").open("rb") as stream:
            return str(json.loads(stream.read(MAX_TIME_FILE_BYTES))["signed"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def mend_system_clock(floor: datetime | None) -> bool:
    """Set the system clock to `floor` if it cannot be right; tell whether that was done. A refusal is logged."""
    clock = datetime.fromtimestamp(time.time(), UTC)
    right = mended(clock, floor)
    if right is None:
        return False
    try:
        time.clock_settime(time.CLOCK_REALTIME, right.timestamp())
    except OSError as error:
        log.error("the clock says %s, which cannot be, and it cannot be set: %s", clock.isoformat(), error)
        return False
    log.warning(
        "the clock said %s, which cannot be: set to %s; look at its battery", clock.isoformat(), right.isoformat()
    )
    return True
