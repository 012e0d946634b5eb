"""Raw access to partitions by file descriptor: reading, writing, and reading back past the page cache.

Works on ordinary files too. Descriptors are opened by a process that may, and inherited by one that may not.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from types import TracebackType
from typing import Final, Self

DIRECT_BYTES: Final = 1024 * 1024
"""How much one direct read takes at most; the buffer of DirectReader."""


def size_bytes(fd: int) -> int:
    """Return the size of the device or file."""
    return os.lseek(fd, 0, os.SEEK_END)


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return `size` bytes from `offset`; fewer only at the end. Raises OSError."""
    first = os.pread(fd, size, offset)
    if len(first) == size or not first:
        return first
    parts, left = [first], size - len(first)
    while left and (part := os.pread(fd, left, offset + size - left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def write_at(fd: int, offset: int, data: bytes | memoryview) -> None:
    """Write all of `data` at `offset`. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        if not written:
            raise OSError(errno.EIO, "nothing could be written")
        offset += written
        view = view[written:]


def read_into(fd: int, offset: int, view: memoryview) -> None:
    """Fill all of `view` from `offset`; past the cache if the descriptor and the buffer are made for it. Raises OSError."""
    got = 0
    while got < len(view):
        part = os.preadv(fd, [view[got:]], offset + got)
        if not part:
            raise OSError(errno.EIO, "the device ends too early")
        got += part


def set_direct(fd: int, on: bool) -> bool:
    """Switch O_DIRECT for an open descriptor; False where the file system has none. Offsets and buffers must be aligned then."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return True


class DirectReader:
    """Reads what is on the medium, not what is in the page cache. One buffer: each read invalidates the one before.

    Uses O_DIRECT; where the file system has none, the pages are dropped from the cache instead.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = mmap.mmap(-1, DIRECT_BYTES)
        self._view = memoryview(self._buffer)
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        self.direct = True

    def __enter__(self) -> Self:
        os.fsync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, self._flags | os.O_DIRECT)
        except OSError:
            self.direct = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.fcntl(self._fd, fcntl.F_SETFL, self._flags)

    def read(self, offset: int, size: int) -> memoryview:
        """Return `size` bytes (at most DIRECT_BYTES) from `offset`, a multiple of 4096; fewer only at the end."""
        aligned = min(DIRECT_BYTES, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        got = 0
        while got < aligned:
            part = os.preadv(self._fd, [self._view[got:aligned]], offset + got)
            got += part
            if not part or part % mmap.PAGESIZE:
                break
        return self._view[: min(got, size)]
