"""Restarting the board in good order."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from zentrid.core.bootstate import BootStateWriteError, clean_shutdown
from zentrid.ports import BootStateStore

log = logging.getLogger(__name__)

REBOOT_COMMAND: Final = ("/usr/sbin/reboot",)
FORCED_COMMAND: Final = ("/usr/sbin/reboot", "-f")
ORDERLY_TIMEOUT_S: Final = 20.0


class InitPower:
    """Implements the `Power` port with BusyBox init."""

    def __init__(self, store: BootStateStore) -> None:
        self._store = store
        self._going_down = False

    async def reboot(self, why: str) -> None:
        """Clear `running`, so that the next boot is no exception, and ask init for a restart.

        A boot state that cannot be written does not keep the board from restarting: it may count one exception too many.
        Init that does not end the system in time is overruled; behind both stands the watchdog.
        """
        if self._going_down:
            return
        self._going_down = True
        log.warning("restarting: %s", why)
        try:
            await asyncio.to_thread(self._store.update, clean_shutdown)
        except BootStateWriteError as error:
            log.error("restarting all the same: %s", error)
        await asyncio.create_subprocess_exec(*REBOOT_COMMAND)
        asyncio.get_running_loop().call_later(ORDERLY_TIMEOUT_S, lambda: asyncio.ensure_future(self._force()))

    @staticmethod
    async def _force() -> None:
        await asyncio.create_subprocess_exec(*FORCED_COMMAND)
