"""The Web App's files on the disk: found, and looked after for damage."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from zentrid.core.crc16 import Crc16
from zentrid.core.files import parse_meta
from zentrid.core.webapp import (
    LIST_NAME,
    MAX_FILES,
    MAX_LIST_BYTES,
    WebAppListError,
    checked_name,
    parse_list,
    split_root,
)

LOOK_AGAIN_S: Final = 10.0
DAMAGED_AGAIN_S: Final = 1.0
"""What is damaged is looked at sooner: somebody is about to mend it."""
MAX_PROBLEMS: Final = 20
_ATTRIBUTE: Final = "user.zentri"
"""Where the device's files have their CRC; see `adapters/filestore.py`."""
_PIECE_BYTES: Final = 256 * 1024
_State = tuple[int, int, int]
"""By which a file that was not written to is known again."""


class WebApp:
    """The folder of the Web App, named by its first page. All of it blocks for a moment."""

    def __init__(self, files: Path, root_filename: str) -> None:
        """Take the device's files, and the first page's name in them."""
        found = split_root(root_filename)
        self._files = files
        self._root_filename = root_filename
        self._folder = None if found is None else files / found[0]
        self._page = "" if found is None else found[1]
        self._problems: tuple[str, ...] = ()
        self._looked_s: float | None = None
        self._checked: dict[Path, tuple[_State, str, str]] = {}
        """What was found of each file, with what it was looked at for."""

    def find(self, path: str) -> Path | None:
        """Return the file that a request's path means (empty: the first page); None if there is none to be given."""
        name = checked_name(path) if path else self._page
        if self._folder is None or not name:
            return None
        wanted = self._folder / name
        try:
            inside = wanted.resolve(strict=True).is_relative_to(self._files.resolve(strict=True))
        except (OSError, RuntimeError):
            return None
        return wanted if inside and wanted.is_file() else None

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, a sentence each; nothing: the Web App is whole. Looked at again after a while."""
        now_s = time.monotonic()
        again_s = DAMAGED_AGAIN_S if self._problems else LOOK_AGAIN_S
        if self._looked_s is None or now_s - self._looked_s >= again_s:
            self._problems = tuple(self._look()[:MAX_PROBLEMS])
            self._looked_s = now_s
        return self._problems

    def _look(self) -> list[str]:
        if not self._root_filename:
            return ["No first page is set (http.server.root_filename)."]
        if self.find("") is None:
            return [f"The first page {self._root_filename} is not there, or is no usable name."]
        found = self.find(LIST_NAME)
        if found is None:
            return [problem for path in self._all() if (problem := self._crc_problem(path))]
        try:
            with found.open("rb") as stream:
                raw = stream.read(MAX_LIST_BYTES + 1)
            if len(raw) > MAX_LIST_BYTES:
                return [f"{LIST_NAME} is larger than {MAX_LIST_BYTES} bytes."]
            listed = parse_list(raw).files
        except (OSError, WebAppListError) as error:
            return [f"{error}."]
        return [
            problem
            for name, entry in sorted(listed.items())
            if (problem := self._problem(name, entry.size_bytes, entry.sha256))
        ]

    def _problem(self, name: str, size_bytes: int, digest: str) -> str:
        path = self.find(name)
        if path is None:
            return f"{name} is missing."
        try:
            if path.stat().st_size != size_bytes:
                return f"{name} has {path.stat().st_size} bytes instead of {size_bytes}."
            if digest and self._remembered(path, digest, _sha256) != digest:
                return f"{name} is damaged."
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})."
        return ""

    # --- without a list ---------------------------------------------------------------------------------------------
    def _all(self) -> list[Path]:
        """Return the files that the folder gives away, as many as are looked at."""
        assert self._folder is not None
        return sorted(path for path, _ in zip(_files_below(self._folder), range(MAX_FILES), strict=False))

    def _crc_problem(self, path: Path) -> str:
        """Return what the CRC says that a file of the device was created with; nothing if it has none."""
        assert self._folder is not None
        name = path.relative_to(self._folder)
        try:
            crc = parse_meta(os.getxattr(path, _ATTRIBUTE)).crc
        except OSError:
            return ""  # it was not created by a command, or went just now
        try:
            if crc is None or self._remembered(path, "crc", _crc) == str(crc):
                return ""
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})."
        return f"{name} is damaged."

    def _remembered(self, path: Path, kind: str, look: Callable[[Path], str]) -> str:
        """Return what `look` finds; a file that was not touched since is not read again."""
        found = path.stat()
        state = (found.st_ino, found.st_size, found.st_ctime_ns)
        known = self._checked.get(path)
        if known is not None and known[:2] == (state, kind):
            return known[2]
        result = look(path)
        self._checked[path] = (state, kind, result)
        return result


def _files_below(folder: Path) -> Iterator[Path]:
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(top, name) for name in names if not name.startswith("."))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _crc(path: Path) -> str:
    crc = Crc16()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            crc.update(piece)
    return str(crc.value)
