"""Numbers on command lines."""

from __future__ import annotations

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError

_MOST_DIGITS = 12


def whole_number(text: str, what: str, low: int, high: int, unit: str = "") -> int:
    """Return a decimal number from `low` to `high`. Raises CommandError (7 bad argument, 9 out of bounds)."""
    if not (text.isascii() and text.isdigit()):
        raise CommandError(Code.BAD_ARGUMENT, f"{what}: '{text}' is no whole number.")
    if len(text) > _MOST_DIGITS or not low <= int(text) <= high:
        raise CommandError(Code.OUT_OF_BOUNDS, f"{what}: {low} to {high}{' ' + unit if unit else ''}.")
    return int(text)
