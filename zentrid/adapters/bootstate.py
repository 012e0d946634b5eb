"""The two copies of the boot state on raw sectors, or in an ordinary file of the same layout."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from zentrid.core.bootstate import (
    BootState,
    BootStateLostError,
    BootStateWriteError,
    decode,
    encode,
    newest,
)
from zentrid.core.names import BOOTSTATE_COPY_BYTES, BOOTSTATE_COPY_OFFSETS_BYTES


class DiskBootStateStore:
    """The production `ports.BootStateStore`: safe to use from several threads of one process.

    `path` is the block device of the `bootstate` partition; the copies are at the offsets of `core.names`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()

    def read(self) -> BootState:
        """Return the newest valid copy, from the disk and not from the page cache.

        Raises BootStateLostError if both copies are bad or the device cannot be read.
        """
        return self._newest()[0]

    def write(self, state: BootState) -> BootState:
        """Write `state` with the next `seq` over the older copy, flush, read back, compare; return what was written.

        The newest copy is never touched, so a power cut at any moment leaves the old state or the new one.
        Raises BootStateWriteError; the state on the disk is then the old one.
        """
        with self._lock:
            try:
                current, copy_number = self._newest_to_replace()
                target, seq = 1 - copy_number, max(current.seq, state.seq) + 1
            except BootStateLostError:
                target, seq = 0, state.seq + 1
            written = replace(state, seq=seq, notes=())
            self._put(target, encode(written))
            return written

    def update(self, change: Callable[[BootState], BootState]) -> BootState:
        """Read, apply `change`, write, all under the lock; return the state that counts now.

        Nothing is written when `change` changes nothing. Lost copies count as the defaults, as in the boot script.
        Raises BootStateWriteError.
        """
        with self._lock:
            try:
                current, _ = self._newest_to_replace()
            except BootStateLostError:
                return self.write(change(BootState()))
            changed = change(current)
            return current if changed == current else self.write(changed)

    def probe(self) -> None:
        """Return when the lock could be had and the device answered, with anything: else this never returns.

        What the supervisor's pulse is made of: a thread that keeps the lock for ever must not go unnoticed.
        """
        with self._lock, suppress(BootStateLostError):
            self._newest()

    def _newest(self) -> tuple[BootState, int]:
        try:
            copies = self._copies()
        except OSError as error:
            raise BootStateLostError from error
        return newest(*copies)

    def _newest_to_replace(self) -> tuple[BootState, int]:
        """Return the newest copy for a write. A device that cannot be opened now may still hold a good one: no write then."""
        try:
            copies = self._copies()
        except OSError as error:
            raise BootStateWriteError(error.strerror or str(error)) from error
        return newest(*copies)

    def _copies(self) -> tuple[bytes, bytes]:
        with self._open(os.O_RDONLY) as fd:
            first, second = (_fresh(fd, offset) for offset in BOOTSTATE_COPY_OFFSETS_BYTES)
        return first, second

    def _put(self, number: int, copy: bytes) -> None:
        offset = BOOTSTATE_COPY_OFFSETS_BYTES[number]
        try:
            with self._open(os.O_RDWR | os.O_SYNC) as fd:
                if os.pwrite(fd, copy, offset) != len(copy):
                    raise BootStateWriteError("the write was cut short")
                os.fsync(fd)
                back = _fresh(fd, offset)
        except OSError as error:
            raise BootStateWriteError(error.strerror or str(error)) from error
        if back != copy:
            raise BootStateWriteError("what was read back differs from what was written")
        decode(back)

    @contextmanager
    def _open(self, flags: int) -> Iterator[int]:
        fd = os.open(self._path, flags | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def _fresh(fd: int, offset_bytes: int) -> bytes:
    """Return one copy as it is on the disk: its pages are dropped from the cache first.

    A copy in sectors that cannot be read counts as damaged, so that the other one still serves.
    """
    os.posix_fadvise(fd, offset_bytes, BOOTSTATE_COPY_BYTES, os.POSIX_FADV_DONTNEED)
    try:
        return os.pread(fd, BOOTSTATE_COPY_BYTES, offset_bytes)
    except OSError:
        return b""
