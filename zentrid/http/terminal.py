"""Connections that last: the command line in a WebSocket or over TCP, and a stream's data in a WebSocket."""

from __future__ import annotations

import asyncio
import codecs
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import WSMsgType, web

from zentrid.core.httpapi import MAX_REQUEST_BYTES
from zentrid.core.places import Place
from zentrid.errors import ZentriError
from zentrid.http.access import Access
from zentrid.http.link import Link, LinkError, Links, pass_bytes

HEARTBEAT_S: Final = 30.0
WRITE_S: Final = 30.0
"""A reader that takes nothing for so long is given up."""
LOGIN_S: Final = 30.0
TRIES: Final = 3
STREAM_BYTES: Final = 4096
POLL_S: Final = 0.1
_MAX_TYPED_BYTES: Final = 128
_WHY_BYTES: Final = 120
"""The reason in a closing frame has at most 123 bytes."""
_READ_BYTES: Final = 4096
_REQUEST_LINE: Final = re.compile(r" HTTP/[0-9.]+$", re.ASCII | re.IGNORECASE)
_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\b\r\n")
_UPGRADE: Final = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
_HANDLE: Final = re.compile(r"[0-9]{1,4}", re.ASCII)


class Sockets:
    """The connections that last, WebSockets and TCP terminals, so that they can be ended when the account changes."""

    def __init__(self, links: Links, opened: Callable[[web.Request], None]) -> None:
        """Take the way in, and who hears that a request has become a WebSocket."""
        self._links = links
        self._opened = opened
        self._open: set[asyncio.Task[None]] = set()

    def close_all(self) -> None:
        """End all of them."""
        for task in self._open:
            task.cancel()

    async def lasting(self, work: Awaitable[None]) -> None:
        """Do work that `close_all` may end."""
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._open.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._open.discard(task)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def terminal(self, request: web.Request) -> web.StreamResponse:
        """The command line: text frames for people; `?mode=machine`: binary frames with headers, for programs."""
        if (refused := _no_socket(request)) is not None:
            return refused
        machine = request.query.get("mode") == "machine"
        async with self._links.terminal(b"machine" if machine else b"human") as link:
            ws = await self._accept(request)
            await self.lasting(_both(_to_link(ws, link), _to_socket(ws, link, machine=machine)))
            await ws.close()
            return ws

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A stream's data, by its handle: what it holds comes as binary frames, what is sent is written to it."""
        handle = request.query.get("handle", "")
        if not _HANDLE.fullmatch(handle):
            return web.json_response({"error": "name the stream: /stream?handle=0; 'list' shows them"}, status=400)
        if (refused := _no_socket(request)) is not None:
            return refused
        async with self._links.terminal(b"machine") as link:
            ws = await self._accept(request)
            pump = _Pump(ws, link, handle)
            await self.lasting(_both(pump.sent(), pump.received()))
            await ws.close(message=pump.why.encode()[:_WHY_BYTES].decode("utf-8", "ignore").encode())
            return ws

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=MAX_REQUEST_BYTES, heartbeat=HEARTBEAT_S, timeout=2.0, compress=False)
        await ws.prepare(request)
        self._opened(request)
        return ws


def _no_socket(request: web.Request) -> web.Response | None:
    """Return the refusal of a request that does not ask for a WebSocket; None: it does."""
    if web.WebSocketResponse().can_prepare(request).ok:
        return None
    return web.json_response(
        {"error": "this address is a WebSocket; connect to it with ws:// or wss://"}, status=426, headers=_UPGRADE
    )


async def _both(*sides: Awaitable[None]) -> None:
    """Run both directions until one of them ends."""
    tasks = [asyncio.ensure_future(side) for side in sides]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _messages(ws: web.WebSocketResponse) -> bytes | None:
    """Return the next message's bytes; None when there are no more."""
    message = await ws.receive()
    if message.type is WSMsgType.TEXT:
        return str(message.data).encode("utf-8", "replace")
    return bytes(message.data) if message.type is WSMsgType.BINARY else None


async def _to_link(ws: web.WebSocketResponse, link: Link) -> None:
    with suppress(OSError):
        while (data := await _messages(ws)) is not None:
            link.writer.write(data)
            await link.writer.drain()


async def _to_socket(ws: web.WebSocketResponse, link: Link, *, machine: bool) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with suppress(OSError, TimeoutError):
        while data := await link.reader.read(_READ_BYTES):
            async with asyncio.timeout(WRITE_S):
                if machine:
                    await ws.send_bytes(data)
                elif text := decoder.decode(data):
                    await ws.send_str(text)


