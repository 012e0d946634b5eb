"""Where a board's files are: names, the run folder of sockets, the state folder of the disk, the image."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from scripts.board_driver.boards import DEFAULT, BoardKind, folder_name
from scripts.board_driver.chosen import BOARD
from scripts.board_driver.errors import MachineError
from scripts.board_driver.machine import RunFolder

CHECKOUT: Final = Path(__file__).resolve().parents[2]
IMAGE_ENV: Final = "ZENTRI_IMAGE_DIR"

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")


def built(name: str, board: BoardKind = BOARD) -> Path:
    """Return the folder `name` of built things, of the chosen board: `build/image`, `build/image-virt32`."""
    return CHECKOUT / "build" / folder_name(name, board)


DEFAULT_IMAGE: Final = built("image")
DEFAULT_STATE_ROOT: Final = built("boards")
DEFAULT_KEY: Final = built("demo") / "ssh" / "id_ed25519"


def check_name(name: str) -> str:
    """Return `name`; MachineError if it is no board name (it becomes part of file names)."""
    if not _NAME.fullmatch(name):
        raise MachineError(
            f"{name!r} is no name for a board; use a small letter and then at most 30 small letters, digits and hyphens"
        )
    return name


def _private_folder(path: Path) -> Path:
    """Return `path`, made if needed; MachineError unless it is a folder of this user alone.

    Under /tmp anybody could have made it first, to read a console or to type on it.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise MachineError(f"{path} must be a folder that only you can use (mode 0700); remove it and try again")
    return path


def run_folder(name: str, checkout: Path = CHECKOUT, kind: BoardKind = BOARD) -> RunFolder:
    """Return the run folder of board `name` of this checkout, made if needed. Its path is short, for the sockets.

    Two kinds of board may have boards of the same name.
    """
    top = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if not top.is_dir():
        raise MachineError(f"{top} is no folder; set XDG_RUNTIME_DIR to one")
    mark = hashlib.sha256(f"{checkout}{'' if kind is DEFAULT else f':{kind.name}'}".encode()).hexdigest()[:8]
    users = _private_folder(top / f"zentri-{os.getuid()}")
    return RunFolder(_private_folder(users / f"{check_name(name)}-{mark}"))


def image_folder(given: Path | None) -> Path:
    """Return the folder of `rom.bin` and `disk.img`: `given`, else $ZENTRI_IMAGE_DIR, else build/image.

    MachineError if one of the two files is missing.
    """
    folder = (given or Path(os.environ.get(IMAGE_ENV) or DEFAULT_IMAGE)).resolve()
    for name in ("rom.bin", "disk.img"):
        if not (folder / name).is_file():
            raise MachineError(
                f"{folder / name} does not exist; build the image with `make image`, or pass --image DIR"
            )
    return folder
