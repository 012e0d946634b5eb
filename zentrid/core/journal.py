"""How far a journal was read. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Which file, and where in it; the first one is before everything."""

    inode: int = 0
    offset: int = 0
