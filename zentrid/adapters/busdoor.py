"""The supervisor's side of the D-Bus door: holds the bus's socket, and starts bus and service when somebody connects.

Until then the door costs a file descriptor. It ends both when nobody has been connected for a while. The supervisor accepts no
connection and reads no byte of one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from zentrid.adapters.console import bind_socket
from zentrid.core.text import printable
from zentrid.core.unixsockets import connections

log = logging.getLogger(__name__)

SOCKET: Final = Path("/run/dbus/system_bus_socket")
"""Where every D-Bus library looks for the system bus."""
CONFIGURATION: Final = Path("/etc/dbus-1/zentri.conf")
DAEMON_ARGV: Final = (sys.executable, "-m", "zentrid.dbus.launch")
SERVICE_ARGV: Final = (sys.executable, "-m", "zentrid.dbus")
IDLE_S: Final = 600.0
LOOK_EVERY_S: Final = 15.0
PAUSES_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""After something of it has ended by itself; the next one after the last is the last again."""
STEADY_S: Final = 60.0
"""What has run for so long has not failed at its start."""
END_S: Final = 2.0
_EXIT_LOOK_S: Final = 0.1
_STOP_S: Final = 0.1
"""A signal takes effect when the process gets the processor."""
_KEPT_LINES: Final = 10
_LINE_BYTES: Final = 500
_OWN_CONNECTIONS: Final = 1
"""The service's."""


class Child:
    """One process; what it prints last is kept."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.ended = asyncio.create_task(self._exited(), name=f"{name} ended")
        self._since_s = asyncio.get_running_loop().time()
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listener = asyncio.create_task(self._listen(), name=f"{name} log")

    @classmethod
    async def start(cls, name: str, argv: Sequence[str], stdin: int) -> Child:
        """Start a process. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=stdin, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return cls(name, process)

    @property
    def steady(self) -> bool:
        """Whether it has run for a while."""
        return asyncio.get_running_loop().time() - self._since_s >= STEADY_S

    async def _exited(self) -> None:
        """Wait for the process alone: `Process.wait` waits for its pipe too, which what it has started may hold."""
        while self.process.returncode is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_EXIT_LOOK_S)

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while True:
            try:
                line = await self.process.stderr.readline()
            except ValueError:  # a line without an end
                continue
            if not line:
                return
            self._said.append(printable(line.decode(errors="replace").rstrip()[:_LINE_BYTES]))

    def complain(self) -> None:
        """Log an end that nobody wanted."""
        said = "".join(f"\n{line}" for line in self._said)
        log.warning("%s has ended with status %s%s", self.name, self.process.returncode, said)

    async def kill(self) -> None:
        """End it with all that it has started, and wait for it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await asyncio.wait({self.ended}, timeout=END_S)
        for task in (self.ended, self._listener):
            task.cancel()
        await asyncio.gather(self.ended, self._listener, return_exceptions=True)
        self.process._transport.close()  # type: ignore[attr-defined]  # nothing else closes the pipe


class BusDoor:
    """The door. `run` until it is cancelled; it never raises for what goes wrong at the door."""

    def __init__(
        self,
        path: Path = SOCKET,
        *,
        gid: int | None = None,
        configuration: Path = CONFIGURATION,
        daemon: Sequence[str] = DAEMON_ARGV,
        service: Sequence[str] = SERVICE_ARGV,
        idle_s: float = IDLE_S,
        look_every_s: float = LOOK_EVERY_S,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """Take the socket's path and who besides root may connect, what to start, and when to end it again."""
        self._path = path
        self._gid = gid
        # Both end with this process, however it ends.
        self._daemon_argv = (*daemon, str(os.getpid()), str(configuration))
        self._service_argv = (*service, str(os.getpid()))
        self._idle_s, self._look_every_s = idle_s, look_every_s
        self._pauses_s = tuple(pauses_s)
        self._failures = 0
        self._children: list[Child] = []

    async def run(self) -> None:
        """Keep the door until cancelled; afterwards nothing of it is left running."""
        while True:
            try:
                await self._keep()
            except Exception as error:
                # Whatever it is: the device is more than this door.
                log.error("the D-Bus door failed: %s", error, exc_info=not isinstance(error, OSError))
            await self._pause()

    async def _pause(self) -> None:
        pause_s = self._pauses_s[min(self._failures, len(self._pauses_s) - 1)]
        self._failures += 1
        await asyncio.sleep(pause_s)

    async def _keep(self) -> None:
        listener = await asyncio.to_thread(bind_socket, self._path, self._gid)
        try:
            while True:
                await _readable(listener)
                try:
                    wanted = await self._serve(listener)
                except OSError as error:
                    # Who waits at the door stays there.
                    log.error("the D-Bus door cannot start what it needs (%s)", error)
                    wanted = False
                finally:
                    await self._end_all()
                if not wanted:
                    await self._pause()
        finally:
            listener.close()

    async def _serve(self, listener: socket.socket) -> bool:
        """Run bus and service until nobody is connected any more (True), or the bus has ended by itself (False)."""
        daemon = await self._start("the D-Bus daemon", self._daemon_argv, listener.fileno())
        service = await self._start("the D-Bus service", self._service_argv, asyncio.subprocess.DEVNULL)
        idle_since_s: float | None = None
        now_s = asyncio.get_running_loop().time
        while True:
            await asyncio.wait(
                {daemon.ended, service.ended}, timeout=self._look_every_s, return_when=asyncio.FIRST_COMPLETED
            )
            if daemon.ended.done():
                daemon.complain()
                return False
            if service.ended.done():
                service.complain()
                await self._end(service)
                await self._pause()
                service = await self._start("the D-Bus service", self._service_argv, asyncio.subprocess.DEVNULL)
                continue
            if service.steady:
                self._failures = 0
            if await self._connected() > _OWN_CONNECTIONS:
                idle_since_s = None
            elif idle_since_s is None:
                idle_since_s = now_s()
            elif now_s() - idle_since_s >= self._idle_s and await self._may_end(daemon):
                return True

    async def _may_end(self, daemon: Child) -> bool:
        """Stop the bus where it is and look once more: who connects from now on is left for the next bus."""
        with suppress(ProcessLookupError):
            daemon.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(_STOP_S)
        if await self._connected() <= _OWN_CONNECTIONS:
            return True
        with suppress(ProcessLookupError):
            daemon.process.send_signal(signal.SIGCONT)
        return False

    async def _connected(self) -> int:
        # Names of abstract sockets are any bytes that any user likes.
        text = await asyncio.to_thread(Path("/proc/net/unix").read_text, "utf-8", "replace")
        return connections(text, str(self._path))

    async def _start(self, name: str, argv: Sequence[str], stdin: int) -> Child:
        child = await Child.start(name, argv, stdin)
        self._children.append(child)
        return child

    async def _end(self, child: Child) -> None:
        self._children.remove(child)
        await child.kill()

    async def _end_all(self) -> None:
        # All at once: who is cancelled here must not leave the others running.
        children, self._children = self._children, []
        await asyncio.gather(*(child.kill() for child in children))


async def _readable(listener: socket.socket) -> None:
    """Wait until somebody wants to connect."""
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(listener)
