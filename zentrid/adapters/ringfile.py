"""The application's log on flash: two segments of a bounded size, written seldom and flushed, readable after a power cut.

Nothing here is an error for whoever logs: a disk that is full, read-only or damaged costs lines, never more.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from zentrid.core.applog import MAX_LINE_BYTES, clean

log = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 64 * 1024
_MAX_SHOWN_BYTES: Final = MAX_LINE_BYTES + 100  # with its stamp; what is longer was damaged


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


class RingFile:
    """Lines in RAM on their way to `path`; when that is full it becomes `<path>.1` and a new one begins."""

    def __init__(self, path: Path, limit_bytes: int = SEGMENT_BYTES, now: Callable[[], datetime] = utc_now) -> None:
        """Take the file and the size of one of its two segments, which also bounds what waits in RAM."""
        self._path = path
        self._old_path = path.with_name(f"{path.name}.1")
        self._limit_bytes = limit_bytes
        self._now = now
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._pending_lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._failing = False

    @property
    def pending(self) -> bool:
        """Lines wait to be written."""
        return bool(self._pending)

    def add(self, source: str, lines: Iterable[str]) -> None:
        """Take lines of `source`, stamped with the time now. They are on flash after `flush`."""
        stamp = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._pending_lock:
            for line in lines:
                self._put(f"{stamp} {source}: {line}\n".encode()[-self._limit_bytes :])

    def _put(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        while (
            self._pending_bytes > self._limit_bytes
        ):  # the oldest go: a disk that cannot be written must not cost memory
            self._pending_bytes -= len(self._pending.popleft())

    def flush(self) -> None:
        """Write what waits and flush it to the disk; blocking. What cannot be written waits on, within the bound."""
        with self._file_lock:
            with self._pending_lock:
                lines = list(self._pending)
                self._pending.clear()
                self._pending_bytes = 0
            if not lines:
                return
            try:
                self._write(b"".join(lines))
                self._failing = False
            except OSError as error:
                if not self._failing:
                    log.warning("%s cannot be written: %s", self._path, error)
                self._failing = True
                self._take_back(lines)

    def _take_back(self, lines: list[bytes]) -> None:
        with self._pending_lock:
            newer = list(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            for data in (*lines, *newer):
                self._put(data)

    def _write(self, data: bytes) -> None:
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            if size and size + 1 + len(data) > self._limit_bytes:
                os.close(fd)
                fd = -1
                self._path.replace(self._old_path)
                fd, size = self._open(), 0
            if size and os.pread(fd, 1, size - 1) != b"\n":  # the power went in the middle of a line
                data = b"\n" + data
            _append(fd, data, size)
            os.fsync(fd)
            if not size:
                self._flush_folder()
        finally:
            if fd >= 0:
                os.close(fd)

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{self._path} is no file")
        return fd

    def _flush_folder(self) -> None:
        fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def tail(self, count: int) -> list[str]:
        """Return the last `count` lines, oldest first, those that wait in RAM too; blocking. Damage is shown, not obeyed."""
        with self._file_lock:
            parts = [self._read(self._old_path), self._read(self._path)]
            with self._pending_lock:
                parts += self._pending
        lines = (line[:_MAX_SHOWN_BYTES] for part in parts for line in part.replace(b"\0", b"").split(b"\n") if line)
        return [clean(line) for line in deque(lines, count)]

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - self._limit_bytes))
                return file.read(self._limit_bytes)
        except OSError:
            return b""


def _append(fd: int, data: bytes, size: int) -> None:
    """Append all of `data` to a file of `size` bytes, or nothing. Raises OSError."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, size)
        raise
