"""Explains the resets that the boot script counted: once at each start of the supervisor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from zentrid.core.bootstate import BootState, BootStateLostError, BootStateWriteError, Fault
from zentrid.core.postmortem import Explained, Words, complete, examine, explain, unexplained
from zentrid.ports import BootStateStore, SlotInspector

log = logging.getLogger(__name__)

Sink = Callable[[Explained], Awaitable[None]]
"""Told of each fault that was explained, oldest first. It is counted already, or must not be: it is to be reported only."""


class LastWords(Protocol):
    """What the kernel left over a reset."""

    def read(self) -> Sequence[Words]:
        """Return what is there, newest first. Never raises."""

    def clear(self) -> None:
        """Delete it. Never raises."""


async def explain_resets(
    store: BootStateStore, pstore: LastWords, slots: SlotInspector, sink: Sink, *, warm: bool
) -> tuple[Explained, ...]:
    """Complete the boot script's records of cause `reset`, tell `sink`, then delete the kernel's words; return what was told.

    `warm`: this boot began without the power having been cut. Never raises for the boot state: if it cannot be written,
    nothing is told and nothing deleted, so that the next start of the supervisor explains.
    """
    explained = await asyncio.to_thread(_write, store, pstore, slots, warm)
    if explained is None:
        return ()
    for one in explained:
        log.warning("a reset is explained: %s in slot %s: %s", one.fault.cause, one.fault.slot, one.fault.detail)
        try:
            await sink(one)
        except Exception:  # whatever the reporting is: the record is kept, and the device has to start
            log.exception("a fault could not be reported")
    await asyncio.to_thread(pstore.clear)
    return explained


def _unrecorded(words: Sequence[Words]) -> tuple[Explained, ...]:
    """Return panics that left no record: of the safe-mode system, or of a release on trial beside seven older faults."""
    found = examine([one for one in words if not one.is_console], warm=False, resets=0)
    return tuple(Explained(Fault(f.cause, "?", "?", f.uptime_s, f.utc, f.detail), f.text) for f in found)


def _write(store: BootStateStore, pstore: LastWords, slots: SlotInspector, warm: bool) -> tuple[Explained, ...] | None:
    """Return what was explained, written down already; None if it could not be written."""
    try:
        before = store.read()
    except BootStateLostError:
        return ()
    count = unexplained(before)
    if not count:
        return _unrecorded(pstore.read())
    found = examine(pstore.read(), warm=warm, resets=count)
    versions: dict[str, str] = {info.slot: info.version or "?" for info in slots.slots()}

    def change(state: BootState) -> BootState:
        return complete(state, found, versions)

    try:
        store.update(change)
    except BootStateWriteError as error:
        log.error("resets cannot be explained now: %s", error)
        return None
    return explain(before, found, versions)[1]
