"""What an interrupted download keeps on the data partition: heads of streams, the frame under way, and the bytes counted.

Nothing here is trusted or needed: a file that is damaged or missing is fetched again, and a full disk only means that less is
kept. Bounded: for each stream of the update under way one head and one frame; everything else is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from zentrid.update.durable import write_durable
from zentrid.update.errors import UpdateRefusedError

MAX_HEAD_BYTES: Final = 48 * 1024 * 1024
MAX_FRAME_BYTES: Final = 2 * 1024 * 1024
SYNC_S: Final = 1.0
"""How much of a download a power cut may cost, in time. Killed processes lose nothing."""
_COUNT: Final = struct.Struct(">32sQ8s")
_FRAME: Final = struct.Struct(">4sQ32s")
_MAGIC: Final = b"ZSP1"


ROOT_DIGITS: Final = 32
"""So many digits of a payload's root hash begin the names of its files."""


def unfinished(folder: Path) -> frozenset[str]:
    """Return the first digits of the root hashes whose streams an update has begun and not ended."""
    with suppress(OSError):
        return frozenset(path.name[:ROOT_DIGITS] for path in folder.glob("*.head"))
    return frozenset()


def clear(folder: Path) -> None:
    """Remove all that updates kept there: the last one is complete. What cannot be removed is left."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                path.unlink()
        folder.rmdir()


class Spool:
    """The folder of one update. Without a folder, or when it cannot be written, it keeps nothing."""

    def __init__(
        self, folder: Path | None, update: str, budget_bytes: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`update` names what is being installed: bytes are counted over all its runs, against the budget (0: none)."""
        self._folder = folder
        self._key = hashlib.sha256(update.encode()).digest()
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._synced_s = clock()
        self._kept: set[str] = set()
        self.fds: set[int] = set()
        """What `tick` makes durable, beside the count."""
        self._counter = self._open("received")
        self.received_bytes = self._counted()
        """Of this update, in all its runs."""

    def stream(self, root_hash: str, base_hash: str | None) -> StreamSpool:
        """Return the place of one stream."""
        name = f"{root_hash[:ROOT_DIGITS]}-{(base_hash or 'none')[:ROOT_DIGITS]}"
        self._kept.add(name)
        return StreamSpool(self._folder / name if self._folder else None, self)

    def purge(self) -> None:
        """Remove everything that belongs to no stream that was asked for."""
        if self._folder is None:
            return
        with suppress(OSError):
            for path in self._folder.iterdir():
                if path.name != "received" and path.name.removeprefix(".").partition(".")[0] not in self._kept:
                    path.unlink()

    def knows(self, root_hash: str) -> bool:
        """Tell whether an earlier run of this installation got as far as this payload's stream."""
        return self._folder is not None and any(self._folder.glob(f"{root_hash[:ROOT_DIGITS]}-*.head"))

    def knows_others(self, root_hashes: set[str]) -> bool:
        """Tell whether the installation of anything else was interrupted."""
        return self._folder is not None and bool(
            unfinished(self._folder) - {root_hash[:ROOT_DIGITS] for root_hash in root_hashes}
        )

    def count(self, size_bytes: int) -> None:
        """Count received bytes. Raises UpdateRefusedError, reason `budget`, when there were more than allowed."""
        self.received_bytes += size_bytes
        if self._counter is not None:
            with suppress(OSError):
                os.pwrite(self._counter, self._count_record(), 0)
        if self._budget_bytes and self.received_bytes > self._budget_bytes:
            raise UpdateRefusedError(
                "budget",
                f"the update has received {self.received_bytes} bytes, the budget is {self._budget_bytes}; raise "
                "ota.budget and start it again, it goes on where it was",
            )

    def tick(self) -> None:
        """Make durable what came so far, if the last time is a while ago."""
        now_s = self._clock()
        if now_s - self._synced_s < SYNC_S:
            return
        self._synced_s = now_s
        for fd in self.fds if self._counter is None else (*self.fds, self._counter):
            with suppress(OSError):
                os.fdatasync(fd)

    def close(self) -> None:
        """Make the count durable."""
        if self._counter is not None:
            with suppress(OSError):
                os.fdatasync(self._counter)
            os.close(self._counter)
            self._counter = None

    def _open(self, name: str) -> int | None:
        if self._folder is None:
            return None
        try:
            return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return None

    def _count_record(self) -> bytes:
        plain = self._key + self.received_bytes.to_bytes(8, "big")
        return _COUNT.pack(self._key, self.received_bytes, hashlib.sha256(plain).digest()[:8])

    def _counted(self) -> int:
        if self._counter is None:
            return 0
        self.received_bytes = 0
        with suppress(OSError, struct.error):
            key, self.received_bytes, _ = _COUNT.unpack(raw := os.pread(self._counter, _COUNT.size, 0))
            if key == self._key and raw == self._count_record():
                return self.received_bytes
        return 0


