"""Text from outside, made fit for a terminal, a log or a report. Pure."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    """Return the text with a question mark for every character that a terminal would act on, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)
