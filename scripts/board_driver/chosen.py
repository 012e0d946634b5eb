"""The board of this process: the one that the variable `BOARD` names, else the ordinary one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from scripts.board_driver.boards import BOARD_ENV, BoardKind, UnknownBoardError, board_named


def chosen(environment: Mapping[str, str]) -> BoardKind:
    """Return the chosen board. For a name that is none: SystemExit, which ends every command line with the sentence.

    Nothing has begun yet when this is asked, and there is nothing sensible to go on with.
    """
    try:
        return board_named(environment.get(BOARD_ENV, ""))
    except UnknownBoardError as error:
        raise SystemExit(f"error: {error}") from error


BOARD: Final = chosen(os.environ)