class StreamSpool:
    """One stream's head and the frame under way."""

    def __init__(self, path: Path | None, spool: Spool) -> None:
        self._path = path
        self._spool = spool
        self._fd: int | None = None
        self._offset = -1
        self._size = 0

    def head(self) -> tuple[str, bytes] | None:
        """Return the stream's ETag and its header with the leaf section, if they are there and whole."""
        if self._path is None:
            return None
        try:
            with self._path.with_suffix(".head").open("rb") as file:
                facts = json.loads(file.readline(1024))
                data = file.read(MAX_HEAD_BYTES)
            if hashlib.sha256(data).hexdigest() == facts["sha256"] and isinstance(facts["etag"], str):
                return facts["etag"], data
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def keep_head(self, etag: str, data: bytes) -> None:
        """Keep the head, durably."""
        if self._path is None or len(data) > MAX_HEAD_BYTES:
            return
        facts: dict[str, Any] = {"etag": etag, "sha256": hashlib.sha256(data).hexdigest()}
        with suppress(OSError):
            write_durable(self._path.with_suffix(".head"), json.dumps(facts).encode() + b"\n" + data)

    def frame(self, etag: str, offset: int) -> bytes:
        """Return the first bytes of the frame that begins at `offset` of the stream, as far as they are here."""
        if self._path is None:
            return b""
        try:
            with self._path.with_suffix(".frame").open("rb") as file:
                magic, at, tag = _FRAME.unpack(file.read(_FRAME.size))
                wanted = (_MAGIC, offset, hashlib.sha256(etag.encode()).digest())
                return file.read(MAX_FRAME_BYTES) if (magic, at, tag) == wanted else b""
        except (OSError, struct.error):
            return b""

    def append(self, etag: str, offset: int, at: int, data: bytes | memoryview) -> None:
        """Keep `data`, which lies `at` bytes into the frame that begins at `offset` of the stream."""
        if self._path is None:
            return
        try:
            if self._fd is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self._path.with_suffix(".frame"), flags, 0o600)
                self._spool.fds.add(self._fd)
            if offset != self._offset:
                self._offset = offset
                os.ftruncate(self._fd, _FRAME.size + at)
                os.pwrite(self._fd, _FRAME.pack(_MAGIC, offset, hashlib.sha256(etag.encode()).digest()), 0)
            os.pwrite(self._fd, data, _FRAME.size + at)
            self._spool.tick()
        except OSError:
            self.forget_frame()
            self._path = None

    def forget_frame(self) -> None:
        """Drop the frame under way."""
        self._offset = -1
        if self._fd is not None:
            self._spool.fds.discard(self._fd)
            os.close(self._fd)
            self._fd = None
        if self._path is not None:
            with suppress(OSError):
                self._path.with_suffix(".frame").unlink()

    def forget(self) -> None:
        """Drop everything of this stream: the server has another one now."""
        self.forget_frame()
        if self._path is not None:
            with suppress(OSError):
                self._path.with_suffix(".head").unlink()
