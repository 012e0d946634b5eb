"""The way in: sessions of the command language over the daemon's local socket, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from zentrid.consoleclient import READ_BYTES, Result, Session, connect
from zentrid.core.framing import CRLF, TEXTS
from zentrid.core.grammar import CommandError
from zentrid.core.httpapi import CommandRequest
from zentrid.errors import ZentriError

MAX_COMMANDS: Final = 3
"""Commands of requests at the same time; more wait for their turn."""
MAX_TERMINALS: Final = 2
"""Terminals and attached streams. With the commands fewer than the daemon has sessions: other doors stay usable."""
TURN_S: Final = 10.0
COMMAND_S: Final = 900.0
"""A request is not kept open for longer, whatever the command's own limit is."""


class LinkError(ZentriError):
    """The command line cannot be reached, or broke off."""

    reason = "link"


class BusyError(ZentriError):
    """All places are taken."""

    reason = "busy"


class Link:
    """One session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.reader = session.reader
        self.writer = session.writer
        self.answered = False
        """Whether the answer to the last line has come."""

    async def result(self, line: bytes, data: bytes = b"") -> Result:
        """Carry out a line in a machine-mode session. Raises LinkError."""
        self.answered = False
        try:
            self.writer.write(line + CRLF + data)
            await self.writer.drain()
            found = await self._session.answer()
        except OSError as error:
            raise LinkError(
                "the command line broke off before it answered; the command may have been carried out"
            ) from error
        self.answered = True
        return found


class Links:
    """Opens sessions, as many as there is room for."""

    def __init__(self, path: str) -> None:
        """Take the daemon's socket."""
        self._path = path
        self._commands = asyncio.Semaphore(MAX_COMMANDS)
        self._terminals = 0
        self._left: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, kind: bytes) -> AsyncIterator[Link]:
        """Give a session: `kind` is `machine`, `once` (machine mode, one line only) or `human`. Raises LinkError."""
        link = await self._connect(kind)
        try:
            yield link
        finally:
            link.writer.transport.abort()

    async def _connect(self, kind: bytes) -> Link:
        try:
            return Link(await connect(self._path, kind))
        except OSError as error:
            raise LinkError("the command line is not running yet; try again in a moment") from error

    @asynccontextmanager
    async def terminal(self, kind: bytes) -> AsyncIterator[Link]:
        """Give a session that may last. Raises BusyError, LinkError."""
        if self._terminals >= MAX_TERMINALS:
            raise BusyError(f"{MAX_TERMINALS} terminals or streams are open already; close one")
        self._terminals += 1
        try:
            async with self.open(kind) as link:
                yield link
        finally:
            self._terminals -= 1

    async def run(self, request: CommandRequest) -> Result:
        """Carry out one request. Raises BusyError, LinkError; what is wrong with the line is a result."""
        try:
            request.check()
        except CommandError as error:
            return failed(error)
        try:
            async with asyncio.timeout(TURN_S):
                await self._commands.acquire()
        except TimeoutError:
            raise BusyError(f"{MAX_COMMANDS} commands are running; try again in a moment") from None
        link: Link | None = None
        try:
            # With bytes behind the line, a session for one line only: what a refused command does not take is no command.
            kind = b"once" if request.data else b"machine"
            async with asyncio.timeout(COMMAND_S):
                link = await self._connect(kind)
                return await link.result(request.line, request.data)
        except TimeoutError:
            raise LinkError(
                f"there was no answer within {COMMAND_S:g} s; the command may still be carried out"
            ) from None
        finally:
            self._leave(link)

    def _leave(self, link: Link | None) -> None:
        """Give a command's place back, as soon as the daemon has no session of it any more."""
        if link is not None and not link.answered:
            leaving = asyncio.create_task(self._see_off(link))
            self._left.add(leaving)
            leaving.add_done_callback(self._left.discard)
            return
        if link is not None:
            link.writer.transport.abort()
        self._commands.release()

    async def _see_off(self, link: Link) -> None:
        """Wait for the end of a command that nobody waits for any more: as long as it runs it holds a session."""
        try:
            with suppress(OSError):
                link.writer.write_eof()
                while await link.reader.read(READ_BYTES):
                    pass
        finally:
            link.writer.transport.abort()
            self._commands.release()


def failed(error: CommandError) -> Result:
    """Return what the command line answers to a line that it cannot read."""
    return Result(int(error.code), TEXTS[error.code].encode() + CRLF, (str(error),))


async def pass_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, write_s: float) -> None:
    """Pass bytes on until they end; a writer that takes none for `write_s` seconds is given up."""
    with suppress(OSError, TimeoutError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            async with asyncio.timeout(write_s):
                await writer.drain()
