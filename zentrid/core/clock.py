"""The earliest time it can be. Pure.

A device whose real-time clock has lost its battery starts in 1970. No certificate is valid then: it could not reach its server
any more, and a release that must reach it would be rolled back. So the clock is never believed below what is known for sure,
and not when it is so far above that the device would be dead by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""A time beyond this is damage, not knowledge: it would put the device into a future from which nothing brings it back."""

DEVICE_LIFETIME: Final = timedelta(days=25 * 365)
"""As long as a device's certificate is valid. A clock so far ahead is damage: with it the device could never reach its server."""


def mended(clock: datetime, floor: datetime | None) -> datetime | None:
    """Return what a clock must be set to that is before `floor` or a device's lifetime after it; None: it may be right."""
    if floor is None or floor <= clock <= floor + DEVICE_LIFETIME:
        return None
    return floor


def earliest_now(known: Iterable[str]) -> datetime | None:
    """Return the latest of the times (ISO 8601, UTC where nothing else is said) that have passed; malformed ones are ignored."""
    moments = [moment for text in known if (moment := _parse(text)) is not None and moment < LATEST]
    return max(moments, default=None)


def _parse(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
