"""Supervises the boot application: starts it, starts it again with growing delays, tells of its ends, ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from zentrid.adapters.apphold import HoldMark
from zentrid.adapters.applaunch import prepare
from zentrid.adapters.appprocess import AppProcess, StartError
from zentrid.adapters.cgroup import Cage, Cgroup
from zentrid.adapters.packages import list_packages
from zentrid.adapters.ringfile import RingFile
from zentrid.core.apps import (
    CANNOT_RUN,
    AppError,
    AppInfo,
    AppLimits,
    Backoff,
    Ending,
    again_in,
    parse_command,
)
from zentrid.ports import AppExit, Frame

log = logging.getLogger(__name__)

FOLDERS: Final = (Path("/data/zentri/apps"), Path("/usr/share/zentri/apps"))
"""Where packages are besides those of bundles (`adapters.items`); the first one that has a name wins."""
HOME: Final = Path("/data/zentri/appdata")
LOG_PATH: Final = Path("/data/zentri/log/app.log")
HOLD: Final = Path("/run/zentrid/app-held")
"""Lasts as long as the board runs: it tells the next supervisor of `app stop`."""
ACCOUNT: Final = "zentri-app"
STOP_TIMEOUT_S: Final = 5.0
WRITE_EVERY_S: Final = 2.0
SETTLE_S: Final = 0.5
"""When the board goes down its processes are told in no certain order: an end is judged after so long."""
ANSWER_TIMEOUT_S: Final = 45.0

TakeCrash = Callable[[int], tuple[int, tuple[Frame, ...]] | None]


class AppRunner:
    """The one boot application. `follow` says which; `run` keeps it running until `stop`."""

    def __init__(
        self,
        folders: Sequence[Path],
        ring: RingFile,
        limits: Callable[[], AppLimits],
        on_exit: Callable[[AppExit], Awaitable[None]],
        take_crash: TakeCrash,
        *,
        cage: Cage | None = None,
        account: str | None = ACCOUNT,
        home: Path = HOME,
        hold: Path = HOLD,
        going_down: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take the folders with packages, the log, the limits for the next start, and who hears of ends and keeps cores.

        `account` None: run as the supervisor's own user. `going_down`: the board is being restarted, so no end counts.
        `hold`: the file that keeps `app stop` over a restart of the supervisor.
        """
        self._folders = tuple(folders)
        self._ring = ring
        self._limits = limits
        self._on_exit = on_exit
        self._take_crash = take_crash
        self._cage: Cage = cage or Cgroup()
        self._account = account
        self._home = home
        self._mark = HoldMark(hold)
        self._going_down = going_down
        self._setting = ""
        self._held = False
        self._closing = False
        self._state = "stopped"
        self._problem = ""
        self._backoff = Backoff()
        self._restarts = 0
        self._lived = False
        self._told_failure = False
        self._process: AppProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._asked = 0
        self._answered = 0
        self._news = asyncio.Event()
        self._stop_timeout_s = STOP_TIMEOUT_S

    # --- what is wanted ---------------------------------------------------------------------------------------------
    def follow(self, command: str) -> None:
        """Adopt `system.boot.app`; the same command again changes nothing, another one takes the place of the old."""
        if command == self._setting:
            return
        first = self._task is None and not self._setting
        self._setting = command
        if first and self._mark.holds(command):  # by the supervisor before this one
            self._held = True
            return
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._mark.lift()
        self._held = self._lived = self._told_failure = False
        self._backoff, self._restarts, self._problem = Backoff(), 0, ""
        if self._task is not None:
            self._state = "starting"  # what ran until now is another one already
        self._ask()

    def _ask(self) -> int:
        """Wake the loop; return the number that `_answered` reaches when it has done what is wanted now."""
        self._asked += 1
        self._changed.set()
        return self._asked

    async def start(self) -> str:
        """Start it now, if it does not run; return a sentence. Raises AppError with what keeps it from running."""
        self._must_supervise()
        if self._state != "running":
            if self._state != "starting":
                self._begin_anew()
            await self._until_answered(self._asked)
        return self._result()

    async def restart(self) -> str:
        """End it and start it anew; return a sentence. Raises AppError."""
        self._must_supervise()
        self._begin_anew()
        await self._until_answered(self._asked)
        return self._result()

    async def stop_by_hand(self) -> str:
        """End it until `start`, another setting or a restart of the board; return a sentence. Raises AppError."""
        self._must_supervise()
        self._held = True
        self._mark.set(self._setting)
        await self._until_answered(self._ask())
        return f"{self.name} is stopped; 'app start' or a restart of the device starts it."

    def _must_supervise(self) -> None:
        if self._task is None or self._closing:
            raise AppError("The boot application is not supervised now: the device is in safe mode or going down.")
        if not self._setting.strip():
            raise AppError("No boot application is set; 'set system.boot.app <name>' sets one.")

    async def _until_answered(self, number: int) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while self._answered < number:
                    await self._news.wait()
        except TimeoutError:
            raise AppError(f"{self.name} did not do so in time; 'app list' shows its state.") from None

    def _result(self) -> str:
        if self.problem is not None:
            raise AppError(self.problem[0].upper() + self.problem[1:] + ".")
        return f"{self.name} runs, process {self._process.pid}." if self._process else f"{self.name} was replaced."

    # --- what is --------------------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """What the boot application is called; empty: none is set."""
        try:
            command = parse_command(self._setting)
        except AppError:
            return self._setting.split()[0][:32]
        return "" if command is None else command.name

    @property
    def stopped_by_hand(self) -> bool:
        """Tell whether somebody has stopped it and not started it again: no reason to call the boot unhealthy."""
        return bool(self._held)

    @property
    def problem(self) -> str | None:
        """One sentence on why the boot application is not up; None: it is, or none is set."""
        if not self._setting.strip() or self._state == "running":
            return None
        if self._held:
            return f"the boot application {self.name} was stopped by hand; 'app start' starts it"
        return self._problem or f"the boot application {self.name} is being started"

    def list(self) -> Sequence[AppInfo]:
        """Return the packages by name, and the boot application even if it is none; blocking."""
        name, process = self.name, self._process if self._state == "running" else None
        found = {info.name: info for info in list_packages(self._folders)}
        if name:
            other = AppInfo(name, "-", "off", description=self._setting if self._setting.startswith("/") else "")
            known = other if self._setting.lstrip().startswith("/") else found.get(name, other)
            found[name] = AppInfo(
                name, known.version, self._state, boot=True, pid=process.pid if process else None,
                since_s=process.uptime_s if process else None, restarts=self._restarts, description=known.description,
                source=known.source,
            )  # fmt: skip
        return [found[key] for key in sorted(found)]

    def log_lines(self, count: int) -> Sequence[str]:
        """Return the last lines of the application's log, oldest first; blocking."""
        return self._ring.tail(count)

    # --- the loop -------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Keep the boot application running until cancelled; afterwards nothing of it is left."""
        self._task = asyncio.current_task()
        writer = asyncio.create_task(self._write_log(), name="application log")
        try:
            await asyncio.to_thread(self._cage.kill)  # what a supervisor left that was killed
            while True:
                await self._step()
        finally:
            self._closing = True
            await self._end_process()
            self._task = None
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await asyncio.to_thread(self._ring.flush)

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the application for good: SIGTERM for everything of it, after `timeout_s` SIGKILL. `run` goes on idle.

        May be called by whoever hears of an exit.
        """
        self._closing, self._stop_timeout_s = True, timeout_s
        number = self._ask()
        if self._task is not None and self._state in ("running", "starting"):
            with suppress(AppError):
                await self._until_answered(number)
        await asyncio.to_thread(self._ring.flush)

    async def _step(self) -> None:
        """Do what is wanted now, until something else is wanted or the application has ended."""
        self._changed.clear()
        number = self._asked
        if self._held or self._closing or not self._setting.strip():
            self._settle("stopped", number)
            await self._changed.wait()
            return
        self._state, self._problem = "starting", ""
        name = self.name
        try:
            limits = self._limits()
            launch = await asyncio.to_thread(
                prepare, self._setting, self._folders, limits, self._cage, account=self._account, home=self._home
            )
            process = await AppProcess.start(launch, self._cage, lambda lines: self._ring.add("app", lines))
        except StartError as error:
            await self._cannot_start(name, error, number)
            return
        except OSError as error:  # whatever the system refuses must not end the supervisor
            await self._cannot_start(name, StartError(CANNOT_RUN, f"the device refuses it ({error})"), number)
            return
        self._process = process
        self._told_failure = False
        self._restarts += self._lived
        self._lived = True
        self._note(f"{name} started, process {process.pid}")
        self._settle("running", number)
        await self._live(name, process, limits)

    async def _live(self, name: str, process: AppProcess, limits: AppLimits) -> None:
        ended = asyncio.create_task(process.wait())
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({ended, changed}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._end_process()
                return
        finally:
            changed.cancel()
            ended.cancel()
            await asyncio.gather(changed, ended, return_exceptions=True)
        uptime_s = process.uptime_s
        self._process, self._state = None, "waiting"
        await self._judge(name, process, ended.result(), uptime_s, limits)

    async def _judge(self, name: str, process: AppProcess, status: int, uptime_s: float, limits: AppLimits) -> None:
        """Tell of an end, and wait for the next start."""
        out_of_memory = await asyncio.to_thread(self._cage.ran_out_of_memory)
        ending = Ending.of(status, out_of_memory_mib=limits.memory_mib if out_of_memory and status < 0 else None)
        self._backoff, delay_s = self._backoff.after(uptime_s)
        sentence = ending.sentence(name)
        self._problem = sentence + again_in(delay_s)
        self._note(self._problem)
        await asyncio.to_thread(self._ring.flush)
        await asyncio.sleep(SETTLE_S)
        if self._closing or self._going_down():
            await self._changed.wait()
            return
        frames = await self._frames(process.pid) if ending.leaves_core else ()
        await self._report(
            AppExit(name, ending.exit_code, ending.signal, uptime_s, frames, process.output.tail, sentence)
        )
        await self._wait(delay_s)

    async def _cannot_start(self, name: str, error: StartError, number: int) -> None:
        sentence = f"the boot application {name} cannot be started: {error}"
        self._backoff, delay_s = self._backoff.after(0)
        self._problem = f"{sentence}; tried again in {delay_s:g} s"
        first, self._told_failure = not self._told_failure, True
        self._settle("waiting", number)
        if first:
            self._note(sentence)
            await self._report(AppExit(name, error.exit_code, None, 0.0, (), "", sentence))
        await self._wait(delay_s)

    async def _wait(self, delay_s: float) -> None:
        """Wait, but no longer than until something else is wanted."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._changed.wait()

    def _settle(self, state: str, number: int) -> None:
        self._state, self._answered = state, max(self._answered, number)
        self._news.set()
        self._news = asyncio.Event()

    async def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        await process.end(self._stop_timeout_s)
        self._process, self._state = None, "stopped"
        self._note(f"{process.name}, process {process.pid}, was stopped")

    async def _frames(self, pid: int) -> tuple[Frame, ...]:
        """Return the frames of a process that a signal ended; the kernel let it end when they were written. None is fine."""
        crash = await asyncio.to_thread(self._take_crash, pid)
        return () if crash is None else crash[1]

    async def _report(self, end: AppExit) -> None:
        try:
            await self._on_exit(end)
        except Exception:
            log.exception("the end of %s could not be reported", end.name)

    def _note(self, text: str) -> None:
        log.info("%s", text)
        self._ring.add("zentrid", [text])

    async def _write_log(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            if self._ring.pending:
                await asyncio.to_thread(self._ring.flush)
