"""A mark in RAM that says "the supervisor runs": found at the next start, it tells that the last one ended without a word."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class AliveMark:
    """The file `path`, which holds the process number of the supervisor that runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self) -> int | None:
        """Set the mark; return the process number of a supervisor that ended without clearing it, None for none."""
        found: int | None = None
        try:
            found = int(self._path.read_text()[:20])
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            found = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(f"{os.getpid()}\n")
        except OSError as error:
            log.error("the mark %s cannot be set: %s", self._path, error.strerror)
        return found

    def clear(self) -> None:
        """This supervisor ends in good order, or has said why it ends."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("the mark %s cannot be removed: %s", self._path, error.strerror)
