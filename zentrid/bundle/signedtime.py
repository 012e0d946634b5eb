"""When signed metadata was signed: one field more in it, because The Update Framework's own only say when it ends. Pure.

A device whose clock was lost learns from it how late it is at least. It is believed only with a signature over it, and only
as far as the offline keys reach: no later than the root's own end.
Source: The Update Framework's specification, 4.1: implementers may add attributes, which others ignore.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

SIGNED_AT: Final = "signed_at"
"""The field's name, beside `expires`."""


def signed_at_field(moment: datetime) -> dict[str, Any]:
    """Return what to add to metadata that is signed at `moment`: ISO 8601, UTC, whole seconds."""
    return {SIGNED_AT: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def signed_at(fields: Mapping[str, Any]) -> datetime | None:
    """Return the moment that metadata's additional fields tell; None if they tell none, or nonsense."""
    text = fields.get(SIGNED_AT)
    if not isinstance(text, str):
        return None
    try:
        return datetime.strptime(text[:32], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
