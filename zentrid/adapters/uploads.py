"""The supervisor's side of the upload door: opens it, follows it, and removes what came in. It parses no network data."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from zentrid.core import uploads
from zentrid.core.text import printable
from zentrid.core.uploads import DoorNews, parse_news
from zentrid.errors import ZentriError
from zentrid.ports import UpdateProgress

log = logging.getLogger(__name__)

_BACKLOG: Final = 4
_KEPT_BYTES: Final = 4000
_TAKE_S: Final = 5.0
DOOR_ARGV: Final = (sys.executable, "-m", "zentrid.update.door")


class UploadError(ZentriError):
    """The door cannot be opened, or nothing came in; the sentence says why."""

    reason = "upload"


class UploadDoor:
    """One open door. `news` until the bundle is there; `tell` while it is installed; `close` in any case."""

    def __init__(self, process: asyncio.subprocess.Process, path: Path, token: str, port: int, open_s: float) -> None:
        self._process = process
        self._open_s = open_s
        self.path = path
        """The bundle, as soon as it is there."""
        self.token = token
        self.port = port

    async def news(self) -> AsyncIterator[DoorNews]:
        """Yield what happens at the door, `received` last. Raises UploadError if it closes without a bundle."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(uploads.MOST_S):
                while True:
                    async with asyncio.timeout(self._open_s):
                        line = await self._process.stdout.readline()
                    if not line:
                        raise UploadError("The upload door has closed by itself; the log has the details.")
                    found = parse_news(line)
                    if found.kind == "closed":
                        raise UploadError(f"The upload door was closed: {found.sentence}. Open it again: ota upload")
                    yield found
                    if found.kind == "received":
                        return
        except TimeoutError:
            raise UploadError("Nobody sent a bundle in time; the upload door is closed.") from None
        except ValueError as error:
            raise UploadError("The upload door failed inside the device; see the log.") from error

    async def tell(self, news: UpdateProgress) -> None:
        """Let whom sent the bundle know how its installation goes; one that has gone does not matter."""
        value = {
            "state": news.state, "percent": news.percent, "message": news.message, "done": news.done,
            **({"result": "ok" if news.ok else "fail"} if news.done else {}),
        }  # fmt: skip
        await self._write(json.dumps(value).encode() + b"\n")

    async def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        # A process that takes nothing any more must not hold up whom the installation is shown to.
        with suppress(OSError):
            async with asyncio.timeout(_TAKE_S):
                self._process.stdin.write(line)
                await self._process.stdin.drain()

    async def close(self, *, wait_s: float = 5.0) -> None:
        """End the process, after its last answer has gone out, and remove the bundle."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(wait_s):
                said = await self._process.stderr.read(_KEPT_BYTES)
                if said:
                    log.warning("upload door: %s", printable(said.decode(errors="replace"), keep="\n"))
                await self._process.wait()
        except TimeoutError:
            log.warning("the upload door did not close by itself")
        finally:
            with suppress(ProcessLookupError):
                self._process.kill()
            with suppress(TimeoutError):  # what it left running may hold its pipes
                async with asyncio.timeout(wait_s):
                    await self._process.wait()
            if self._process.stdin.transport.get_write_buffer_size():
                self._process.stdin.transport.abort()
            self._process._transport.close()  # type: ignore[attr-defined]  # nothing else closes the pipes
            await asyncio.to_thread(self.path.unlink, missing_ok=True)


class UploadDoors:
    """Opens the door; at most one at a time."""

    def __init__(
        self,
        folder: Path,
        port: Callable[[], int],
        *,
        address: str = "",
        argv: Sequence[str] = DOOR_ARGV,
        open_s: float = uploads.OPEN_S,
        idle_s: float = uploads.IDLE_S,
    ) -> None:
        """Take the folder for what comes in, of which nothing is kept, and where to listen (empty address: everywhere)."""
        self._folder = folder
        self._port = port
        self._address = address
        self._argv = tuple(argv)
        self._open_s, self._idle_s = open_s, idle_s
        self._door: UploadDoor | None = None

    def clear(self) -> None:
        """Remove what an upload that was cut left behind; a problem is logged."""
        try:
            if self._folder.exists():
                shutil.rmtree(self._folder)
        except OSError as error:
            log.error("what was left of an upload cannot be removed (%s)", error.strerror)

    async def open(self) -> UploadDoor:
        """Open the door. Raises UploadError."""
        if self._door is not None and self._door._process.returncode is None:
            raise UploadError("The upload door is open already, on another console; close it there with Ctrl-C.")
        token = base64.b32encode(secrets.token_bytes(uploads.TOKEN_BYTES)).decode().lower()
        path = self._folder / "upload.zb"
        try:
            listener, spool = await asyncio.to_thread(self._prepare, path)
            try:
                self._door = await self._start(listener, spool, path, token)
            finally:
                listener.close()
                os.close(spool)
        except OSError as error:
            raise UploadError(
                f"The upload door cannot be opened ({error.strerror}); check ota.upload.port and the data partition."
            ) from error
        return self._door

    def _prepare(self, path: Path) -> tuple[socket.socket, int]:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._address, self._port()))
            listener.listen(_BACKLOG)
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            spool = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except BaseException:
            listener.close()
            raise
        return listener, spool

    async def _start(self, listener: socket.socket, spool: int, path: Path, token: str) -> UploadDoor:
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(listener.fileno(), spool),
            limit=uploads.MAX_LINE_BYTES,
        )
        door = UploadDoor(process, path, token, listener.getsockname()[1], self._open_s)
        config = {"token": token, "listen_fd": listener.fileno(), "spool_fd": spool, "idle_s": self._idle_s}
        await door._write(json.dumps(config).encode() + b"\n")
        return door
