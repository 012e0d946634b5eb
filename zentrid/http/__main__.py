"""`python3 -m zentrid.http`: the HTTP door's process.

It reads a line of JSON from standard input (see `config`) and another whenever a setting changes, serves on sockets that it
inherits, and ends with its input or when nobody has come for a while. The supervisor holds the same sockets and starts it
again with the next connection. It has no rights but to speak the command language over the daemon's local socket, and a
fault in it is none of the device's: what strangers can make fail must not lead to safe mode.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Final

from aiohttp import web

from zentrid.adapters.rights import become, user_to_become
from zentrid.core.httpapi import MAX_REQUEST_BYTES
from zentrid.http.config import MAX_CONFIG_BYTES, Config, config_from_line
from zentrid.http.gate import HttpGates, Listener
from zentrid.http.site import KEEPALIVE_S, Site
from zentrid.http.terminal import TcpTerminal

MAX_ADDRESS_SPACE_BYTES: Final = 384 * 1024 * 1024
MAX_OPEN_FILES: Final = 160
THREADS: Final = 2
END_S: Final = 3.0
NICENESS: Final = 5
OOM_SCORE: Final = 500
"""If memory runs out, this process goes first."""
_LOOK_S: Final = 1.0


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return the context with the device's certificate; None without TLS. Raises OSError (ssl.SSLError is one)."""
    if not config.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.certificate, config.key)
    return context


class Door:
    """What the process serves."""

    def __init__(self, config: Config, tls: ssl.SSLContext | None) -> None:
        self._config = config
        self._tls = tls
        self._site = Site(config, secure=tls is not None, tell=_tell)
        self._listeners: list[Listener] = []

    async def serve(self, stdin: asyncio.StreamReader) -> None:
        """Serve until the input ends or nobody has come for a while."""
        runner = web.AppRunner(
            self._site.application(), access_log=None, handle_signals=False, handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S, auto_decompress=False, lingering_time=1.0,
            max_line_size=MAX_REQUEST_BYTES, max_field_size=MAX_REQUEST_BYTES, shutdown_timeout=END_S,
        )  # fmt: skip
        await runner.setup()
        try:
            assert runner.server is not None
            self._open(runner.server)
            running = [asyncio.create_task(listener.run()) for listener in self._listeners]
            ends = [asyncio.create_task(self._follow(stdin)), asyncio.create_task(self._idle())]
            done, _ = await asyncio.wait((*ends, *running), return_when=asyncio.FIRST_COMPLETED)
            for task in (*ends, *running):
                task.cancel()
            await asyncio.gather(*ends, *running, return_exceptions=True)
            self._site.sockets.close_all()
            if self._site.gates is not None:
                self._site.gates.close_idle()
            await asyncio.gather(*(listener.stop(END_S) for listener in self._listeners))
            for task in done:
                task.result()  # what failed inside must not look like an idle end
        finally:
            await runner.cleanup()

    def _open(self, server: web.Server) -> None:
        if self._config.http_fd >= 0:
            self._site.gates = HttpGates(server, self._tls, self._config.request_s)
            self._listeners.append(Listener(socket.socket(fileno=self._config.http_fd), self._site.gates.serve))
        if self._config.terminal_fd >= 0:
            terminal = TcpTerminal(self._site.access, self._site.sockets, self._site.links)
            self._listeners.append(Listener(socket.socket(fileno=self._config.terminal_fd), terminal.serve))

    async def _follow(self, stdin: asyncio.StreamReader) -> None:
        while line := await stdin.readline():
            self._site.set(config_from_line(line))

    async def _idle(self) -> None:
        """Return when nobody has come for long enough and nothing has to be remembered."""
        quiet_s = 0.0
        while quiet_s < self._config.idle_s:
            await asyncio.sleep(_LOOK_S)
            busy = any(listener.busy for listener in self._listeners)
            quiet_s = 0.0 if busy or not self._site.access.quiet() else quiet_s + _LOOK_S


def _tell(sentence: str) -> None:
    """Say something that the supervisor puts into the device's log."""
    with suppress(OSError):
        sys.stderr.write(sentence + "\n")
        sys.stderr.flush()


def give_up_rights(config: Config) -> None:
    """Become a user that may do nothing but connect to the command line. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, MAX_ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    user = user_to_become(config.user)
    if user is not None:
        become(user)


def waiting_threads() -> ThreadPoolExecutor:
    """Return threads that run already: none can be started once the rights are gone."""
    pool = ThreadPoolExecutor(THREADS)
    met = Barrier(THREADS)
    for waiting in [pool.submit(met.wait) for _ in range(THREADS)]:
        waiting.result()
    return pool


async def _run() -> None:
    stdin = asyncio.StreamReader(limit=MAX_CONFIG_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    config = config_from_line(await stdin.readline())
    tls = tls_context(config)
    asyncio.get_running_loop().set_default_executor(waiting_threads())
    give_up_rights(config)
    # What strangers send is no news; its text would fill the pipe that a real failure needs.
    logging.disable()
    await Door(config, tls).serve(stdin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_run())
