"""The device's table of streams: what is open, under which number, for every door and session together.

One client may open a stream by one request and read it by the next, so no session owns one. What nobody touches is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from zentrid.core.streams import IDLE_S, MAX_STREAMS, Poll, StreamError, next_handle
from zentrid.errors import ZentriError

_SWEEP_S: Final = 5.0


class Stream(Protocol):
    """An open file or connection. Every call may raise ZentriError."""

    kind: str
    """`FILE`, `NEW` or `HTTP`."""
    info: str
    """What it is a stream of, for people."""

    @property
    def state(self) -> Poll:
        """Whether there is something to read. One that has ended holds nothing any more but its place in the table."""

    async def read(self, size_bytes: int) -> bytes:
        """Return the next `size_bytes` bytes; fewer only at the end, nothing after it."""

    async def write(self, data: bytes) -> str:
        """Take bytes, all or none; return a sentence for people, or nothing."""

    async def close(self) -> str:
        """Let go of everything; return what was lost by that, or nothing. May be called twice."""


@dataclass
class Entry:
    """One place in the table."""

    handle: int
    stream: Stream
    touched_s: float
    busy: bool = False


class StreamTable:
    """All streams. For the event loop only."""

    def __init__(
        self,
        *,
        most: int = MAX_STREAMS,
        idle_s: float = IDLE_S,
        sweep_s: float = _SWEEP_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._idle_s = idle_s
        self._sweep_s = sweep_s
        self._now_s = now_s
        self._entries: dict[int, Entry] = {}
        self._last = -1
        self._sweeper: asyncio.Task[None] | None = None

    def entries(self) -> tuple[Entry, ...]:
        """Return what is open, by number."""
        return tuple(self._entries[handle] for handle in sorted(self._entries))

    def idle_s(self, entry: Entry) -> float:
        """Return since when no command has touched it, in seconds."""
        return 0.0 if entry.busy else self._now_s() - entry.touched_s

    async def check_room(self) -> None:
        """Make sure that there is a place, before anything is opened for it. Raises StreamError."""
        if len(self._entries) < self._most:
            return
        ended = [entry for entry in self._entries.values() if entry.stream.state is Poll.ENDED and not entry.busy]
        if not ended:
            raise StreamError(f"{self._most} streams are open already; close one ('list' shows them).")
        await self.close(min(ended, key=lambda entry: entry.touched_s).handle)

    async def add(self, stream: Stream) -> int:
        """Give a stream a number. Raises StreamError if there is no place; the stream is closed then."""
        try:
            await self.check_room()
        except BaseException:
            await stream.close()
            raise
        self._last = handle = next_handle(self._last, self._entries)
        self._entries[handle] = Entry(handle, stream, self._now_s())
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep(), name="idle streams")
        return handle

    @asynccontextmanager
    async def using(self, handle: int) -> AsyncIterator[Stream]:
        """Have a stream to oneself. Raises StreamError if there is none, or another command uses it."""
        entry = self._find(handle)
        if entry.busy:
            raise StreamError(f"Another command uses stream {handle} now; try again when it has ended.")
        entry.busy = True
        try:
            yield entry.stream
        finally:
            entry.busy = False
            entry.touched_s = self._now_s()

    def look(self, handle: int) -> Stream:
        """Return a stream without having it to oneself. Raises StreamError."""
        return self._find(handle).stream

    def _find(self, handle: int) -> Entry:
        entry = self._entries.get(handle)
        if entry is None:
            raise StreamError(f"There is no stream {handle}; 'list' shows those that are open.")
        return entry

    async def close(self, handle: int) -> str:
        """Close a stream, also one that a command waits for; return what was lost by that. Raises StreamError."""
        entry = self._find(handle)
        del self._entries[handle]
        return await entry.stream.close()

    async def close_all(self) -> list[str]:
        """Close all streams; return what was lost by that. One that cannot be closed does not keep the others open."""
        said = []
        for entry in self.entries():
            # Another may have closed it while this waited for one before it.
            if self._entries.get(entry.handle) is not entry:
                continue
            try:
                said.append(await self.close(entry.handle))
            except ZentriError as error:
                said.append(str(error))
        return [lost for lost in said if lost]

    async def _sweep(self) -> None:
        """Close what is idle, for as long as there is anything."""
        while self._entries:
            await asyncio.sleep(self._sweep_s)
            for entry in self.entries():
                if self.idle_s(entry) >= self._idle_s and entry.handle in self._entries:
                    await self.close(entry.handle)
