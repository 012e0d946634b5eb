"""The doors of the command line: a serial port and a connection on the local socket, as byte streams without blocking.

Writing never waits and never grows without bound: a serial port that nobody reads loses output, a connection that
nobody reads is closed. So no reader can hold up an update.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import termios
import tty
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

MAX_OUTPUT_BYTES: Final = 256 * 1024
READ_BYTES: Final = 1024
DRAIN_TIMEOUT_S: Final = 10.0
_log = logging.getLogger(__name__)


class Door(Protocol):
    """One terminal's byte stream."""

    async def read(self) -> bytes:
        """Return what has come in, waiting for at least one byte; nothing at the end of the stream."""

    def write(self, data: bytes) -> None:
        """Send without waiting."""

    async def drain(self) -> None:
        """Wait until most of the output has gone, for at most `DRAIN_TIMEOUT_S`."""

    def close(self) -> None:
        """Let go of it; may be called twice."""


class SocketDoor:
    """A connection on the local socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b"") -> None:
        """Take over a connection; `first` was read from it already."""
        self._reader = reader
        self._writer = writer
        self._first = first

    async def read(self) -> bytes:
        """Return incoming bytes; nothing when the other side has closed or is gone."""
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return await self._reader.read(READ_BYTES)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Send; a connection that takes nothing is given up."""
        transport = self._writer.transport
        if transport.is_closing() or not data:
            return
        if transport.get_write_buffer_size() > MAX_OUTPUT_BYTES:
            _log.warning("console connection closed: it does not read what it asked for")
            transport.abort()
            return
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait for the output; a connection that takes too long is given up."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass  # gone; reading tells

    def close(self) -> None:
        """Close after the output that is under way."""
        self._writer.close()


class SerialDoor:
    """A serial port (or any terminal device) in raw mode; close puts its settings back."""

    def __init__(self, fd: int, saved: list[Any]) -> None:
        self._fd = fd
        self._saved = saved
        self._out = bytearray()
        self._lost_bytes = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._waiting: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, path: Path) -> SerialDoor:
        """Open the device and set it raw; raises OSError when that is not possible now."""
        fd, saved = await asyncio.to_thread(_open_raw, path)
        return cls(fd, saved)

    async def read(self) -> bytes:
        """Return incoming bytes; nothing after a hang-up."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                await self._readable()
            except OSError:
                return b""
        return b""

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        loop.add_reader(self._fd, _wake, self._waiting)
        try:
            await self._waiting
        finally:
            if self._fd >= 0:
                loop.remove_reader(self._fd)
            self._waiting = None

    def write(self, data: bytes) -> None:
        """Send; what finds no room is lost, and the log tells how much."""
        if self._fd < 0 or not data:
            return
        if len(self._out) + len(data) > MAX_OUTPUT_BYTES:
            if not self._lost_bytes:
                _log.warning("nobody reads the serial console; output is being lost")
            self._lost_bytes += len(data)
            return
        self._lost_bytes = 0
        idle = not self._out
        self._out += data
        if idle:
            self._send()
            if self._out:
                self._drained.clear()
                asyncio.get_running_loop().add_writer(self._fd, self._send)

    def _send(self) -> None:
        try:
            sent = os.write(self._fd, self._out)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._out)  # hung up; reading tells
        del self._out[:sent]
        if not self._out:
            asyncio.get_running_loop().remove_writer(self._fd)
            self._drained.set()

    async def drain(self) -> None:
        """Wait for the output to go, but not for ever: nobody may be reading."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._drained.wait()

    def close(self) -> None:
        """Put the port's settings back and close it."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(fd)
        loop.remove_writer(fd)
        if self._waiting is not None:
            _wake(self._waiting)
        self._drained.set()
        with suppress(termios.error, OSError):
            termios.tcsetattr(fd, termios.TCSANOW, self._saved)
        os.close(fd)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _open_raw(path: Path) -> tuple[int, list[Any]]:
    """Open a terminal device without waiting for carrier and set it raw; returns it with its settings before."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        saved = termios.tcgetattr(fd)
        tty.setraw(fd, termios.TCSANOW)
        mode = termios.tcgetattr(fd)
        mode[2] = (mode[2] | termios.CLOCAL | termios.CREAD) & ~termios.CRTSCTS
        mode[6][termios.VMIN] = 1  # with 0, an idle port would look like one that has hung up
        mode[6][termios.VTIME] = 0
        termios.tcsetattr(fd, termios.TCSANOW, mode)
    except termios.error as error:
        os.close(fd)
        raise OSError(f"{path} is no terminal: {error}") from error
    return fd, saved


def bind_socket(path: Path, gid: int | None = None) -> socket.socket:
    """Return a listening local socket at `path`, for its owner and the group `gid`; blocking.

    A socket left over there is replaced. Raises OSError, also when something that is no socket is in the way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} exists and is no socket")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o660)
        if gid is not None:
            os.chown(path, -1, gid)
        listener.listen(16)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
