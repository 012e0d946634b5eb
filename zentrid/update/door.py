"""The upload door: a process without rights that takes one bundle by HTTP while a person holds the door open.

`python3 -m zentrid.update.door` reads one line of JSON from standard input, serves on a socket that it inherits, and
writes what it receives to a file that it inherits. It says JSON lines on standard output; the lines that come after the first
one on its input are the installation's progress, which it passes on as the answer to whom sent the bundle. It ends with its
input. A process of its own, because the HTTP library is large and reads what strangers send.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import aiohttp
from aiohttp import web

from zentrid.adapters.rights import become, user_to_become
from zentrid.core import uploads
from zentrid.core.uploads import DoorNews, Part, Received, UploadRefusedError

NEWS_INTERVAL_S: Final = 0.2
MAX_ADDRESS_SPACE_BYTES: Final = 512 * 1024 * 1024
MAX_OPEN_FILES: Final = 32
_CHUNK_BYTES: Final = 64 * 1024
_LOST = (OSError, aiohttp.ClientError, asyncio.IncompleteReadError)


@dataclass(frozen=True)
class DoorConfig:
    """What the process is told."""

    token: str
    listen_fd: int
    spool_fd: int
    user: str = "zentri-ota"
    idle_s: float = uploads.IDLE_S

    def to_line(self) -> bytes:
        """Return it as the process reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Door:
    """The HTTP side. `closed` is set when nothing more can come."""

    def __init__(self, config: DoorConfig) -> None:
        self._config = config
        self._there = Received()
        self._busy = False
        self._wrong = 0
        self._said_s = 0.0
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = asyncio.Event()

    def application(self) -> web.Application:
        """Return the application with its two addresses."""
        app = web.Application()
        app.router.add_put("/bundle", self._put, expect_handler=self._expect)
        app.router.add_get("/status", self._status)
        return app

    @property
    def answering(self) -> bool:
        """Whether somebody has sent a bundle and hears what becomes of it."""
        return self._there.complete and not self.closed.is_set()

    def progress(self, line: bytes) -> None:
        """Take one line of the installation's progress; an empty one ends the answer."""
        self._lines.put_nowait(line)

    # --- requests -------------------------------------------------------------------------------------------------
    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Answer before the body is sent, if the sender asks for that: a refusal then costs it nothing."""
        refusal = self._refusal_of(request)
        if refusal is None:
            judged = self._judged(request, replace(self._there))
            refusal = judged if isinstance(judged, web.Response) else None
        if refusal is None and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return refusal

    def _refusal_of(self, request: web.Request) -> web.Response | None:
        if uploads.is_token(request.headers.get("Authorization", ""), self._config.token):
            return None
        self._wrong += 1
        if self._there.complete:  # nobody listens any more
            return _answer(403, "a bundle is being installed already")
        self._say("refused", f"a wrong token from {request.remote or 'somewhere'}")
        if self._wrong >= uploads.MAX_WRONG_TOKENS:
            self._say("closed", f"{self._wrong} requests had a wrong token")
            self.closed.set()
        return _answer(403, "the token is not the one that the device's console shows")

    async def _status(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal_of(request)
        # Not `or`: a response is a mapping, and an empty one is false in some versions of the library.
        return web.json_response(self._state()) if refusal is None else refusal

    def _state(self) -> dict[str, Any]:
        return {"result": "ok", "received_bytes": self._there.bytes, "size_bytes": self._there.total_bytes}

    async def _put(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal_of(request)
        if refusal is not None:
            return refusal
        found = self._judged(request, self._there)
        if isinstance(found, web.Response):
            return found
        self._busy = True
        try:
            await self._receive(request, found)
        except UploadRefusedError as error:
            return _answer(error.status, error.sentence)
        except TimeoutError:
            return _answer(408, f"nothing came for {self._config.idle_s:g} s; go on at byte {self._there.bytes}")
        except _LOST as error:
            return _answer(507, f"cannot take the bundle ({getattr(error, 'strerror', None) or type(error).__name__})")
        finally:
            self._busy = False
        if not self._there.complete:
            return web.json_response(self._state(), status=202)
        self._say("received")
        return await self._follow(request)

    def _judged(self, request: web.Request, there: Received) -> Part | web.Response:
        """Return what the request may bring, which `there` then counts with, or why it may not."""
        if self._busy or there.complete:
            return _answer(409, "a bundle is on its way already; wait for it")
        try:
            return there.accept(request.headers.get("Content-Range"), request.content_length, self._free())
        except UploadRefusedError as error:
            return _answer(error.status, error.sentence)

    def _free(self) -> int:
        found = os.fstatvfs(self._config.spool_fd)
        return found.f_bavail * found.f_frsize

    async def _receive(self, request: web.Request, part: Part) -> None:
        fd, there = self._config.spool_fd, self._there
        if not part.start:
            os.ftruncate(fd, 0)
        while there.bytes < part.end:
            async with asyncio.timeout(self._config.idle_s):
                chunk = await request.content.read(min(_CHUNK_BYTES, part.end - there.bytes))
            if not chunk:
                raise UploadRefusedError(400, f"the bundle ended early; go on at byte {there.bytes}")
            written = 0
            while written < len(chunk):
                written += os.pwrite(fd, chunk[written:], there.bytes + written)
            there.bytes += len(chunk)
            if time.monotonic() - self._said_s >= NEWS_INTERVAL_S:
                self._said_s = time.monotonic()
                self._say("receiving")

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """Answer with the installation's progress, a line of JSON at a time; a sender that has gone does not matter."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            await response.prepare(request)
            while line := await self._lines.get():
                await response.write(line)
            await response.write_eof()
        except _LOST:
            pass
        finally:
            self.closed.set()
        return response

    def _say(self, kind: str, sentence: str = "") -> None:
        news = DoorNews(kind, self._there.bytes, self._there.total_bytes or 0, sentence)
        with suppress(BrokenPipeError):
            sys.stdout.buffer.write(news.to_line())
            sys.stdout.buffer.flush()


def _answer(status: int, sentence: str) -> web.Response:
    return web.json_response({"result": "fail", "message": sentence}, status=status)


async def serve(config: DoorConfig, stdin: asyncio.StreamReader) -> None:
    """Serve until the input ends, or the door is closed and its answers are out."""
    door = Door(config)
    runner = web.AppRunner(door.application(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.SockSite(runner, socket.socket(fileno=config.listen_fd), backlog=4).start()
        told = asyncio.create_task(_pass_on(stdin, door))
        shut = asyncio.create_task(door.closed.wait())
        async with asyncio.timeout(uploads.MOST_S):
            await asyncio.wait([told, shut], return_when=asyncio.FIRST_COMPLETED)
        for task in (told, shut):
            task.cancel()
    finally:
        await runner.cleanup()


async def _pass_on(stdin: asyncio.StreamReader, door: Door) -> None:
    while line := await stdin.readline():
        door.progress(line)
    if door.answering:
        # The answer's last bytes go out before the process ends.
        door.progress(b"")
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await door.closed.wait()


async def _run() -> None:
    stdin = asyncio.StreamReader(limit=uploads.MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    config = DoorConfig(**json.loads(await stdin.readline()))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, MAX_ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    user = user_to_become(config.user)
    if user is not None:
        become(user)
    # What strangers send is no news; its text would fill the pipe that a real failure needs.
    logging.disable()
    await serve(config, stdin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, TimeoutError):
        asyncio.run(_run())
