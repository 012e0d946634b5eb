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
READ_BYTES: Final = 16 * 1024
"""So much of the output is looked at in one go."""
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
        output_read, output_write = _make_pipe()
        try:
            status_read, status_write = _make_pipe()
        except StartError:
            os.close(output_read)
            os.close(output_write)
            raise
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", CHILD, _order(launch, cage, status_write),
                stdin=asyncio.subprocess.DEVNULL, stdout=output_write, stderr=output_write, pass_fds=(status_write,),
                env=dict(launch.environment), cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(output_read)
            os.close(status_read)
            raise _no_room(error) from error
        finally:
            os.close(output_write)
            os.close(status_write)
        return await AppProcess._begin(launch.name, process, cage, (output_read, status_read), keep)

    @staticmethod
    async def _begin(
        name: str,
        process: asyncio.subprocess.Process,
        cage: Cage,
        fds: tuple[int, int],
        keep: Callable[[Sequence[str]], None],
    ) -> AppProcess:
        """Wait until the child has become the application. Nobody reads its output before: first comes that it runs."""
        output_fd, status_fd = fds
        try:
            answer = await _answer(status_fd)
        except OSError as error:
            answer = _no_room(error)
        except BaseException:
            await AppProcess(name, process, cage, output_fd, keep).end(0)
            raise
        made = AppProcess(name, process, cage, output_fd, keep)
        if answer is not None:
            await made.end(0)
            raise answer
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
                since_s = time.monotonic()
                self._keep(self.output.feed(data, since_s))
                # Half of the time at most: what else the supervisor does comes between.
                took_s = time.monotonic() - since_s
                await asyncio.sleep(max(took_s, FLOOD_PAUSE_S) if self.output.flooded else took_s)
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


def _no_room(error: OSError) -> StartError:
    return StartError(CANNOT_RUN, f"the device has no room for another process ({error.strerror})")


def _make_pipe() -> tuple[int, int]:
    """Return both ends of a new pipe. Raises StartError."""
    try:
        return os.pipe()
    except OSError as error:
        raise _no_room(error) from error


async def _open_pipe(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Read from `fd`, which is closed with the transport, or now. Raises OSError."""
    reader = asyncio.StreamReader(READ_BYTES)
    file = os.fdopen(fd, "rb", 0)
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
    except BaseException:
        file.close()
        raise
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
