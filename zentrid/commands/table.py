"""Answers in columns."""

from __future__ import annotations

from collections.abc import Sequence

from zentrid.core.framing import CRLF, MAX_BODY_BYTES


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of the same length as lines, their columns aligned and separated by two blanks."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def fitting(lines: Sequence[str]) -> list[str]:
    """Return the last lines that fit into one answer."""
    room = MAX_BODY_BYTES
    kept: list[str] = []
    for line in reversed(lines):
        room -= len(line.encode()) + len(CRLF)
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]
