"""The supervisor's side of the HTTP door: it holds the sockets, and starts the door's process when somebody comes.

Nothing that comes from the network is read here. The process is no part of the device's health: it may fail or be made to
fail without a fault being counted, is started again with growing pauses, and costs nothing while nobody comes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from zentrid.core.text import printable
from zentrid.core.variables import Values
from zentrid.http.config import Config, http_port

log = logging.getLogger(__name__)

DOOR_ARGV: Final = (sys.executable, "-m", "zentrid.http")
INTERFACE: Final = "eth0"
BACKLOG: Final = 16
SETTLE_S: Final = 0.5
"""Changed settings take effect so long after the last of them: the answer to whom has set it goes out first."""
MOST_CHANGES: Final = 20
"""But settings that change all the time are no way to keep others from taking effect."""
BIND_AGAIN_S: Final = 5.0
MISSING_AGAIN_S: Final = 60.0
"""A port that is missing while the other one is open is tried again after so long without a connection."""
END_S: Final = 8.0
HEALTHY_S: Final = 30.0
PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
MAX_LINES: Final = 60
"""So many lines of the process go into the log in `LINES_S`; its other ones are dropped."""
LINES_S: Final = 60.0
_LINE_BYTES: Final = 1000
Sockets = tuple[socket.socket | None, socket.socket | None]
"""Of the web server and of the TCP terminal."""
_VARIABLES: Final = ("http.server.", "remote_terminal.", "setup.web.")


@dataclass(frozen=True)
class Plan:
    """What is to be open, and what the process is told. A change of `sockets` means new sockets and a new process."""

    http_port: int = 0
    """0: no web server."""
    terminal_port: int = 0
    interface: str = "all"
    tls: bool = False
    config: Config = field(default_factory=Config)

    @property
    def sockets(self) -> tuple[int, int, str, bool]:
        """What cannot change while the sockets stay."""
        return self.http_port, self.terminal_port, self.interface, self.tls

    @property
    def open(self) -> bool:
        """Tell whether anything is to be open."""
        return bool(self.http_port or self.terminal_port)


def plan_of(values: Values, *, identity: Path, setup: bool, safe_mode: bool) -> Plan:
    """Return what the settings ask for."""
    tls = values.flag("http.server.tls_enabled")
    wanted = values.flag("http.server.enabled") or setup
    config = Config(
        certificate=str(identity / "device.crt") if tls else "",
        key=str(identity / "device.key") if tls else "",
        username=values.text("http.server.username"),
        password=values.text("http.server.password"),
        api_enabled=values.flag("http.server.api_enabled"),
        root_filename=values.text("http.server.root_filename"),
        inline_enabled=values.flag("http.server.inline_enabled"),
        hostname=values.text("http.server.hostname"),
        cors_origin=values.text("http.server.cors_origin"),
        setup=setup,
        setup_root=values.text("setup.web.root_filename"),
        safe_mode=safe_mode,
    )
    return Plan(
        http_port=http_port(values) if wanted else 0,
        terminal_port=values.number("remote_terminal.port") if values.flag("remote_terminal.enabled") else 0,
        interface=values.text("http.server.interface"),
        tls=tls,
        config=config,
    )


def listen(port: int, interface: str) -> socket.socket:
    """Return a listening socket for IPv4 and IPv6: on all interfaces, on `wlan`, or for the device itself (`local`)."""
    kind, everywhere, itself = (
        (socket.AF_INET6, "::", "::ffff:127.0.0.1")
        if socket.has_dualstack_ipv6()
        else (socket.AF_INET, "", "127.0.0.1")
    )
    listener = socket.socket(kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if interface == "wlan":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, INTERFACE.encode())
        listener.bind((itself if interface == "local" else everywhere, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class HttpDoor:
    """Keeps the door as the settings want it. `run` does not end by itself."""

    def __init__(
        self,
        plan: Callable[[], Plan],
        *,
        argv: Sequence[str] = DOOR_ARGV,
        bind: Callable[[int, str], socket.socket] = listen,
        going_down: Callable[[], bool] = lambda: False,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._plan = plan
        self._argv = tuple(argv)
        self._bind = bind
        self._going_down = going_down
        self._pauses_s = tuple(pauses_s)
        self._changed = asyncio.Event()
        self._failures = 0
        self._told: set[int] = set()
        self.starts = 0
        """How often the process was started."""

    def follow(self, values: Values) -> None:
        """Look at the settings again whenever one of them changes."""
        values.subscribe(lambda name, _value: self.look_again() if name.startswith(_VARIABLES) else None)

    def look_again(self) -> None:
        """Look at the settings again."""
        self._changed.set()

    async def run(self) -> None:
        """Open, hold and close, as the settings want it, until cancelled. Whatever fails here is not the device's end."""
        while True:
            try:
                await self._run()
            except Exception:
                log.exception("the HTTP door failed inside the device; opened again in %g s", self._pauses_s[-1])
                await asyncio.sleep(self._pauses_s[-1])

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            plan = self._plan()
            if not plan.open:
                await self._changed.wait()
                continue
            sockets, taken = await asyncio.to_thread(self._open, plan)
            self._tell_taken(taken)
            if sockets == (None, None):
                await self._change(BIND_AGAIN_S)
                continue
            try:
                await self._hold(plan, sockets, whole=not taken)
            finally:
                for one in sockets:
                    if one is not None:
                        one.close()

    def _open(self, plan: Plan) -> tuple[Sockets, dict[int, str]]:
        """Return the sockets, and why a port cannot be had: a wrong number for the one must not take the other away."""
        found: list[socket.socket | None] = [None, None]
        taken: dict[int, str] = {}
        for place, port in enumerate((plan.http_port, plan.terminal_port)):
            try:
                found[place] = self._bind(port, plan.interface) if port else None
            except OSError as error:
                taken[port] = error.strerror or str(error)
        return (found[0], found[1]), taken

    def _tell_taken(self, taken: Mapping[int, str]) -> None:
        for port in taken.keys() - self._told:
            log.error(
                "port %d cannot be opened (%s); check http.server.port and remote_terminal.port", port, taken[port]
            )
        self._told = set(taken)

    async def _change(self, timeout_s: float) -> None:
        """Wait for a changed setting, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def _hold(self, plan: Plan, sockets: Sockets, *, whole: bool) -> None:
        """Hold the sockets until other ones are wanted; if one is missing, only for a while, when nobody is there."""
        while self._plan().sockets == plan.sockets:
            try:
                async with asyncio.timeout(None if whole else MISSING_AGAIN_S):
                    came = await self._somebody(sockets)
            except TimeoutError:
                return
            if not came:
                self._changed.clear()
                await asyncio.sleep(SETTLE_S)
                continue
            if self._going_down():  # nothing is begun any more
                await asyncio.sleep(SETTLE_S)
                continue
            started_s = asyncio.get_running_loop().time()
            status = await self._serve(plan, sockets)
            if not status:
                self._failures = 0
                continue
            long_ago = asyncio.get_running_loop().time() - started_s >= HEALTHY_S
            self._failures = 0 if long_ago else min(self._failures + 1, len(self._pauses_s) - 1)
            pause_s = self._pauses_s[self._failures]
            log.warning("the HTTP door's process ended with status %d; started again in %g s", status, pause_s)
            await self._change(pause_s)

    async def _somebody(self, sockets: Sockets) -> bool:
        """Wait until somebody connects (True) or a setting changes (False)."""
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        held = [one.fileno() for one in sockets if one is not None]
        for fd in held:
            loop.add_reader(fd, came.set)
        waits = [asyncio.ensure_future(event.wait()) for event in (came, self._changed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return not self._changed.is_set()
        finally:
            for fd in held:
                loop.remove_reader(fd)
            for wait in waits:
                wait.cancel()

    async def _settled(self) -> None:
        """Wait until settings have not changed for a moment: whoever sets some in a row is still heard as before."""
        for _ in range(MOST_CHANGES):
            self._changed.clear()
            await asyncio.sleep(SETTLE_S)
            if not self._changed.is_set():
                return
        self._changed.clear()

    # --- the process ------------------------------------------------------------------------------------------------
    async def _serve(self, plan: Plan, sockets: Sockets) -> int:
        """Run the process until it ends or other sockets are wanted; return its exit status."""
        fds = [-1 if one is None else one.fileno() for one in sockets]

        def told() -> bytes:
            return replace(self._plan().config, http_fd=fds[0], terminal_fd=fds[1]).to_line()

        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=tuple(fd for fd in fds if fd >= 0),
                limit=_LINE_BYTES,
                start_new_session=True,
            )
        except OSError as error:
            log.error("the HTTP door's process cannot be started (%s)", error.strerror)
            return 1
        self.starts += 1
        listener = asyncio.create_task(_listen(process))
        ended = asyncio.create_task(process.wait())
        try:
            _tell(process, told())
            while not ended.done():
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait((ended, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self._changed.is_set() and not ended.done():
                    await self._settled()
                    if self._plan().sockets != plan.sockets:
                        return 0
                    _tell(process, told())
            return ended.result()
        finally:
            await _end(process, ended, listener)


def _tell(process: asyncio.subprocess.Process, line: bytes) -> None:
    """Write to the process without waiting: a line is small, and one that takes none is about to end."""
    assert process.stdin is not None
    if not process.stdin.is_closing():
        process.stdin.write(line)


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Task[int], listener: asyncio.Task[None]) -> None:
    """End the process: its input ends, it has a moment for what is under way; then it is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait((ended,), timeout=END_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait((ended, listener), timeout=END_S)
        listener.cancel()
        ended.cancel()
        process._transport.close()  # type: ignore[attr-defined]  # nothing else closes the pipes


async def _listen(process: asyncio.subprocess.Process) -> None:
    """Put what the process says into the log, until it ends."""
    assert process.stderr is not None
    began_s, lines = float("-inf"), 0
    while True:
        try:
            line = await process.stderr.readline()
        except ValueError:
            continue
        if not line:
            return
        now_s = asyncio.get_running_loop().time()
        if now_s - began_s >= LINES_S:
            began_s, lines = now_s, 0
        lines += 1
        if lines <= MAX_LINES:
            log.warning("HTTP door: %s", printable(line.decode(errors="replace").rstrip()))
