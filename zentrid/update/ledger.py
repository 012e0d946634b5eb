"""The durable side of an update: every step is in the journal before its effect, every outcome is reported once.

Also settles what an earlier run left behind, from the journal, the boot state and the slot that runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from zentrid.core.bootstate import BootState, BootStateLostError, BootStateWriteError, forget_release
from zentrid.core.names import SAFE_SLOT
from zentrid.core.update import Event, State, event_at_start, transition
from zentrid.update.errors import Result
from zentrid.update.journal import ITEMS, Entry, Journal
from zentrid.update.link import Parts
from zentrid.update.outbox import Outbox
from zentrid.update.reports import outcome_report, why_rolled_back
from zentrid.update.running import running_release

log = logging.getLogger(__name__)

_INTERRUPTED = "the update was interrupted by a restart or a power cut; start it again, it goes on where it was"


class Ledger:
    """Takes the steps of `core.update.transition`, durably. Its methods raise OSError when the data partition fails."""

    def __init__(self, parts: Parts, posted: Callable[[], None]) -> None:
        """Call `posted` whenever a report was put into the outbox."""
        self._parts = parts
        self._posted = posted
        self._journal = Journal(parts.paths.journal, parts.hook)
        self.outbox = Outbox(parts.paths.outbox, parts.hook)

    @property
    def entry(self) -> Entry:
        """What the journal says."""
        return self._journal.entry

    def remember(self, **changes: Any) -> None:  # noqa: ANN401
        """Change the entry in memory only: for states that have changed nothing on the device."""
        self._journal.remember(**changes)

    async def save(self, **changes: Any) -> Entry:  # noqa: ANN401
        """Change the entry, durably."""
        return await asyncio.to_thread(lambda: self._journal.save(**changes))

    async def enter(self, event: Event, **changes: Any) -> Entry:  # noqa: ANN401
        """Take a step of the table; when this returns, its effects may run."""
        return await self.save(state=transition(self.entry.state, event).state, **changes)

    async def finish(
        self,
        event: Event,
        outcome: str,
        reason: str,
        detail: str,
        **changes: Any,  # noqa: ANN401
    ) -> None:
        """Take the last step. The report is in the journal until it is in the outbox, so no power cut loses it."""
        running = await asyncio.to_thread(running_release, self._parts)
        report = outcome_report(self.entry, outcome, reason, detail, running, self._parts.utc())
        await self.enter(event, pending=report, **changes)
        await self._post_pending()

    async def settle(self, *, starting_over: bool) -> None:
        """Conclude what an earlier run left; safe to be cut anywhere and to run again.

        `starting_over`: a new update is wanted, so from safe mode an activated release is not waited for any longer.
        """
        await self._post_pending()
        if self.entry.scope == ITEMS:
            return  # those who know the sets settle it
        entry, boot = self.entry, await self.boot()
        running = self._parts.slots.running
        event = event_at_start(entry.state, entry.target, running, boot)
        waiting = entry.state in (State.REBOOTING, State.CONFIRMING) and event is None
        if waiting and starting_over and running == SAFE_SLOT:
            event = Event.BOOTED_OLD
        failure = int(Result.GENERAL_FAILURE)
        if event is Event.FAIL:
            await self.interrupted()
        elif event is Event.BOOTED_OLD:
            reason, detail = why_rolled_back(entry, boot)
            await self.forget_faults(entry)  # before the journal closes: a cut in between repeats it
            await self.finish(event, "rolled_back", reason, detail, result=failure, failed_version=entry.to_version)
        elif event is not None:
            await self.enter(event)
        if self.entry.state is State.CONFIRMING and running == self.entry.target and boot.good(running):
            # It was marked good, and the journal could not say so any more: the boot state counts.
            await self.confirm()

    async def interrupted(self) -> None:
        """Conclude an update that a restart ended before anything was activated."""
        failure = int(Result.GENERAL_FAILURE)
        await self.finish(Event.FAIL, "failed", "interrupted", _INTERRUPTED, result=failure)

    async def forget_faults(self, entry: Entry) -> None:
        """Drop the faults of a release that was taken back: they must not push the one that runs now into safe mode."""
        try:
            await asyncio.to_thread(
                self._parts.boot_state.update, lambda state: forget_release(state, entry.target, entry.to_version)
            )
        except BootStateWriteError as error:
            log.error("update: the faults of release %s stay counted: %s", entry.to_version, error)

    async def confirm(self) -> None:
        """Conclude the update whose release has become good."""
        await self.finish(Event.HEALTHY, "installed", "", f"release {self.entry.to_version} runs and is healthy")

    async def boot(self) -> BootState:
        """Return the boot state; the defaults if it is lost, as in the boot script."""
        try:
            return await asyncio.to_thread(self._parts.boot_state.read)
        except BootStateLostError:
            return BootState()

    async def _post_pending(self) -> None:
        if self.entry.pending:
            await asyncio.to_thread(self.outbox.put, self.entry.pending)
            await self.save(pending={})
            self._posted()
