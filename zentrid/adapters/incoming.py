"""Bytes that have come in and were not used yet, within a bound: what is beyond it stays with the sender."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


def _nothing() -> None:
    return


class Incoming:
    """Keeps reading a source, so that what comes is noticed at once. One reader; `pump` runs beside it."""

    def __init__(
        self, read: Callable[[], Awaitable[bytes]], limit_bytes: int, noticed: Callable[[], None] = _nothing
    ) -> None:
        """`read` returns nothing at the end of the source; `noticed` is called after each piece, and after the end."""
        self.pending = bytearray()
        self.ended = False
        self._read = read
        self._limit_bytes = limit_bytes
        self._noticed = noticed
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def pump(self) -> None:
        """Read to the end; stop while too much is waiting."""
        while data := await self._read():
            self.pending += data
            self._noticed()
            self._news.set()
            while len(self.pending) > self._limit_bytes:
                self._room.clear()
                await self._room.wait()
        self.end()

    def end(self) -> None:
        """Expect nothing more."""
        self.ended = True
        self._noticed()
        self._news.set()

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait until there is something, or will never be again; False when that takes longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.pending and not self.ended:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self, most_bytes: int) -> bytes:
        """Return some of what is there, without waiting."""
        data = bytes(self.pending[:most_bytes])
        del self.pending[:most_bytes]
        self._room.set()
        return data

    def put_back(self, data: bytes) -> None:
        """Take back what was taken too early."""
        self.pending[:0] = data
