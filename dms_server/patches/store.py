"""The files of patches: a cache that may be deleted at any time, and folders for those being made. Methods block."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from dms_server.files import move_durably

_NAME = re.compile(r"([0-9a-f]{64})-([0-9a-f]{64})\.zps")


class DamagedError(Exception):
    """The file of a patch is gone or is not what was verified."""


class PatchStore:
    """Patches by target and base. A file that is there was verified when it came; `open` makes sure that it still is it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._making = folder / "making"
        self._seen: dict[Path, tuple[int, int, int]] = {}
        """Files that were hashed since the start: inode, size, time of the last change (ns)."""

    def prepare(self, known: Iterable[tuple[str, str]]) -> None:
        """Make the folders; drop what was being made, and files that are not `known` by target and base."""
        shutil.rmtree(self._making, ignore_errors=True)
        self._making.mkdir(parents=True, exist_ok=True)
        wanted = {self.path(target, base) for target, base in known}
        for folder in self._folder.iterdir():
            for path in folder.iterdir() if folder.is_dir() and folder != self._making else ():
                if path not in wanted:
                    path.unlink()

    def path(self, target: str, base: str) -> Path:
        """Return where a patch is kept; both root hashes are 64 lower-case hex digits."""
        name = f"{target}-{base}.zps"
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:150]!r} does not name a patch")
        return self._folder / target[:2] / name

    def new_folder(self) -> Path:
        """Return a new empty folder (absolute) to make a patch in, on the same file system."""
        self._making.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self._making)).resolve()

    def drop_folder(self, folder: Path) -> None:
        """Remove a folder of `new_folder` with all that is in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def keep(self, made: Path, target: str, base: str) -> None:
        """Move a verified patch, flushed already, to its place."""
        path = self.path(target, base)
        move_durably(made, path)
        self._seen[path] = _facts(path.stat())

    def drop(self, target: str, base: str) -> None:
        """Remove a patch; who reads it now can go on."""
        path = self.path(target, base)
        self._seen.pop(path, None)
        path.unlink(missing_ok=True)

    def open(self, target: str, base: str, size_bytes: int, sha256: str) -> BinaryIO:
        """Open a patch for reading; it is hashed when this process sees it for the first time, or changed.

        Raises DamagedError when it is not the file that was verified, or not there.
        """
        path = self.path(target, base)
        try:
            stream = path.open("rb")
        except FileNotFoundError as error:
            raise DamagedError("its file is gone") from error
        try:
            facts = _facts(os.fstat(stream.fileno()))
            if self._seen.get(path) != facts:
                if facts[1] != size_bytes or hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    raise DamagedError("its file is not the one that was verified")
                stream.seek(0)
                self._seen[path] = facts
        except BaseException:
            stream.close()
            raise
        return stream


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
