"""Connections from outside, counted and bounded before a byte of them is parsed."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from zentrid.core.httpaccess import source_of
from zentrid.core.httpapi import MAX_REQUEST_BYTES
from zentrid.core.places import FullError, Place, who_leaves

HANDSHAKE_S: Final = 10.0
STALL_S: Final = 30.0
"""A reader that takes nothing for so long is cut off by the kernel."""
LINGER_S: Final = 2.0
"""So long a refused sender may still send before it is cut off, so that it reads the refusal."""
MAX_WAITING: Final = 8
"""So many requests of one connection may wait for the one before them: each takes memory before anybody is judged."""
_ACCEPT_AGAIN_S: Final = 0.5
TOO_LARGE: Final = f"a request has at most {MAX_REQUEST_BYTES} bytes with its headers; nothing was done"


def _refusal(status: str, sentence: str) -> bytes:
    body = json.dumps({"error": sentence}).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    )
    return head.encode() + b"\r\n" + body


class Gate(asyncio.Protocol):
    """Stands before the HTTP protocol of one connection: bounds the size of each request and the time for its headers."""

    def __init__(self, inner: asyncio.Protocol, gates: dict[Any, Gate], request_s: float, place: Place) -> None:
        """Take the protocol behind the gate, where to be found by transport, how long a request's headers may take, its place."""
        self._inner = inner
        self.place = place
        self._gates = gates
        self.ended = asyncio.Event()
        self._request_s = request_s
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._used_bytes = 0
        self._refused = False
        self._handling = False
        self._admitted = False
        """The request under way is one that may be made."""
        self._free = False
        self._served = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass it on; the time for the first request begins."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._gates[transport] = self
        self._begin()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._stop_timer()
        self._gates.pop(self._transport, None)
        self._inner.connection_lost(exc)
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        """Pass data on unless the request has become too large."""
        if self._refused:
            return
        if not self._free:
            if not self._handling and self._timer is None:
                self._begin()
            self._used_bytes += len(data)
            if self._used_bytes > MAX_REQUEST_BYTES:
                self._refuse("413 Request Entity Too Large", TOO_LARGE)
                return
        self._inner.data_received(data)
        if self._waiting > MAX_WAITING:
            # No word: the request under way may have been carried out, and an answer now would be taken for its own.
            self.close()

    @property
    def _waiting(self) -> int:
        """How many requests are parsed and not begun. Some versions of the library bound them, others do not."""
        return len(self._inner._messages)  # type: ignore[attr-defined]

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()

    # --- told by the handler ----------------------------------------------------------------------------------------
    def handling(self) -> None:
        """Note that a request's headers are there."""
        if not self._refused:
            self._handling = self.place.busy = True
            self._admitted = False
            self._stop_timer()

    def judged(self, *, admitted: bool, proven: bool) -> None:
        """Note whether the request may be made, and whether it has shown the account's password."""
        self._admitted = admitted
        self.place.proven = proven

    def answered(self) -> None:
        """Note that it was answered: the next one begins with its first byte."""
        self._handling = self.place.busy = False
        if self._admitted:  # whoever is refused would stay for ever by asking often
            self.place.used_s = time.monotonic()
        self._served = True
        self._used_bytes = 0

    def refused(self) -> None:
        """Note that the answer under way refuses what is still being sent: none of it is read any more."""
        self._refused = True
        self._close_later()

    def set_free(self) -> None:
        """Lift the limits of requests: the connection is a WebSocket now, which has its own."""
        self._free = True

    @property
    def idle(self) -> bool:
        """Tell whether no request is being handled."""
        return not self._handling

    def close(self) -> None:
        """Cut the connection off."""
        if self._transport is not None:
            self._transport.abort()

    # --- limits -----------------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._request_s, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        # After an answer a stray byte would make one that nobody has asked for.
        if self._used_bytes and not self._served:
            self._refuse("408 Request Timeout", f"the request did not come within {self._request_s:g} s")
        else:
            self.close()

    def _refuse(self, status: str, sentence: str) -> None:
        """Answer in the handler's place; whatever the handler was doing with this request ends with the connection."""
        assert self._transport is not None
        self._transport.write(_refusal(status, sentence))
        self.refused()

    def _close_later(self) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.close)


class Listener:
    """Accepts connections on a socket that the supervisor holds too: what waits there outlives this process."""

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket, str, Place], Awaitable[None]],
        stall_s: float = STALL_S,
    ) -> None:
        """Take the socket, and what serves one connection until its end."""
        listener.setblocking(False)
        self._stall_ms = int(stall_s * 1000)
        self._socket = listener
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: dict[Place, asyncio.Task[None]] = {}

    @property
    def busy(self) -> bool:
        """Tell whether there are connections."""
        return bool(self._tasks)

    async def run(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._socket)
            except OSError:
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            place = Place(source_of(peer[0]), time.monotonic())
            if not self._make_room(place):
                connection.close()
                continue
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._stall_ms)
            task = self._places[place] = asyncio.create_task(self._guarded(connection, str(peer[0]), place))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, place, connection))

    def _make_room(self, newcomer: Place) -> bool:
        """See off who has to leave for a newcomer; return whether there is a place then."""
        try:
            leaves = who_leaves(self._places, newcomer.source)
        except FullError:
            return False
        if leaves is not None:
            self._places.pop(leaves).cancel()
        return True

    async def _guarded(self, connection: socket.socket, peer: str, place: Place) -> None:
        with suppress(OSError, ssl.SSLError, TimeoutError):  # a stranger that went away, or speaks something else
            await self._serve(connection, peer, place)

    def _ended(self, place: Place, connection: socket.socket, task: asyncio.Task[None]) -> None:
        connection.close()  # here, because who has to leave at once never begins
        self._tasks.discard(task)
        self._places.pop(place, None)

    async def stop(self, wait_s: float) -> None:
        """Listen no more; let what is under way come to its end for so long, then end it."""
        self._socket.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=wait_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class HttpGates:
    """Serves HTTP connections through gates, and finds the gate of a request."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None, request_s: float) -> None:
        self._factory = factory
        self._request_s = request_s
        self._tls = tls
        self._gates: dict[Any, Gate] = {}

    async def serve(self, connection: socket.socket, _peer: str, place: Place) -> None:
        """Serve one connection until its end. Raises OSError."""
        gate = Gate(self._factory(), self._gates, self._request_s, place)
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {"ssl": self._tls, "ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": LINGER_S}
        await asyncio.get_running_loop().connect_accepted_socket(lambda: gate, connection, **options)
        try:
            await gate.ended.wait()
        finally:
            gate.close()

    def of(self, transport: asyncio.Transport | None) -> Gate | None:
        """Return the gate of a connection; None once it is lost."""
        return self._gates.get(transport)

    def close_idle(self) -> None:
        """Close the connections that no request is under way on."""
        for gate in tuple(self._gates.values()):
            if gate.idle:
                gate.close()
