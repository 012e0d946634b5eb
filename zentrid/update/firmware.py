"""Firmware: filling the other slot and activating it.

The order that must never change: the target loses its tries before its first write; it gets them back only after everything
was read back; the journal says what is about to happen before it happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
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
        budget_bytes = self._budget_left(manifest, attempt) if bundle_fd is None else 0
        target = choose_target(await self._ledger.boot(), parts.slots.running)
        async with InstallFiles(parts.slots, target, manifest, verify_fit=parts.verify_fit) as files:
            floor = str(manifest.boot_floor) if manifest.boot_floor else ""
            steps = self._ledger.entry.steps + 1 if attempt.goal else 0
            await self._ledger.enter(
                Event.ADMITTED, target=target, to_version=str(manifest.version), boot_floor=floor,
                then=attempt.goal, steps=steps,
            )  # fmt: skip
            await asyncio.to_thread(parts.boot_state.update, lambda state: bootstate.prepare_target(state, target))
            parts.tell(SlotChanged(target, "emptied", ""))
            attempt.heed_cancel()
            fds = files.fds if bundle_fd is None else (*files.fds, bundle_fd)
            request = self._link.request("install", install=files.spec, bundle_fd=bundle_fd)
            request.limits["budget_bytes"] = float(budget_bytes)
            if bundle_fd is None and parts.report_progress:
                request = replace(request, reports=(self._ledger.begun_report(),))
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
        await attempt.race(self._ask_post_install(manifest))
        yield await self._activate(manifest, attempt)

    def _budget_left(self, manifest: Manifest, attempt: Attempt) -> int:
        """Return what this release may still receive; 0: as much as it needs. Raises UpdateRefusedError: nothing."""
        budget_bytes, entry = self._parts.budget_bytes(), self._ledger.entry
        attempt.spent_before_bytes = entry.spent_bytes if entry.spent_version == str(manifest.version) else 0
        if not budget_bytes or attempt.unlimited:
            return 0
        left_bytes = budget_bytes - attempt.spent_before_bytes
        if left_bytes <= 0:
            raise UpdateRefusedError(
                "budget",
                f"release {manifest.version} has received {attempt.spent_before_bytes} bytes already, as much as ota.budget "
                "allows; raise ota.budget, or use: ota -f",
            )
        attempt.limited = True
        return left_bytes

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
