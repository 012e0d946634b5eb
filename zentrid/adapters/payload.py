"""The bytes that follow a command line on a session: read as they are, with an end to waiting.

A line says how many bytes follow it. They are never taken as commands, whatever becomes of the command: what a command that
failed has not read is thrown away before the next line is looked at. After a line that cannot be taken apart nobody knows how
many they are; then all that keeps coming is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zentrid.adapters.incoming import Incoming
from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError

SILENCE_S: Final = 20.0
"""So long the next byte may take."""
DROP_SILENCE_S: Final = 1.0
"""Bytes that nobody wants any more are thrown away until there were none for so long."""
MAX_ECHO_BYTES: Final = 4096
_PIECE_BYTES: Final = 16 * 1024


class LinePayload:
    """What follows one command line."""

    def __init__(
        self,
        incoming: Incoming,
        first: Callable[[bytes], bytes],
        echo: Callable[[bytes], None],
        over: Callable[[], None],
        *,
        silence_s: float = SILENCE_S,
        drop_silence_s: float = DROP_SILENCE_S,
    ) -> None:
        """Take the session's input and what it wants to be told.

        `first` takes from the first bytes what still belongs to the line's end; `echo` shows bytes on the terminal; `over` is
        called when what comes next is no part of it any more.
        """
        self._incoming = incoming
        self._first: Callable[[bytes], bytes] | None = first
        self._echo = echo
        self._over = over
        self._silence_s = silence_s
        self._drop_silence_s = drop_silence_s
        self._left: int | None = None
        self._echoed_bytes = 0

    @property
    def settled(self) -> bool:
        """Whether what comes now is no part of it: the command has said how much belongs to it, and that was read."""
        return self._left == 0

    def expect(self, size_bytes: int) -> None:
        """The line says that so many bytes follow it."""
        self._count(size_bytes)

    def _count(self, left: int) -> None:
        self._left = left
        if not left:
            self._over()

    async def read(self, size_bytes: int) -> bytes:
        """Return exactly the next `size_bytes` bytes. Raises CommandError when they do not come."""
        if self._left is None or size_bytes > self._left:
            raise ValueError("a command reads more than it said would come")
        data = bytearray()
        while len(data) < size_bytes:
            piece = await self._next(size_bytes - len(data), self._silence_s)
            if not piece:
                raise CommandError(
                    Code.FAILED,
                    f"{self._left} bytes are missing: "
                    + ("the connection ended." if self._incoming.ended else f"none came for {self._silence_s:g} s.")
                    + " Nothing was changed; send the line and all its bytes again.",
                )
            self._show(piece)
            data += piece
        return bytes(data)

    async def drop(self) -> None:
        """Throw away what was announced and not read; if the line could not say how much, what keeps coming."""
        if self._left is None:
            while await self._next(_PIECE_BYTES, self._drop_silence_s):
                pass
            self._count(0)
        while self._left:
            if not await self._next(min(self._left, _PIECE_BYTES), self._drop_silence_s):
                self._count(0)

    async def _next(self, most_bytes: int, silence_s: float) -> bytes:
        while True:
            if not await self._incoming.wait(silence_s):
                return b""
            piece = self._incoming.take(most_bytes)
            if not piece:
                return b""
            if self._first is not None:
                # An LF after the line's CR is the line's, and does not count: there may be one byte more to take.
                piece, self._first = self._first(piece), None
            if piece:
                if self._left is not None:
                    self._count(self._left - len(piece))
                return piece

    def _show(self, piece: bytes) -> None:
        room = MAX_ECHO_BYTES - self._echoed_bytes
        if room > 0:
            self._echo(piece[:room])
        self._echoed_bytes += len(piece)
