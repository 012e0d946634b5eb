"""The HTTP door in tests: the real process or the real application, on the command language of a device in memory."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from zentrid.http.config import Config


def listening() -> socket.socket:
    """Return a listening socket on a free port of the loopback."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    listener.setblocking(False)
    return listener


class DoorProcess:
    """The door's own process."""

    def __init__(self, process: asyncio.subprocess.Process, config: Config, port: int, terminal_port: int) -> None:
        self.process = process
        self.config = config
        self.port = port
        self.terminal_port = terminal_port
        self._told = 0
        self.said = b""
        """What the process is expected to say, set by the test; compared when it has ended."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http{'s' if self.config.certificate else ''}://127.0.0.1:{self.port}"

    async def tell(self, **changes: object) -> None:
        """Change settings, as the supervisor does, and wait until they hold."""
        self.config = replace(self.config, **changes)  # type: ignore[arg-type]
        self._told += 1
        mark = f"told-{self._told}.test"
        assert self.process.stdin is not None
        self.process.stdin.write(replace(self.config, hostname=f"{self.config.hostname} {mark}".strip()).to_line())
        await self.process.stdin.drain()
        if not self.config.certificate:
            async with asyncio.timeout(20):
                while await self._knows(mark) is False:
                    await asyncio.sleep(0.02)

    async def _knows(self, name: str) -> bool:
        """Tell whether the process has heard of a name that the device has only since the last change."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET /nothing HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            return b" 421 " not in await reader.readline()
        finally:
            writer.transport.abort()


@asynccontextmanager
async def door_process(config: Config, module: str = "tests.support.http_neighbour") -> AsyncIterator[DoorProcess]:
    """Run the door's process with both sockets; it has ended afterwards, and has said what was expected.

    It takes who comes from the loopback for a neighbour; `zentrid.http` is the process as it is on the device.
    """
    http, terminal = listening(), listening()
    config = replace(config, http_fd=http.fileno(), terminal_fd=terminal.fileno())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(http.fileno(), terminal.fileno()),
    )
    door = DoorProcess(process, config, http.getsockname()[1], terminal.getsockname()[1])
    try:
        await door.tell()
        yield door
    finally:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(15):
                said = await process.stderr.read()
                status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            process._transport.close()  # type: ignore[attr-defined]
            http.close()
            terminal.close()
    assert (said, status) == (door.said, 0)
