"""Asking for a factory reset: the one way that the button, the command and the server take.

Nothing is erased here. The request goes into the boot state, and early user space (`zentrid.early`) carries it out at the
next start, before anything uses the data partition.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from zentrid.core.bootstate import BootState, request_factory_reset
from zentrid.ports import BootStateStore, Power

log = logging.getLogger(__name__)

NOTES_NAME: Final = "factory-reset"
"""Under /run/zentri: what early user space has to tell about the reset that it did or could not do, a sentence a line."""
EVERYTHING_DONE: Final = "factory reset done (everything on data)"
"""How the note of a reset of everything begins."""
UNCLEARED_NAME: Final = "factory-reset-uncleared"
"""Under /run/zentri: the tier of a reset that is done while its request could not be cleared."""
_MAX_NOTES_BYTES: Final = 4096


async def write_request(store: BootStateStore, *, settings_only: bool) -> None:
    """Put the request into the boot state. Raises BootStateWriteError: then nothing was asked for.

    A reset of the settings does not weaken one of everything that is asked for already.
    """

    def change(state: BootState) -> BootState:
        if settings_only and state.factory_reset == 1:
            return state
        return request_factory_reset(state, settings_only=settings_only)

    await asyncio.to_thread(store.update, change)
    log.warning("factory reset asked for (%s)", "settings only" if settings_only else "everything on data")


async def request_reset(store: BootStateStore, power: Power, *, settings_only: bool, why: str) -> None:
    """Ask for a factory reset and restart cleanly, so that it is done. Raises BootStateWriteError: then no restart.

    `why` is for the log. A restart that fails leaves the request standing: the next start carries it out.
    """
    await write_request(store, settings_only=settings_only)
    await power.reboot(f"factory reset: {why}")


def early_notes(folder: Path) -> tuple[str, ...]:
    """Return what early user space has left about a reset at this start; empty: there was none. Never raises."""
    try:
        with (folder / NOTES_NAME).open("rb") as stream:
            text = stream.read(_MAX_NOTES_BYTES).decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(line for line in text.splitlines() if line)
