"""The mark of an application that was stopped by hand: a small file in RAM, which a restart of the board forgets."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from zentrid.core.apps import MAX_SETTING_CHARS

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 4 * MAX_SETTING_CHARS
"""A character is at most four bytes in UTF-8."""


class HoldMark:
    """Keeps which `system.boot.app` was stopped by hand, for the supervisor after this one. Nothing here is an error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def holds(self, setting: str) -> bool:
        """Tell whether just this setting was stopped by hand; a mark that cannot be read holds nothing."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError:
            return False
        return data == setting.encode()

    def set(self, setting: str) -> None:
        """Keep that this setting was stopped by hand."""
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.unlink(missing_ok=True)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(setting.encode())
            new.replace(self._path)  # at once: half a mark would name another setting
        except OSError as error:
            log.warning("%s cannot be written, so a restart of zentrid starts the application: %s", self._path, error)

    def lift(self) -> None:
        """Forget it."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed, so a restart of zentrid stops the application: %s", self._path, error)
