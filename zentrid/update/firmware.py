"""Firmware: filling the other slot and activating it.

The order that must never change: the target loses its tries before its first write; it gets them back only after everything
was read back; the journal says what is about to happen before it happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from zentrid.bundle.manifest import Manifest
from zentrid.core import bootstate
from zentrid.core.names import SAFE_SLOT
from zentrid.core.update import Event, State, choose_target
from zentrid.ports import UpdateProgress
from zentrid.update.attempt import Attempt
from zentrid.update.errors import Result
from zentrid.update.files import InstallFiles
from zentrid.update.ledger import Ledger
from zentrid.update.link import Parts, WorkerLink
from zentrid.update.protocol import Answer, Progress

log = logging.getLogger(__name__)


class Firmware:
    """Installs a release that holds kernel and root file system."""

    def __init__(self, parts: Parts, link: WorkerLink, ledger: Ledger) -> None:
        self._parts = parts
        self._link = link
        self._ledger = ledger

    async def install(
        self, manifest: Manifest, bundle_fd: int | None, attempt: Attempt
    ) -> AsyncGenerator[UpdateProgress, None]:
        """Fill the slot and activate it; yields news, the last with `done`. Raises UpdateError, OSError."""
        parts = self._parts
        target = choose_target(await self._ledger.boot(), parts.slots.running)
        async with InstallFiles(parts.slots, target, manifest, verify_fit=parts.verify_fit) as files:
            floor = str(manifest.boot_floor) if manifest.boot_floor else ""
            await self._ledger.enter(Event.ADMITTED, target=target, to_version=str(manifest.version), boot_floor=floor)
            await asyncio.to_thread(parts.boot_state.update, lambda state: bootstate.prepare_target(state, target))
            attempt.heed_cancel()
            fds = files.fds if bundle_fd is None else (*files.fds, bundle_fd)
            request = self._link.request("install", install=files.spec, bundle_fd=bundle_fd)
            run = await parts.launcher.start(request, fds, self._link.install_silence_s)
            try:
                attempt.started(run)
                async for message in run.messages():
                    if isinstance(message, Progress):
                        await attempt.follow(message)
                        yield attempt.news(f"{manifest.product}-{manifest.version}")
                    elif isinstance(message, Answer):
                        break
            finally:
                await run.close()
        if self._ledger.entry.state is State.DOWNLOADING:
            await self._ledger.enter(Event.WRITTEN)
        yield await self._activate(manifest, attempt)

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
        return attempt.news(f"Updated to {manifest.product}-{manifest.version}.", done=True, reboot=True)
