"""Reads the kernel's list of local sockets (`/proc/net/unix`). Pure."""

from __future__ import annotations

from typing import Final

_CONNECTED: Final = "03"
_STATE, _PATH = 5, 7


def connections(text: str, path: str) -> int:
    """Return how many connections the listener at `path` has accepted; those that wait for it do not count.

    The accepting side of a connection has the listener's path; the side that has connected has none.
    """
    rows = (line.split(None, _PATH) for line in text.splitlines())
    return sum(1 for row in rows if len(row) > _PATH and row[_STATE] == _CONNECTED and row[_PATH] == path)
