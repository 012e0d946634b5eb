"""One life of the boot application: started confined, its output read, ended with everything that it started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zentrid
from zentrid.adapters.cgroup import Cage
from zentrid.core.applog import WINDOW_S, OutputLines
from zentrid.core.apps import CANNOT_RUN, AppError

CHILD: Final = Path(zentrid.__file__).parent / "appchild.py"
START_TIMEOUT_S: Final = 30.0
DRAIN_TIMEOUT_S: Final = 1.0
KILL_TIMEOUT_S: Final = 5.0
FLOOD_PAUSE_S: Final = 0.02
"""Between two reads in a flood, so that reading it away costs little."""
READ_BYTES: Final = 64 * 1024
_MAX_ANSWER_BYTES: Final = 4096
_STEP_S: Final = 0.05


class StartError(AppError):
    """The application cannot be started; `exit_code` is 126 or 127."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Launch:
    """All that is needed to start an application."""

    name: str
    argv: tuple[str, ...]
    """The first one is an absolute path."""
    environment: Mapping[str, str]
    directory: Path
    """Its working directory."""
    ids: tuple[int, int] | None
    """User and group; None: the supervisor's own."""
    files: int
    """The most open files."""


class AppProcess:
    """A running application, and what it printed."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        cage: Cage,
        output_fd: int,
        keep: Callable[[Sequence[str]], None],
    ) -> None:
        self.name = name
        self._process = process
        self._cage = cage
        self._keep = keep
        self.output = OutputLines()
        self.started_s = time.monotonic()
        self._pump = asyncio.create_task(self._read_output(output_fd), name="application output")

    @staticmethod
    async def start(launch: Launch, cage: Cage, keep: Callable[[Sequence[str]], None]) -> AppProcess:
        """Start it; `keep` gets the lines of its output that are kept. Raises StartError; nothing runs then."""
        output_read, output_write = os.pipe()
        status_read, status_write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", CHILD, _order(launch, cage, status_write),
                stdin=asyncio.subprocess.DEVNULL, stdout=output_write, stderr=output_write, pass_fds=(status_write,),
                env=dict(launch.environment), cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(output_read)
            os.close(status_read)
            raise StartError(CANNOT_RUN, f"the device has no room for another process ({error.strerror})") from error
        finally:
            os.close(output_write)
            os.close(status_write)
        made = AppProcess(launch.name, process, cage, output_read, keep)
        try:
            answer = await _answer(status_read)
        except BaseException:
            await made.end(0)
            raise
        if answer is not None:
            await made.end(0)
            raise answer
        made.started_s = time.monotonic()
        return made

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def uptime_s(self) -> float:
        """So long it has been running."""
        return time.monotonic() - self.started_s

    async def wait(self) -> int:
        """Wait for its end, then end what it left behind; return the status, negative for a signal."""
        status = await self._process.wait()
        await self._clear()
        return status

    async def end(self, timeout_s: float) -> None:
        """Ask everything to end, and after `timeout_s` end it."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        await asyncio.to_thread(self._cage.terminate)
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            if self._process.returncode is not None and not await asyncio.to_thread(self._cage.occupied):
                break
            await asyncio.sleep(_STEP_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await self._process.wait()

    async def _clear(self) -> None:
        await asyncio.to_thread(self._cage.kill)
        # Whoever still holds the pipe is not ours.
        await asyncio.wait({self._pump}, timeout=DRAIN_TIMEOUT_S)
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)

    async def _read_output(self, fd: int) -> None:
        reader, transport = await _open_pipe(fd)
        try:
            while True:
                try:
                    async with asyncio.timeout(WINDOW_S):
                        data = await reader.read(READ_BYTES)
                except TimeoutError:
                    self._keep(self.output.settle(time.monotonic()))
                    continue
                if not data:
                    return
                self._keep(self.output.feed(data, time.monotonic()))
                if self.output.flooded:
                    await asyncio.sleep(FLOOD_PAUSE_S)
        finally:
            self._keep(self.output.end(time.monotonic()))
            transport.close()


def _order(launch: Launch, cage: Cage, status_fd: int) -> str:
    uid, gid = launch.ids or (None, None)
    join = cage.join_path
    return json.dumps(
        {
            "argv": launch.argv, "directory": str(launch.directory), "files": launch.files, "parent": os.getpid(),
            "status_fd": status_fd, "join": None if join is None else str(join), "uid": uid, "gid": gid,
        }
    )  # fmt: skip


async def _open_pipe(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(READ_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    return reader, transport


async def _answer(fd: int) -> StartError | None:
    """Read what the child says before it becomes the application; None: it has become it."""
    reader, transport = await _open_pipe(fd)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            said = await reader.read(_MAX_ANSWER_BYTES)
        if not said:
            return None
        code, reason = json.loads(said)
        return StartError(int(code), str(reason))
    except TimeoutError:
        return StartError(CANNOT_RUN, f"it was not started within {START_TIMEOUT_S:g} s")
    except ValueError:
        return StartError(CANNOT_RUN, "its start failed in an unknown way")
    finally:
        transport.close()
