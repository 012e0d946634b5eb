"""A client of the command line's local socket: one session in machine mode. The doors are made of it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from zentrid.core.framing import Frame, FrameError, FrameReader

SOCKET: Final = "/run/zentrid/console.sock"
CONNECT_S: Final = 5.0
MAX_LOG_BYTES: Final = 32 * 1024
"""Text kept beside one answer: the last of it, because the reason of a failure comes last."""
READ_BYTES: Final = 16 * 1024


class UnreadableError(OSError):
    """What came is not the command line's language."""


class ClosedError(ConnectionError):
    """The command line has closed the session before it answered."""


@dataclass(frozen=True)
class Result:
    """What a command answered."""

    code: int
    body: bytes
    log: tuple[str, ...] = ()
    """What came before the answer: for a failed command, why."""
    safe_mode: bool = False

    @property
    def text(self) -> str:
        """The answer as text: LF between lines, none at the end."""
        return text_of(self.body)

    @property
    def sentence(self) -> str:
        """The answer in one sentence: of a failed command, the reason."""
        return self.log[-1] if self.code and self.log else self.text


def text_of(body: bytes) -> str:
    """Return a block's body as text: LF between lines, none at the end. No string of D-Bus may hold a NUL."""
    return (
        body.decode("utf-8", "replace")
        .replace("\r\n", "\n")
        .removesuffix("\n")
        .replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


class Session:
    """One session. Whoever opens it closes it: by its writer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._ready: deque[Frame] = deque()

    async def frame(self) -> Frame:
        """Return the next block. Raises OSError (UnreadableError and ClosedError are such)."""
        while not self._ready:
            data = await self.reader.read(READ_BYTES)
            if not data:
                raise ClosedError
            try:
                self._ready += self._frames.feed(data)
            except FrameError as error:
                raise UnreadableError from error
        return self._ready.popleft()

    async def answer(self) -> Result:
        """Return the next answer with the last of the text before it. Raises OSError as `frame` does."""
        log: deque[bytes] = deque()
        held = 0
        while (frame := await self.frame()).kind == "L":
            log.append(frame.body)
            held += len(frame.body)
            while held > MAX_LOG_BYTES and len(log) > 1:
                held -= len(log.popleft())
        return Result(frame.code, frame.body, tuple(text_of(line) for line in log), safe_mode=frame.kind == "S")


async def connect(path: str, kind: bytes) -> Session:
    """Open a session: `kind` is `machine`, `human`, `once` or `once-all`. Raises OSError (TimeoutError is one)."""
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"\0" + kind + b"\n")
    return Session(reader, writer)
