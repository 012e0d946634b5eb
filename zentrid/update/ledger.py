"""The durable side of an update: every step is in the journal before its effect, every outcome is reported once.

Also settles what an earlier run left behind, from the journal, the boot state and the slot that runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from zentrid.core.bootstate import BootState, BootStateLostError, BootStateWriteError, forget_release, prepare_target
from zentrid.core.events import SlotChanged, UpdateChanged
from zentrid.core.names import SAFE_SLOT
from zentrid.core.update import Event, State, event_at_start, transition
from zentrid.update.errors import Result
from zentrid.update.journal import ITEMS, Entry, Journal
from zentrid.update.link import Parts
from zentrid.update.outbox import Outbox
from zentrid.update.reports import outcome_report, progress_report, why_rolled_back
from zentrid.update.running import running_release

log = logging.getLogger(__name__)

_INTERRUPTED = "the update was interrupted by a restart or a power cut; start it again, it goes on where it was"
_TAKEN_BACK = "release {} was installed and was taken back before it was started"


class Ledger:
    """Takes the steps of `core.update.transition`, durably. Its methods raise OSError when the data partition fails."""

    def __init__(self, parts: Parts, posted: Callable[[], None]) -> None:
        """Call `posted` whenever a report was put into the outbox."""
        self._parts = parts
        self._posted = posted
        self._journal = Journal(parts.paths.journal, parts.hook)
        self.outbox = Outbox(parts.paths.outbox, parts.hook)
        self._concluding = asyncio.Lock()
        """A boot may become good at the very moment at which somebody asks for an update: both conclude the one before."""

    @property
    def entry(self) -> Entry:
        """What the journal says."""
        return self._journal.entry

    def remember(self, **changes: Any) -> None:  # noqa: ANN401
        """Change the entry in memory only: for states that have changed nothing on the device."""
        before = self.entry
        self._journal.remember(**changes)
        self._tell(before)

    async def save(self, *, ending: tuple[str, str] = ("", ""), **changes: Any) -> Entry:  # noqa: ANN401
        """Change the entry, durably. `ending`: outcome and reason, for those who follow."""
        before = self.entry
        entry = await asyncio.to_thread(lambda: self._journal.save(**changes))
        self._tell(before, *ending)
        return entry

    def _tell(self, before: Entry, outcome: str = "", reason: str = "") -> None:
        if self.entry.state is not before.state:
            version = self.entry.to_version or before.to_version
            self._parts.tell(UpdateChanged(before.state.value, self.entry.state.value, version, outcome, reason))

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
        then = self.entry.then
        if event is Event.HEALTHY:
            detail += f"; release {then} is next" if then else ""
        else:
            changes = {"then": "", "steps": 0, "by_itself": False, **changes}
            detail += f"; the way to release {then} ends here" if then else ""
        running = await asyncio.to_thread(running_release, self._parts)
        report = outcome_report(self.entry, outcome, reason, detail, running, self._parts.utc())
        await self.enter(event, ending=(outcome, reason), pending=report, **changes)
        await self._post_pending()

    def begun_report(self) -> dict[str, Any]:
        """Return the report that the download begins."""
        detail = f"release {self.entry.to_version} is being downloaded"
        return progress_report(self.entry, "downloading", detail, self._parts.release.version, self._parts.utc())

    async def note_step(self, step: str, detail: str) -> None:
        """Queue a report about a step in between, if the server is to hear of them. Never raises."""
        if not self._parts.report_progress:
            return
        report = progress_report(self.entry, step, detail, self._parts.release.version, self._parts.utc())
        try:
            await asyncio.to_thread(self.outbox.put, report)
        except OSError as error:
            log.warning("update: the step %s cannot be reported (%s)", step, error.strerror)
        self._posted()

    async def take_back(self) -> bool:
        """Take back the installed release that waits for a restart; False when none waits.

        The journal first, then the boot state: a cut in between is settled at the next start. Raises BootStateWriteError: it
        stays installed.
        """
        if self.entry.state is not State.REBOOTING:
            return False
        await self.enter(Event.CANCEL)
        await self._finish_taking_back()
        return True

    async def _finish_taking_back(self) -> None:
        entry = self.entry
        try:
            await asyncio.to_thread(self._parts.boot_state.update, lambda state: prepare_target(state, entry.target))
        except BootStateWriteError:
            await self.enter(Event.ACTIVATED)
            raise
        self._parts.tell(SlotChanged(entry.target, "taken_back", entry.to_version))
        await self.finish(
            Event.REVERTED, "cancelled", "cancelled", _TAKEN_BACK.format(entry.to_version),
            result=int(Result.GENERAL_FAILURE),
        )  # fmt: skip

    async def settle(self, *, starting_over: bool) -> None:
        """Conclude what an earlier run left; safe to be cut anywhere and to run again.

        `starting_over`: a new update is wanted, so from safe mode an activated release is not waited for any longer.
        """
        async with self._concluding:
            await self._settle(starting_over=starting_over)

    async def _settle(self, *, starting_over: bool) -> None:
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
        elif event is Event.REVERTED:
            try:
                await self._finish_taking_back()
            except BootStateWriteError as error:
                log.error("update: release %s stays installed: %s", entry.to_version, error)
        elif event is not None:
            await self.enter(event)
        if self.entry.state is State.CONFIRMING and running == self.entry.target and boot.good(running):
            # It was marked good, and the journal could not say so any more: the boot state counts.
            await self._confirm()

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
        """Conclude the update whose release has become good, unless that was just done."""
        async with self._concluding:
            if self.entry.state is State.CONFIRMING:
                await self._confirm()

    async def _confirm(self) -> None:
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
