"""A client of the command line's local socket: one connection for each command, and one that follows events."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zentrid.core.framing import Frame, FrameError, FrameReader
from zentrid.core.grammar import MAX_LINE_BYTES
from zentrid.errors import ZentriError

SOCKET: Final = Path("/run/zentrid/console.sock")
CONNECT_S: Final = 5.0
MAX_LOG_LINES: Final = 500
MAX_DATA_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 16 * 1024
_HELLO: Final = b"\0machine\n"
_HELLO_WITH_DATA: Final = b"\0once-all\n"
"""One line only: what its command does not take of the bytes behind it is no command. It shows all, and needs no prelude."""
_PRELUDE: Final = (b"set system.print_level all", b"set system.cmd.buffered 0")
"""A session begins with the device's settings, and these must not keep reasons or events back. They end with the session."""


class ConsoleError(ZentriError):
    """The command line did not answer; nobody knows how much of the command was done."""

    reason = "unavailable"


class BadLineError(ZentriError):
    """That is not one line, or it is too long; nothing was done."""

    reason = "bad_line"


@dataclass(frozen=True)
class Result:
    """The answer to one command."""

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


def check_line(line: str) -> bytes:
    """Return a command line as it is sent, without its end. Raises BadLineError.

    A control character could end the line and begin another one, or cancel it.
    """
    raw = line.encode("utf-8", "surrogatepass")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in line):
        raise BadLineError("A command is one line without control characters; nothing was done.")
    if not line.strip():
        raise BadLineError("The line is empty; nothing was done.")
    if len(raw) > MAX_LINE_BYTES:
        raise BadLineError(f"The line is longer than {MAX_LINE_BYTES} bytes; nothing was done.")
    return raw


class Console:
    """The command line of this device."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    async def command(self, line: str, data: bytes = b"") -> Result:
        """Carry out one line, followed by `data`; return its answer. Raises BadLineError, ConsoleError.

        The sending side is closed behind the line, so that a command that waits for bytes or for Ctrl-C ends by itself.
        """
        raw = check_line(line)
        if len(data) > MAX_DATA_BYTES:
            raise BadLineError(f"At most {MAX_DATA_BYTES} bytes can be sent at once; nothing was done.")
        async with self._session([raw], data, last=True) as frames:
            return await _answer(frames)

    async def commands(self, lines: Sequence[str]) -> list[Result]:
        """Carry out lines one after the other; return their answers. Raises BadLineError, ConsoleError."""
        async with self._session([check_line(line) for line in lines], b"", last=True) as frames:
            return [await _answer(frames) for _ in lines]

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield an empty event when following has begun, then what happens. Raises ConsoleError when that ends."""
        async with self._session([b"events"], b"", last=False) as frames:
            yield {}
            async for frame in frames:
                if frame.kind != "L":
                    raise ConsoleError("the command line has stopped telling what happens")
                event = _event(frame)
                if event is not None:
                    yield event

    @asynccontextmanager
    async def _session(
        self, lines: Sequence[bytes], data: bytes, *, last: bool
    ) -> AsyncIterator[AsyncGenerator[Frame, None]]:
        """Open a session and send lines in it; the frames begin with the first line's. Raises ConsoleError."""
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise ConsoleError("the command line is not running now; try again in a moment") from error
        try:
            prelude = () if data else _PRELUDE
            hello = _HELLO_WITH_DATA if data else _HELLO
            writer.write(hello + b"".join(line + b"\r\n" for line in (*prelude, *lines)) + data)
            if last:
                writer.write_eof()
            async with aclosing(_frames(reader)) as frames:
                async with asyncio.timeout(CONNECT_S):
                    for _ in prelude:
                        await _answer(frames)
                yield frames
        except TimeoutError as error:
            raise ConsoleError("the command line does not answer") from error
        except OSError as error:
            raise ConsoleError("the command line has closed the connection") from error
        finally:
            writer.close()


async def _frames(reader: asyncio.StreamReader) -> AsyncGenerator[Frame, None]:
    parser = FrameReader()
    while data := await reader.read(_READ_BYTES):
        try:
            frames = parser.feed(data)
        except FrameError as error:
            raise ConsoleError("the command line's answer cannot be read") from error
        for frame in frames:
            yield frame
    raise ConsoleError("the command line has closed the connection without an answer")


async def _answer(frames: AsyncGenerator[Frame, None]) -> Result:
    log: deque[str] = deque(maxlen=MAX_LOG_LINES)
    async for frame in frames:
        if frame.kind != "L":
            return Result(frame.code, frame.body, tuple(log), safe_mode=frame.kind == "S")
        log.append(text_of(frame.body))
    raise ConsoleError("the command line has closed the connection without an answer")


def _event(frame: Frame) -> dict[str, Any] | None:
    """Return an event; None for other log text."""
    try:
        event = json.loads(text_of(frame.body))
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
