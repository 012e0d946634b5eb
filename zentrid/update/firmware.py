"""Firmware: filling the other slot and activating it.

The order that must never change: the target loses its tries before its first write; it gets them back only after everything
was read back; the journal says what is about to happen before it happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from zentrid.bundle.manifest import Manifest
from zentrid.core import bootstate
from zentrid.core.events import SlotChanged
from zentrid.core.names import SAFE_SLOT
from zentrid.core.update import Event, State, choose_target
from zentrid.ports import UpdateProgress
from zentrid.update.attempt import Attempt
from zentrid.update.errors import Result, UpdateRefusedError
from zentrid.update.files import InstallFiles
from zentrid.update.filling import Filling
from zentrid.update.itemset import ItemUpdates
from zentrid.update.journal import FIRMWARE
from zentrid.update.ledger import Ledger
from zentrid.update.link import Parts, WorkerLink
from zentrid.update.origin import Origin

log = logging.getLogger(__name__)


class Firmware:
    """Installs a release that holds kernel and root file system."""

    def __init__(self, parts: Parts, link: WorkerLink, ledger: Ledger, items: ItemUpdates) -> None:
        self._parts = parts
        self._items = items
        self._link = link
        self._ledger = ledger

    async def install(
        self, manifest: Manifest, origin: Origin, attempt: Attempt
    ) -> AsyncGenerator[UpdateProgress, None]:
        """Fill the slot and activate it; yields news, the last with `done`. Raises UpdateError, OSError."""
        parts = self._parts
        target = choose_target(await self._ledger.boot(), parts.slots.running)
        budget_bytes = 0 if attempt.unlimited or not origin.online else parts.budget_bytes()
        async with InstallFiles(
            parts.slots, target, manifest, verify_fit=parts.verify_fit, budget_bytes=budget_bytes
        ) as files:
            floor = str(manifest.boot_floor) if manifest.boot_floor else ""
            steps = self._ledger.entry.steps + 1 if attempt.goal else 0
            await self._ledger.enter(
                Event.ADMITTED, scope=FIRMWARE, target=target, to_version=str(manifest.version), boot_floor=floor,
                then=attempt.goal, steps=steps,
            )  # fmt: skip
            await asyncio.to_thread(parts.boot_state.update, lambda state: bootstate.prepare_target(state, target))
            parts.tell(SlotChanged(target, "emptied", ""))
            attempt.heed_cancel()
            async with self._items.incoming(manifest, target) as incoming:
                spec = replace(files.spec, items=(*files.spec.items, *incoming.specs), unpack=incoming.unpack)
                begun = (self._ledger.begun_report(),) if origin.online and parts.report_progress else ()
                fds = (*files.fds, *incoming.fds)
                filling = Filling(self._link, spec, fds, origin, files.read_back, begun)
                label = f"{manifest.product}-{manifest.version}"
                async with aclosing(filling.run(attempt, label)) as news_of_it:
                    async for news in news_of_it:
                        yield news
                await incoming.adopt()
        # Nothing boots the target yet, so its set may be put in its place.
        await self._items.put(target, manifest)
        if self._ledger.entry.state is State.DOWNLOADING:
            await self._ledger.enter(Event.WRITTEN)
        await attempt.race(self._ask_post_install(manifest))
        yield await self._activate(manifest, attempt)

    async def _ask_post_install(self, manifest: Manifest) -> None:
        objection = await self._parts.post_install(manifest)
        if objection:
            raise UpdateRefusedError("hook", f"release {manifest.version} is verified, but must not start: {objection}")

    async def _activate(self, manifest: Manifest, attempt: Attempt) -> UpdateProgress:
        attempt.heed_cancel()
        attempt.committed = True
        entry = await self._ledger.enter(Event.VERIFIED)
        in_safe_mode = self._parts.slots.running == SAFE_SLOT
        await asyncio.to_thread(
            self._parts.boot_state.update,
            lambda state: bootstate.activate(state, entry.target, from_safe_mode=in_safe_mode),
        )
        try:
            await self._ledger.enter(Event.ACTIVATED, result=int(Result.UPDATED))
        except OSError as error:
            # It is done: the boot state counts. The next start settles what the journal says from there.
            log.error("update: activated, but the journal cannot say so (%s)", error.strerror)
            self._ledger.remember(state=State.REBOOTING, result=int(Result.UPDATED))
        attempt.percent = 100
        self._parts.tell(SlotChanged(entry.target, "activated", str(manifest.version)))
        await self._ledger.note_step("activated", f"release {manifest.version} is verified and waits for a restart")
        goes_on = f" After the restart it goes on to {attempt.goal}." if attempt.goal else ""
        return attempt.news(f"Updated to {manifest.product}-{manifest.version}.{goes_on}", done=True, reboot=True)
