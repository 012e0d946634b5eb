"""The way in: one session of the command line for each call, and one that follows events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from zentrid.consoleclient import CONNECT_S, ClosedError, Result, Session, UnreadableError, connect, text_of
from zentrid.core.framing import Frame
from zentrid.core.grammar import MAX_LINE_BYTES
from zentrid.errors import ZentriError

ANSWER_S: Final = CONNECT_S
"""How long the answers to the prelude may take."""
MAX_DATA_BYTES: Final = 64 * 1024
_WITH_DATA: Final = b"once-all"
"""One line only: what its command does not take of the bytes behind it is no command. It shows all, and needs no prelude."""
_PRELUDE: Final = (b"set system.print_level all", b"set system.cmd.buffered 0")
"""A session begins with the device's settings, and these must not keep reasons or events back. They end with the session."""


class ConsoleError(ZentriError):
    """The command line did not answer; nobody knows how much of the command was done."""

    reason = "unavailable"


class BadLineError(ZentriError):
    """That is not one line, or it is too long; nothing was done."""

    reason = "bad_line"


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

    def __init__(self, path: Path) -> None:
        self._path = path

    async def command(self, line: str, data: bytes = b"") -> Result:
        """Carry out one line, followed by `data`; return its answer. Raises BadLineError, ConsoleError.

        The sending side is closed behind the line, so that a command that waits for bytes or for Ctrl-C ends by itself.
        """
        raw = check_line(line)
        if len(data) > MAX_DATA_BYTES:
            raise BadLineError(f"At most {MAX_DATA_BYTES} bytes can be sent at once; nothing was done.")
        async with self._session([raw], data, last=True) as session:
            return await session.answer()

    async def commands(self, lines: Sequence[str]) -> list[Result]:
        """Carry out lines one after the other; return their answers. Raises BadLineError, ConsoleError."""
        async with self._session([check_line(line) for line in lines], b"", last=True) as session:
            return [await session.answer() for _ in lines]

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield an empty event when following has begun, then what happens. Raises ConsoleError when that ends."""
        async with self._session([b"events"], b"", last=False) as session:
            yield {}
            while True:
                frame = await session.frame()
                if frame.kind != "L":
                    raise ConsoleError("the command line has stopped telling what happens")
                event = _event(frame)
                if event is not None:
                    yield event

    @asynccontextmanager
    async def _session(self, lines: Sequence[bytes], data: bytes, *, last: bool) -> AsyncIterator[Session]:
        """Open a session and send lines in it; the blocks begin with the first line's. Raises ConsoleError."""
        try:
            session = await connect(str(self._path), _WITH_DATA if data else b"machine")
        except OSError as error:
            raise ConsoleError("the command line is not running now; try again in a moment") from error
        try:
            prelude = () if data else _PRELUDE
            session.writer.write(b"".join(line + b"\r\n" for line in (*prelude, *lines)) + data)
            if last:
                session.writer.write_eof()
            async with asyncio.timeout(ANSWER_S):
                for _ in prelude:
                    await session.answer()
            yield session
        except TimeoutError as error:
            raise ConsoleError("the command line does not answer") from error
        except UnreadableError as error:
            raise ConsoleError("the command line's answer cannot be read") from error
        except ClosedError as error:
            raise ConsoleError("the command line has closed the connection without an answer") from error
        except OSError as error:
            raise ConsoleError("the command line has closed the connection") from error
        finally:
            session.writer.close()


def _event(frame: Frame) -> dict[str, Any] | None:
    """Return an event; None for other log text."""
    try:
        event = json.loads(text_of(frame.body))
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
