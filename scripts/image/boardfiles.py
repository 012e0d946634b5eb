"""Where a board's files are: its own folder, and the one that all boards share."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scripts.board_driver.boards import BoardKind
from scripts.image.run import BuildError

FOLDER: Final = "buildroot_external/board"
SHARED: Final = "common"


def _candidates(top: Path, board: BoardKind, name: str) -> list[Path]:
    places = (top / FOLDER / folder / name for folder in (SHARED, board.name))
    found = [place for place in places if place.is_file()]
    if not found:
        raise BuildError(f"{FOLDER}/{board.name} has no {name}, and {FOLDER}/{SHARED} has none either")
    return found


def file_of(top: Path, board: BoardKind, name: str) -> Path:
    """Return a file of the board: its own, else the shared one. Raises BuildError when there is neither."""
    return _candidates(top, board, name)[-1]


def fragments_of(top: Path, board: BoardKind, name: str) -> list[Path]:
    """Return the fragments of a configuration in the order in which they are merged: the shared one, the board's own.

    Raises BuildError when there is neither.
    """
    return _candidates(top, board, name)
