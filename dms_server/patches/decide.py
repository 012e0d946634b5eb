"""What the device door does with a request for a patch: one function, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from dms_server.patches.models import FAILED, LARGER, READY

RETRY_AFTER_S = 5
"""How long a device is asked to wait before it asks again."""
FAILED_FOR = timedelta(days=1)
"""After this a patch that failed may be tried again: its cause may be gone."""


class Verdict(Enum):
    """What to answer."""

    FULL = "full"
    PATCH = "patch"
    WAIT = "wait"
    QUEUE = "queue"
    """Queue it, then as WAIT."""


@dataclass(frozen=True)
class Known:
    """What the table says of a patch."""

    state: str
    asked_at: datetime | None = None
    not_before: datetime | None = None
    ended_at: datetime | None = None


def decide(known: Known | None, at: datetime, wait_max_s: float) -> Verdict:
    """Return the answer to a device that may have base and target, at a time `at`.

    A device waits at most `wait_max_s` from when the first one asked: its time is worth more than bytes.
    """
    if known is None:
        return Verdict.QUEUE
    if known.state == READY:
        return Verdict.PATCH
    if known.state == LARGER:
        return Verdict.FULL
    if known.state == FAILED:
        again = known.ended_at is not None and at - known.ended_at >= FAILED_FOR
        return Verdict.QUEUE if again else Verdict.FULL
    if known.not_before is not None and known.not_before > at:
        return Verdict.FULL
    if known.asked_at is not None and at - known.asked_at >= timedelta(seconds=wait_max_s):
        return Verdict.FULL
    return Verdict.WAIT


def retry_after_s(asked_at: datetime | None, at: datetime, wait_max_s: float) -> int:
    """Return when a device should ask again (whole seconds, at least 1): soon, and no later than its wait ends."""
    left_s = wait_max_s if asked_at is None else wait_max_s - (at - asked_at).total_seconds()
    return max(1, min(RETRY_AFTER_S, math.ceil(left_s)))
