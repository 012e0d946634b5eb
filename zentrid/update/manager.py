"""The update manager: carries out the state table of `core.update`, durably, and decides outcomes after a restart.

It runs in the supervisor and keeps the rights: it alone changes the boot state. Everything that comes from outside is met by
the worker, a child without rights. How it is installed: `firmware`, `itemset`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final
from uuid import uuid4

from zentrid.bundle.manifest import Manifest
from zentrid.core import bootstate
from zentrid.core.bootstate import BootState, BootStateLostError
from zentrid.core.events import BootGood
from zentrid.core.names import SAFE_SLOT
from zentrid.core.update import TABLE, WHY_NOT_NOW, Event, State, can_cancel, transition
from zentrid.core.version import version_or_zero
from zentrid.errors import ZentriError
from zentrid.ports import UpdateOptions, UpdateProgress
from zentrid.update.attempt import Attempt
from zentrid.update.dms import DmsClient
from zentrid.update.errors import (
    DmsError,
    DmsRefusedError,
    DmsUnreachableError,
    NotByItselfError,
    Result,
    UpdateBusyError,
    UpdateCancelledError,
    UpdateError,
    UpdateRefusedError,
)
from zentrid.update.finding import Finding
from zentrid.update.firmware import Firmware
from zentrid.update.freshness import Freshness
from zentrid.update.itemset import ItemUpdates
from zentrid.update.journal import FIRMWARE
from zentrid.update.ledger import Ledger
from zentrid.update.link import Parts, WorkerLink
from zentrid.update.origin import open_origin
from zentrid.update.outbox import Outbox
from zentrid.update.running import running_release
from zentrid.update.webapprelease import WebAppRelease

log = logging.getLogger(__name__)

_DETAIL_CHARS: Final = 600
_SERVER_ERROR: Final = 500
_RESTORING: Final = "the Web App is being restored; try again when that is done"
_ACTIVATED: Final = (State.ACTIVATING, State.REBOOTING, State.CONFIRMING)


class UpdateManager:
    """Implements `ports.Updates`; `dms` implements `ports.Dms`. Call `start` once before anything else."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._link = WorkerLink(parts)
        self._ledger = Ledger(parts, lambda: self.dms.wake())
        self._freshness = Freshness(parts.paths.data_dir / "alert.json", parts.hook)
        self.dms = DmsClient(
            self._link,
            self._ledger.outbox,
            busy=lambda: self._running,
            on_trial=lambda: self.on_trial,
            alert=lambda: self._freshness.alert,
        )
        self.items = ItemUpdates(parts, self._link, self._ledger)
        self._firmware = Firmware(parts, self._link, self._ledger, self.items)
        self._finding = Finding(parts, self._link, self._ledger, self._freshness, self.items)
        self.web_app = WebAppRelease(parts, self._link, self._ledger)
        self._attempt = Attempt(self._ledger, parts.tell)
        """The one that runs, or the last one."""
        self._running = False
        self._restoring = False
        """What runs is no update: the Web App is being restored."""
        self._proven = False
        """The running slot is good by the boot state, or nothing could take it back."""

    # --- what others ask ------------------------------------------------------------------------------------------
    @property
    def state(self) -> str:
        """The update state now (`idle`, `checking`, …)."""
        return self._ledger.entry.state.value

    @property
    def available(self) -> str:
        """The release that was found but not installed yet; empty: none is known."""
        return self._finding.available if self._ledger.entry.state is not State.REBOOTING else ""

    @property
    def percent(self) -> int:
        """Progress of the running update, 0 to 100."""
        return self._attempt.percent

    @property
    def received_bytes(self) -> int:
        """What the running or last update has received from the network."""
        return self._attempt.received_bytes

    @property
    def last_result(self) -> int:
        """`dms.ota_result` of the last update."""
        return self._ledger.entry.result

    @property
    def outbox(self) -> Outbox:
        """The reports that wait for the server."""
        return self._ledger.outbox

    @property
    def first_boot(self) -> bool:
        """Whether the running release was just installed and has yet to become good."""
        entry = self._ledger.entry
        return self.on_trial and entry.state in _ACTIVATED and entry.target == self._parts.slots.running

    @property
    def on_trial(self) -> bool:
        """Whether the running slot was never good since it was installed.

        True of a first boot, and also when the journal is lost: a release that cannot even mount its data is given up.
        """
        return not self._proven

    @property
    def version(self) -> str:
        """The newest release that is part of what runs. Reads a small file."""
        return running_release(self._parts)

    @property
    def failed_version(self) -> str:
        """The release that was rolled back last; empty: none. Nothing should install it again by itself."""
        return self._ledger.entry.failed_version

    @property
    def next_step(self) -> UpdateOptions | None:
        """The update that goes on where a confirmed step has led; None: the device is where it was to go."""
        entry = self._ledger.entry
        if self._running or self.on_trial or entry.state is not State.IDLE or not entry.then:
            return None
        return UpdateOptions(version=entry.then, by_itself=entry.by_itself, goes_on=True)

    # --- hooks of the supervisor ----------------------------------------------------------------------------------
    async def start(self) -> None:
        """Find out what the last run left behind, and settle it: first boot of a new release, rolled back, interrupted.

        Safe to be cut at any point and run again.
        """
        try:
            await self._ledger.settle(starting_over=False)
            await self.items.settle()
        except Exception:
            # The supervisor must come up all the same; the next start, or the next update, tries again.
            log.exception("update: cannot settle what the last run left")
        self._proven = await self._is_proven()

    async def _is_proven(self) -> bool:
        slots = self._parts.slots
        try:
            boot = await asyncio.to_thread(self._parts.boot_state.read)
        except BootStateLostError:
            # Tries cannot be counted then: giving the boot up would restart the board for ever.
            return True
        return boot.good(slots.running)

    async def on_healthy(self) -> None:
        """Mark the running slot good; if its release was just installed, that update is confirmed and reported.

        Safe to repeat. Raises BootStateWriteError: the boot is then not good.
        """
        parts, entry = self._parts, self._ledger.entry
        version = version_or_zero(parts.release.version)
        asked_floor = entry.boot_floor if entry.to_version == parts.release.version else ""
        boot_floor = version_or_zero(asked_floor) if asked_floor else None
        confirming = entry.state is State.CONFIRMING and entry.scope == FIRMWARE
        # What applications and files on trial are worth is not known yet.
        newest = version if self.items.on_trial else version_or_zero(await asyncio.to_thread(running_release, parts))

        def good(state: BootState) -> BootState:
            marked = bootstate.mark_good(state, parts.slots.running, version, boot_floor)
            marked = marked if self._in_safe_mode else bootstate.raise_floor(marked, newest)
            return bootstate.clear_faults(marked) if confirming else marked

        # The boot state first: it is what counts. A cut after it finds the journal still confirming and repeats both.
        await asyncio.to_thread(parts.boot_state.update, good)
        self._proven = True
        parts.tell(BootGood(parts.slots.running, parts.release.version))
        if confirming:
            await self._confirm()

    async def _confirm(self) -> None:
        try:
            await self._ledger.confirm()
        except OSError as error:
            # It is good: the boot state says so. The report is made at the next start.
            log.error("update: confirmed, but the journal cannot say so (%s)", error.strerror)
            self._ledger.remember(state=State.IDLE)
        await self.items.tidy()

    async def on_unhealthy(self, reason: str) -> None:
        """Record, durably, why the supervisor gives up the new release's first boot; call it before the restart."""
        if not self.first_boot or self._ledger.entry.unhealthy:
            return
        try:
            await self._ledger.save(unhealthy=reason[:_DETAIL_CHARS])
        except OSError as error:
            log.error("update: the reason %r cannot be recorded (%s)", reason, error.strerror)

    # --- updating ------------------------------------------------------------------------------------------------
    async def run(self, options: UpdateOptions) -> AsyncIterator[UpdateProgress]:
        """Run one update to its end; yields progress, the last with `done`, also when it fails.

        Raises UpdateBusyError if one is running. Closing the iterator early stops the worker and leaves the update
        interrupted; what was written is found again by the next one.
        """
        self._check_free()
        self._running, self._attempt = True, Attempt(self._ledger, self._parts.tell)
        self._attempt.unlimited, self._attempt.only_looks = options.force, options.check_only
        self.dms.make_way()
        try:
            async with aclosing(self._steps(options)) as steps:
                async for news in steps:
                    yield news
        finally:
            self._running = False
            if self._ledger.entry.state is State.CHECKING:
                # Nobody follows any more, and nothing has begun.
                self._ledger.remember(state=State.IDLE)

    def _check_free(self) -> None:
        if self._running:
            raise UpdateBusyError(_RESTORING) if self._restoring else UpdateBusyError

    @asynccontextmanager
    async def restoring(self) -> AsyncGenerator[Attempt, None]:
        """Keep updates away while the Web App's files are restored; raises UpdateBusyError if one runs.

        Nothing of an update is touched: neither its state nor what an interrupted one goes on with.
        """
        self._check_free()
        self._running = self._restoring = True
        self.dms.make_way()
        try:
            yield Attempt(self._ledger)
        finally:
            self._running = self._restoring = False

    async def cancel(self) -> bool:
        """Cancel a running update, or take back an installed release that waits for a restart, or give up the way to another.

        False when there is none of these, or it is too late. Raises ZentriError: it could not be done.
        """
        if self._restoring:
            raise UpdateBusyError(_RESTORING)
        if not self._running:
            return await self._take_back()
        if self._attempt.committed or not can_cancel(self._ledger.entry.state):
            return False
        self._attempt.cancel()
        return True

    async def _take_back(self) -> bool:
        self._running = True  # nothing else may begin meanwhile
        try:
            if self._ledger.entry.state is State.IDLE and self._ledger.entry.then:
                await self._ledger.save(then="", steps=0, by_itself=False)
                return True
            return await self._ledger.take_back()
        except OSError as error:
            raise UpdateError(f"the device cannot write its update journal ({error.strerror})") from error
        finally:
            self._running = False

    async def _steps(self, options: UpdateOptions) -> AsyncGenerator[UpdateProgress, None]:
        try:
            async with aclosing(self._update(options)) as update:
                async for news in update:
                    yield news
        except UpdateError as error:
            yield await self._failed(UpdateCancelledError() if self._attempt.cancelled else error)
        except ZentriError as error:
            yield await self._failed(UpdateRefusedError(error.reason, str(error)))
        except OSError as error:
            yield await self._failed(UpdateError(f"the device cannot write its update journal ({error.strerror})"))

    async def _update(self, options: UpdateOptions) -> AsyncGenerator[UpdateProgress, None]:
        await self._ledger.settle(starting_over=not options.check_only)
        await self.items.settle_again()
        self._begin(options, await asyncio.to_thread(running_release, self._parts))
        with open_origin(options.source) as origin:
            yield self._attempt.news("checking the bundle" if options.source else "asking the server")
            manifest = await self._finding.find(options, origin, self._attempt, proven=self._proven)
            self._attempt.heed_cancel()
            if manifest is None and options.goes_on:
                raise UpdateRefusedError("withdrawn", f"the server does not offer release {options.version} any more")
            if manifest is None or options.check_only:
                yield self._nothing_to_do(manifest, options)
                return
            part = self._firmware if manifest.has_firmware else self.items
            async with aclosing(part.install(manifest, origin, self._attempt)) as steps:
                async for news in steps:
                    if news.done and news.ok and not news.reboot:
                        self._finding.available = ""  # it runs now
                    yield news

    def _begin(self, options: UpdateOptions, running: str) -> None:
        state = self._ledger.entry.state
        if state is not State.IDLE:
            raise UpdateRefusedError("waiting", WHY_NOT_NOW[state])
        if not (options.goes_on or options.check_only):
            self._ledger.remember(then="", steps=0, by_itself=options.by_itself)
        self._ledger.remember(
            state=transition(state, Event.START).state,
            update_id=str(uuid4()),
            from_version=running,
            to_version=options.version or "" if options.goes_on else "",
            boot_floor="",
            unhealthy="",
            scope=FIRMWARE,
        )

    # --- endings -------------------------------------------------------------------------------------------------
    def _nothing_to_do(self, manifest: Manifest | None, options: UpdateOptions) -> UpdateProgress:
        entry = self._ledger.entry
        state = transition(entry.state, Event.NOTHING_TO_DO).state
        if manifest is not None:
            self._ledger.remember(state=state)
            goal = self._attempt.goal
            way = f"{goal}, by way of {manifest.version}" if goal else str(manifest.version)
            return self._attempt.news(f"Update available: {manifest.product}-{way}.", done=True)
        self._ledger.remember(state=state, result=int(Result.NO_UPDATE_REQUIRED))
        running = f"{self._parts.release.product}-{entry.from_version}"
        return self._attempt.news(f"No update required: {running} is what should run.", done=True)

    async def _failed(self, error: UpdateError) -> UpdateProgress:
        """End the update that `error` stopped; what is reported of it depends on how far it had come."""
        error = await self._nearest_reason(error)
        log.log(logging.INFO if isinstance(error, NotByItselfError) else logging.WARNING, "update: %s", error)
        await asyncio.to_thread(self._freshness.failed, error.reason, str(error), self._parts.utc())
        state = self._ledger.entry.state
        sentence, result = str(error), int(error.result)
        if state is State.CHECKING and self._is_quiet(error):
            # Nothing began, and the server that could be told is the one that said no.
            self._ledger.remember(state=transition(state, Event.FAIL).state, result=result)
        elif (state, Event.FAIL) in TABLE:
            cancelled = isinstance(error, UpdateCancelledError)
            event = Event.CANCEL if cancelled else Event.FAIL
            try:
                await self._ledger.finish(
                    event, "cancelled" if cancelled else "failed", error.reason, sentence, result=result,
                )  # fmt: skip
            except OSError as second:
                # The journal cannot be written: what it says is settled at the next start.
                log.error("update: the outcome cannot be recorded (%s)", second.strerror)
                self._ledger.remember(state=State.IDLE, result=result)
        return replace(self._attempt.news(sentence, done=True, ok=False, result=result), reason=error.reason)

    async def _nearest_reason(self, error: UpdateError) -> UpdateError:
        """Return what a person can mend: a server that cannot be reached for want of a network is not the server's fault."""
        if not isinstance(error, DmsUnreachableError) or self._ledger.entry.state is not State.CHECKING:
            return error
        return await asyncio.to_thread(self._parts.network_trouble) or error

    def _is_quiet(self, error: UpdateError) -> bool:
        """Tell whether an end before anything began is not reported: it was a look, or is no news for the server."""
        if self._attempt.only_looks:
            return True
        said_no = isinstance(error, DmsRefusedError) and error.status < _SERVER_ERROR
        if self._ledger.entry.then and (said_no or isinstance(error, NotByItselfError)):
            return False  # it ends a way that had begun
        return isinstance(error, DmsError | NotByItselfError)

    # --- small things ---------------------------------------------------------------------------------------------
    @property
    def _in_safe_mode(self) -> bool:
        return self._parts.slots.running == SAFE_SLOT
