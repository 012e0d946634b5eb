"""A folder of symbol files, found by build-id as debuggers find them: `.build-id/ab/cdef….debug`."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from zentrid.debug.symbols import BadSymbolFileError, Place, SymbolFile
from zentrid.errors import ZentriError
from zentrid.ports import Frame

BUILD_ID: Final = re.compile(r"(?:[0-9a-f]{2}){4,32}")
MAX_INPUT_BYTES: Final = 1024 * 1024
MAX_FRAMES: Final = 256
INDEX: Final = "index.json"


class SymbolToolError(ZentriError):
    """The tool was asked for something that it does not have or does not understand."""

    reason = "symbols"


@dataclass(frozen=True)
class Entry:
    """One symbol file."""

    build_id: str
    file: str
    """The program's or library's path on the device, where the image's build has noted it."""
    lines: bool
    """Whether it was compiled here, so that source lines are known."""


class Store:
    """Symbol files below a folder; each is opened once. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Raises SymbolToolError when there is no such folder."""
        self.folder = folder
        if not (folder / ".build-id").is_dir():
            raise SymbolToolError(
                f"{folder}: has no symbol files; build the image with `make image`, or say where they are with --symbols"
            )
        self._stack = ExitStack()
        self._files: dict[str, SymbolFile | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def resolve(self, build_id: str, address: int) -> Place | None:
        """Return the place of an address, None if there is no file or no function. Raises BadSymbolFileError."""
        file = self._file(build_id)
        return None if file is None else file.resolve(address)

    def has(self, build_id: str) -> bool:
        """Tell whether there is a symbol file for a build-id."""
        return self._file(build_id) is not None

    def _file(self, build_id: str) -> SymbolFile | None:
        if not BUILD_ID.fullmatch(build_id):
            return None
        if build_id not in self._files:
            path = self.folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
            self._files[build_id] = self._opened(path, build_id) if path.is_file() else None
        return self._files[build_id]

    def _opened(self, path: Path, build_id: str) -> SymbolFile:
        try:
            file = SymbolFile(self._stack.enter_context(path.open("rb")))
        except BadSymbolFileError as error:
            raise SymbolToolError(f"{path}: {error}") from error
        if file.build_id != build_id:
            raise SymbolToolError(f"{path}: belongs to build-id {file.build_id or 'none'}; put it where its name says")
        return file

    def entries(self) -> list[Entry]:
        """Return all symbol files, by the program's path. Files that the index does not know have no path."""
        known: dict[str, Any] = {}
        if (self.folder / INDEX).is_file():
            known = json.loads((self.folder / INDEX).read_text())
        found = (path.parent.name + path.stem for path in self.folder.glob(".build-id/*/*.debug"))
        entries = [
            Entry(name, str(known.get(name, {}).get("file", "")), bool(known.get(name, {}).get("lines", False)))
            for name in found
        ]
        return sorted(entries, key=lambda entry: (entry.file, entry.build_id))


def parse_address(text: str) -> int:
    """Return an address written in hexadecimal, with or without 0x. Raises SymbolToolError."""
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise SymbolToolError(f"{text[:40]!r} is no address; write it in hexadecimal, as in 0x1234")
    return value


def parse_build_id(text: str) -> str:
    """Return a whole build-id in lower case. Raises SymbolToolError."""
    if not BUILD_ID.fullmatch(text.lower()):
        raise SymbolToolError(f"{text[:80]!r} is no build-id; write all its hexadecimal digits (`list` shows them)")
    return text.lower()


def read_frames(data: bytes) -> list[Frame]:
    """Return the frames of a fault report or of a crash file. Raises SymbolToolError."""
    try:
        values = json.loads(data)
        values = values.get("fault", values)
        return [_frame(entry) for entry in values["frames"][:MAX_FRAMES]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SymbolToolError(
            'this is neither a fault report nor a crash file: give JSON that has "frames" with module, build_id and address'
        ) from error


def _frame(entry: dict[str, Any]) -> Frame:
    module, build_id, address = entry["module"], entry["build_id"], entry["address"]
    if not isinstance(module, str) or not isinstance(build_id, str) or type(address) is not int or address < 0:
        raise ValueError("malformed frame")
    return Frame(module, build_id, address)
