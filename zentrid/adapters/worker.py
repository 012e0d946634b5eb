"""Starts the update worker as a child process and reads what it says; kills it when it is silent for too long."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from zentrid.update.errors import WorkerDiedError, printable
from zentrid.update.protocol import MAX_LINE_BYTES, Answer, Message, Request, parse_line

log = logging.getLogger(__name__)

WORKER_ARGV: Final = (sys.executable, "-m", "zentrid.update.worker")
_KEPT_LINES: Final = 20
_STDERR_LINE_BYTES: Final = 1000
_END_S: Final = 2.0
_LOOK_S: Final = 0.01


class SubprocessRun:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, silence_s: float) -> None:
        self._process = process
        self._silence_s = silence_s
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listener = asyncio.create_task(self._listen(), name="update worker log")

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the worker says, an Answer last. Raises the UpdateError that it failed with, or WorkerDiedError."""
        assert self._process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                self.stop()
                raise WorkerDiedError(
                    f"the update worker was silent for {self._silence_s:g} s and was stopped"
                ) from None
            except ValueError:
                self.stop()
                raise WorkerDiedError("the update worker said a line that is too long and was stopped") from None
            if not line:
                status = await self._exited()
                raise WorkerDiedError(f"the update worker ended without an answer (status {status}); see the log")
            message = parse_line(line)
            yield message
            if isinstance(message, Answer):
                return

    def stop(self) -> None:
        """End the worker at once; `messages` then raises WorkerDiedError."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End the worker if it still runs, and wait for it; nothing that it started outlives it or is waited for."""
        try:
            # One that has given its answer ends by itself.
            async with asyncio.timeout(_END_S):
                await self._exited()
        except TimeoutError:
            self.stop()
        await self._exited()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.wait({self._listener}, timeout=_END_S)
        if not self._listener.done():
            self._said.append("something that it has started holds its pipes")
            self._listener.cancel()
        self._process._transport.close()  # type: ignore[attr-defined]  # nothing else closes the pipes
        if self._said:
            log.warning("update worker: %s", "\n".join(self._said))

    async def _exited(self) -> int:
        """Wait for the process alone, and return its status: `Process.wait` waits for its pipes too, which others may hold."""
        while (status := self._process.returncode) is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_LOOK_S)
        return status

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            self._said.append(printable(line.decode(errors="replace").rstrip(), _STDERR_LINE_BYTES))


class SubprocessLauncher:
    """The production worker launcher."""

    def __init__(self, argv: Sequence[str] = WORKER_ARGV, environment: Mapping[str, str] | None = None) -> None:
        """Take the command that starts a worker and what is added to its environment."""
        self._argv = tuple(argv)
        self._environment = dict(environment or {})

    async def start(self, request: Request, fds: Sequence[int], silence_s: float) -> SubprocessRun:
        """Start a worker that inherits `fds` under the same numbers. Raises WorkerDiedError."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=tuple(fds),
                limit=MAX_LINE_BYTES,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerDiedError(f"the update worker cannot be started ({error.strerror})") from error
        run = SubprocessRun(process, silence_s)
        assert process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(request.to_bytes())
            await process.stdin.drain()
            process.stdin.close()
        return run
