"""The kernel's last words: the files of pstore, which keep a panic's text in RAM over a reset."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from zentrid.core.postmortem import Words

log = logging.getLogger(__name__)

MAX_FILES: Final = 32
MAX_FILE_BYTES: Final = 256 * 1024
"""The board's area is 1 MiB; the kernel itself unpacks what it packed when it gave up."""


class Pstore:
    """The pstore file system, mounted at `folder`."""

    def __init__(self, folder: Path = Path("/sys/fs/pstore")) -> None:
        self._folder = folder

    def read(self) -> tuple[Words, ...]:
        """Return what is there, newest first. Never raises: a file that cannot be read is left out, and logged."""
        found = []
        for path in self._paths():
            try:
                with path.open("rb") as stream:
                    text = stream.read(MAX_FILE_BYTES).decode("utf-8", "replace")
                found.append(Words(path.name, text, path.stat().st_mtime))
            except OSError as error:
                log.error("%s cannot be read: %s", path, error)
        return tuple(sorted(found, key=lambda words: (words.time_s, words.name), reverse=True))

    def clear(self) -> None:
        """Delete everything, so that the next boot finds only what is about this one. Never raises."""
        for path in self._paths():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.error("%s cannot be deleted: %s", path, error)

    def _paths(self) -> list[Path]:
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.is_file())
        except OSError as error:
            log.error("pstore cannot be read, so a reset stays unexplained: %s", error)
            return []
        return paths[:MAX_FILES]