class _Pump:
    """Carries a stream's data in both directions through one session: `poll`, `read` and `write`, one at a time."""

    def __init__(self, ws: web.WebSocketResponse, link: Link, handle: str) -> None:
        self._ws = ws
        self._link = link
        self._handle = handle
        self._turn = asyncio.Lock()
        self.why = ""

    async def _ask(self, line: str, data: bytes = b"") -> bytes:
        """Return what a command answers, without its line end. Raises LinkError when it failed."""
        async with self._turn:
            found = await self._link.result(line.encode(), data)
        if found.code:
            raise LinkError(found.log[-1] if found.log else "the stream has ended")
        return found.body.removesuffix(b"\r\n")

    async def received(self) -> None:
        try:
            while (data := await _messages(self._ws)) is not None:
                for start in range(0, len(data), STREAM_BYTES):
                    part = data[start : start + STREAM_BYTES]
                    await self._ask(f"write {self._handle} {len(part)}", part)
        except LinkError as error:
            self.why = str(error)

    async def sent(self) -> None:
        try:
            while True:
                state = await self._ask(f"poll {self._handle}")
                if state == b"1":
                    data = await self._ask(f"read {self._handle} {STREAM_BYTES}")
                    async with asyncio.timeout(WRITE_S):
                        await self._ws.send_bytes(data)
                elif state == b"2":
                    self.why = "the stream has ended"
                    return
                else:
                    await asyncio.sleep(POLL_S)
        except (LinkError, OSError, TimeoutError) as error:
            self.why = str(error)


# --- over TCP -----------------------------------------------------------------------------------------------------------
class TcpTerminal:
    """The command line for `nc` and the like: asks for user name and password, and is closed until they are set."""

    def __init__(self, access: Access, sockets: Sockets, links: Links) -> None:
        self._access = access
        self._sockets = sockets
        self._links = links

    async def serve(self, connection: socket.socket, peer: str, place: Place) -> None:
        """Serve one connection until its end. Raises OSError, TimeoutError."""
        reader, writer = await asyncio.open_connection(sock=connection, limit=_READ_BYTES)
        try:
            local = str((connection.getsockname() or ("",))[0])
            if await self._admitted(reader, writer, peer, local):
                place.proven = place.busy = True
                await self._sockets.lasting(self._bridge(reader, writer))
        finally:
            writer.transport.abort()

    async def _bridge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._links.terminal(b"human") as link:
                await _both(pass_bytes(reader, link.writer, WRITE_S), pass_bytes(link.reader, writer, WRITE_S))
        except ZentriError as error:
            await _say(writer, f"{error}\r\n")

    async def _admitted(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str, local: str
    ) -> bool:
        if not self._access.config.account.complete:
            # A page in a neighbour's browser can send lines here, and nothing of it tells where they come from.
            await _say(writer, "Set http.server.username and http.server.password first.\r\n")
            return False
        await self._access.near(peer, local)  # whose guess it is depends on the networks
        typed = _Typed(reader)
        async with asyncio.timeout(LOGIN_S):
            for _ in range(TRIES):
                wait_s = self._access.locked_s(peer)
                if wait_s:
                    await _say(writer, f"Too many wrong passwords; wait {int(wait_s) + 1} s.\r\n")
                    return False
                await _say(writer, "User name: ")
                name = await typed.line()
                if _REQUEST_LINE.search(name):  # a browser: its lines are nobody's guesses
                    return False
                await _say(writer, "Password: ")
                if self._access.admits(peer, name, await typed.line()):
                    await _say(writer, "\r\n")
                    return True
                await _say(writer, "\r\nWrong user name or password.\r\n")
        return False


class _Typed:
    """Lines as people type them before there is a line editor: ended by CR, LF or both."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._after_cr = False

    async def line(self) -> str:
        """Return a line without its end. Raises ConnectionError: the stream ended, or nobody types this."""
        line = bytearray()
        while len(line) <= _MAX_TYPED_BYTES:
            char = await self._reader.read(1)
            skip, self._after_cr = self._after_cr and char == b"\n", char == b"\r"
            if skip:
                continue
            if char in (b"\r", b"\n"):
                return line.decode("utf-8", "replace")
            if not char or char[0] in _CONTROLS:  # TLS begins with such a one
                break
            line += char
        raise ConnectionError


async def _say(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(text.encode())
    await writer.drain()
