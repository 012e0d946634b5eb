"""Restarting the board in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from zentrid.core.bootstate import BootStateWriteError, clean_shutdown
from zentrid.ports import BootStateStore

log = logging.getLogger(__name__)

REBOOT_COMMAND: Final = ("/usr/sbin/reboot",)
FORCED_COMMAND: Final = ("/usr/sbin/reboot", "-f")
ORDERLY_TIMEOUT_S: Final = 20.0
COMMAND_TIMEOUT_S: Final = 5.0
BEFORE_TIMEOUT_S: Final = 3.0


class InitPower:
    """Implements the `Power` port with BusyBox init."""

    def __init__(self, store: BootStateStore) -> None:
        self._store = store
        self._overruling: asyncio.Task[None] | None = None
        self.going_down = False
        """A restart was asked for: the watchdog must not be fed any more, it stands behind a shutdown that hangs."""
        self.before: list[Callable[[], Awaitable[None]]] = []
        """What is awaited before init is asked: afterwards the data partition is read-only."""

    async def reboot(self, why: str, *, at_once: bool = False) -> None:
        """Clear `running`, so that the next boot is no exception, and ask init for a restart.

        `at_once`: write out what is in memory and restart without init, which would give every process its seconds.
        A boot state that cannot be written does not keep the board from restarting: it may count one exception too many.
        Init that does not end the system in time is overruled; behind both stands the watchdog.
        """
        if self.going_down:
            return
        self.going_down = True
        log.warning("restarting: %s", why)
        try:
            await asyncio.to_thread(self._store.update, clean_shutdown)
        except BootStateWriteError as error:
            log.error("restarting all the same: %s", error)
        self._overruling = asyncio.create_task(self._overrule(), name="forced restart")
        for step in self.before:
            try:
                async with asyncio.timeout(BEFORE_TIMEOUT_S):
                    await step()
            except Exception as error:
                log.error("restarting all the same: %s", str(error) or type(error).__name__)
        if at_once:
            await asyncio.to_thread(os.sync)
        await self._command(FORCED_COMMAND if at_once else REBOOT_COMMAND)

    def reboot_now(self, why: str) -> None:
        """Do the same for a process that is about to end: blocking, and it returns when init was told or nothing helps."""
        self.going_down = True
        log.warning("restarting: %s", why)
        try:
            self._store.update(clean_shutdown)
        except BootStateWriteError as error:
            log.error("restarting all the same: %s", error)
        for command in (REBOOT_COMMAND, FORCED_COMMAND):
            try:
                if subprocess.run(command, timeout=ORDERLY_TIMEOUT_S, check=False).returncode == 0:
                    return
            except (OSError, subprocess.SubprocessError) as error:
                log.error("%s: %s", " ".join(command), error)

    async def _overrule(self) -> None:
        await asyncio.sleep(ORDERLY_TIMEOUT_S)
        await self._command(FORCED_COMMAND)

    @staticmethod
    async def _command(command: Sequence[str]) -> None:
        try:
            process = await asyncio.create_subprocess_exec(*command)
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await process.wait()  # it has told init when it ends
        except OSError as error:
            log.error("%s cannot be started: %s", " ".join(command), error)
