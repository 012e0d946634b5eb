"""The supervisor's journal, for whoever reads or follows it. Blocking; a journal that cannot be read is an empty one."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Final

from zentrid.core.applog import clean
from zentrid.core.journal import Place

TAIL_BYTES: Final = 256 * 1024
MAX_STEP_BYTES: Final = 64 * 1024
"""What one look brings of what is new; the rest comes with the next one."""
MAX_SHOWN_BYTES: Final = 1000


class Journal:
    """The file that `set_up_log` writes, and the older one that it was before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old_path = path.with_name(f"{path.name}.1")

    def tail(self, count: int) -> tuple[list[str], Place]:
        """Return the last `count` lines, oldest first, and the place after them."""
        data, place = self._end(self._path)
        lines = _lines(data)
        if len(lines) < count:
            lines = _lines(self._end(self._old_path)[0]) + lines
        return list(deque(lines, count)), place

    def news(self, place: Place) -> tuple[list[str], Place]:
        """Return whole lines that came after `place`, and the place after them."""
        for path in (self._path, self._old_path):
            found = self._after(path, place)
            if found is not None:
                break
        else:
            return [], Place(*self._start())
        data, whole = found
        if whole and path == self._old_path and not data:
            return self.news(Place(*self._start()))  # all of the old file was seen: go on with the new one
        return _lines(data), Place(place.inode, place.offset + len(data))

    def _after(self, path: Path, place: Place) -> tuple[bytes, bool] | None:
        """Return whole lines after `place`, and whether that was all; None: the place is not in this file."""
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != place.inode or found.st_size < place.offset:
                    return None
                file.seek(place.offset)
                data = file.read(MAX_STEP_BYTES)
        except OSError:
            return None
        whole = place.offset + len(data) >= found.st_size
        end = data.rfind(b"\n") + 1
        return data[: end or (0 if whole else len(data))], whole

    def _start(self) -> tuple[int, int]:
        try:
            return self._path.stat().st_ino, 0
        except OSError:
            return 0, 0

    def _end(self, path: Path) -> tuple[bytes, Place]:
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                file.seek(max(0, found.st_size - TAIL_BYTES))
                data = file.read(TAIL_BYTES)
        except OSError:
            return b"", Place()
        data = data[: data.rfind(b"\n") + 1]
        return data, Place(found.st_ino, max(0, found.st_size - TAIL_BYTES) + len(data))


def _lines(data: bytes) -> list[str]:
    return [clean(line[:MAX_SHOWN_BYTES]) for line in data.split(b"\n") if line]
