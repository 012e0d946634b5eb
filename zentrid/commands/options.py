"""Numbers on command lines, and how many bytes follow one."""

from __future__ import annotations

from zentrid.commands.call import Call
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


def payload_size(call: Call, text: str, what: str, most: int) -> int:
    """Return how many bytes follow the line. To be called before anything else is looked at. Raises CommandError.

    However many are announced, also too many: they are no lines, and are thrown away if the command does not read them.
    """
    if text.isascii() and text.isdigit():
        call.payload.expect(int(text[:_MOST_DIGITS]))
    return whole_number(text, what, 0, most, "bytes")
