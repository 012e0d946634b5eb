"""Where patch streams come from: the server, by ranges and across lost connections, or a bundle file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from zentrid.adapters.blockdev import read_at
from zentrid.bundle.patch import PatchHeader
from zentrid.update.errors import DmsRefusedError, DmsUnreachableError, PayloadError
from zentrid.update.transport import (
    ConnectionLostError,
    Known,
    OutOfTimeError,
    ServerBusyError,
    StreamChangedError,
    Transport,
)

if TYPE_CHECKING:
    from zentrid.bundle.zbfile import Member

_FILE_CHUNK_BYTES: Final = 256 * 1024
_SERVER_ERROR: Final = 500


class PatchNotReadyError(DmsUnreachableError):
    """The server was still making the patch when the device's patience ended."""

    reason = "patch_not_ready"


class PatchSource(Protocol):
    """One patch stream that can be read at any place."""

    known: Known
    """What is known of the stream; whoever goes on with an older one sets its ETag first."""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield exactly the bytes `start` to `end` (exclusive) in chunks, or raise."""


class Payloads(Protocol):
    """All patch streams of one release."""

    def open(self, root_hash: str, base_hash: str | None) -> PatchSource:
        """Return the stream for the payload `root_hash`, from `base_hash` if there is one, else from nothing."""


@dataclass(frozen=True)
class Retries:
    """How a lost connection is taken up again. The time for everything together is the transport's."""

    most: int = 8
    """Failures in a row, without having received much, after which the server counts as out of reach."""
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    jitter: float = 0.5
    """Pauses are shorter or longer by up to this part, so that a fleet does not come back all at once."""
    enough_bytes: int = 16 * 1024
    """A connection that gave this much before it broke was worth it: the count starts again."""
    patience_s: float = 120.0
    """How long to wait, in all, for a patch that the server is making, before the full payload is taken."""

    def pause_s(self, failures: int, chance: float) -> float:
        """Return how long to wait after so many failures in a row; `chance`: 0 to 1."""
        pause_s = min(self.first_pause_s * float(2 ** min(failures - 1, 20)), self.longest_pause_s)
        return pause_s * (1 + self.jitter * (2 * chance - 1))


class DmsPayloads:
    """Patch streams on the server."""

    def __init__(
        self,
        transport: Transport,
        retries: Retries | None = None,
        sleep: Callable[[float], None] = time.sleep,
        preparing: Callable[[], None] = lambda: None,
    ) -> None:
        """Call `preparing` before each wait for a patch that the server is making."""
        self._transport = transport
        self._retries = retries or Retries()
        self._sleep = sleep
        self._preparing = preparing
        self._waited_s = 0.0

    def open(self, root_hash: str, base_hash: str | None) -> PatchSource:
        """Return the stream; nothing is asked of the server before it is read."""
        path = f"/device/v1/payload/{root_hash}?base={base_hash or 'none'}"
        return _DmsSource(self._transport, path, self._retries, self._sleep, self._wait if base_hash else None)

    def _wait(self, error: ServerBusyError) -> None:
        """Wait as long as the server says, within what is left of the patience for the whole update."""
        left_s = self._retries.patience_s - self._waited_s
        if left_s <= 0:
            raise PatchNotReadyError("the server takes too long to prepare the update; try again later") from error
        pause_s = min(max(error.retry_after_s, 0.1), left_s)
        self._waited_s += pause_s
        self._preparing()
        self._sleep(pause_s)


@dataclass
class _DmsSource:
    transport: Transport
    path: str
    retries: Retries
    sleep: Callable[[float], None]
    wait: Callable[[ServerBusyError], None] | None
    known: Known = field(default_factory=Known)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        position, failures = start, 0
        while position < end:
            before = position
            try:
                with self.transport.stream(self.path, position, end, self.known) as chunks:
                    for chunk in chunks:
                        position += len(chunk)
                        yield chunk
                if position < end:
                    raise ConnectionLostError("the server ended its answer early; try again later")
            except (OutOfTimeError, StreamChangedError):
                raise
            except (DmsUnreachableError, DmsRefusedError) as error:
                if isinstance(error, ServerBusyError) and self.wait is not None:
                    self.wait(error)
                    continue
                if isinstance(error, DmsRefusedError) and error.status < _SERVER_ERROR:
                    raise
                failures = 1 if position - before >= self.retries.enough_bytes else failures + 1
                if failures >= self.retries.most:
                    raise
                self.sleep(self.retries.pause_s(failures, os.urandom(1)[0] / 255))


@dataclass(frozen=True)
class BundlePayloads:
    """Patch streams in an open bundle file."""

    fd: int
    members: Mapping[str, Member]
    """By root hash (hexadecimal)."""

    def open(self, root_hash: str, base_hash: str | None) -> PatchSource:
        """Return the stream; a bundle has those from nothing only. Raises PayloadError if it is not in the bundle."""
        member = self.members.get(root_hash)
        if member is None:
            raise PayloadError(f"the bundle lacks the payload {root_hash[:16]}…; build it again")
        return _FileSource(self.fd, member)


@dataclass
class _FileSource:
    fd: int
    member: Member
    known: Known = field(default_factory=Known)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        if end > self.member.size_bytes:
            raise PayloadError(f"the bundle's {self.member.name} ends too early; copy it again")
        for offset in range(start, end, _FILE_CHUNK_BYTES):
            size = min(_FILE_CHUNK_BYTES, end - offset)
            chunk = read_at(self.fd, self.member.offset + offset, size)
            if len(chunk) != size:
                raise PayloadError(f"the bundle file ends inside {self.member.name}; copy it again")
            yield chunk


def read_range(source: PatchSource, start: int, end: int) -> bytes:
    """Return the bytes `start` to `end` at once; only for what is bounded (headers, leaf sections)."""
    return b"".join(source.read(start, end))


def read_head(source: PatchSource, check: Callable[[PatchHeader], None]) -> bytes:
    """Return the stream's header and leaf section, reading not a byte more. Raises PatchError, as `check` does.

    `check` sees the header before the leaf section is read: how long that may be depends on what is being installed.
    """
    data = b""
    while needed := PatchHeader.bytes_needed(data):
        data += read_range(source, len(data), len(data) + needed)
    header = PatchHeader.parse(data)
    check(header)
    end = header.leaf_offset + header.leaf_bytes
    return data + read_range(source, len(data), end) if len(data) < end else data
