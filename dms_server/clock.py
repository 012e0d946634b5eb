"""Time as the server uses it: aware, UTC, whole seconds where it is stored or signed."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time now, UTC, aware."""
    return datetime.now(UTC)


def iso(moment: datetime | None) -> str | None:
    """Return ISO 8601 with `Z` and whole seconds, or None."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
