"""Applications and files: installed beside the old ones, switched by one rename, judged, and taken back if they are no good.

A release with firmware gets a set for the slot that it fills, before that slot can boot: what goes back with the slot is the
slot's own set. A release without firmware gets a new set for the running slot; the old one is kept until the new one is healthy.
The journal says what is about to happen before it happens, and what a cut leaves is settled at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import replace

from zentrid.adapters.items import ItemFolder
from zentrid.bundle.manifest import Manifest
from zentrid.core import bootstate
from zentrid.core.apps import AppError
from zentrid.core.bootstate import BootStateWriteError
from zentrid.core.items import (
    HEALTHY,
    ItemSet,
    Room,
    changed_apps,
    items_event_at_start,
    items_refusal,
    next_set,
    room_needed,
    room_refusal,
)
from zentrid.core.names import SAFE_SLOT, SLOTS, SlotName
from zentrid.core.update import Event, State
from zentrid.core.version import version_or_zero
from zentrid.ports import AppExit, UpdateProgress
from zentrid.update.attempt import Attempt
from zentrid.update.errors import Result, UpdateError, UpdateRefusedError
from zentrid.update.filling import Filling
from zentrid.update.itemfiles import Incoming, missing
from zentrid.update.itemtrial import Failure, Trial
from zentrid.update.journal import ITEMS
from zentrid.update.ledger import Ledger
from zentrid.update.link import Parts, WorkerLink
from zentrid.update.origin import Origin
from zentrid.update.protocol import InstallSpec
from zentrid.update.spool import unfinished

log = logging.getLogger(__name__)

_NEWS_EVERY_S = 1.0
_AGAIN_S = 30.0
"""Between the tries to end a trial on a disk that takes no writes now."""
_RESTARTED = Failure("app_unhealthy", "the device restarted again and again while they were on trial")
_ELSEWHERE = Failure("app_unhealthy", "the device came up in another slot, or in safe mode, while they were on trial")


class ItemUpdates:
    """Everything about applications and files of bundles that changes the device."""

    def __init__(self, parts: Parts, link: WorkerLink, ledger: Ledger) -> None:
        self._parts = parts
        self._link = link
        self._ledger = ledger
        self._folder = ItemFolder(parts.paths.items, parts.hook)
        self._trial = Trial(parts.checks)
        self._task: asyncio.Task[Failure | None] | None = None
        self._later: asyncio.Task[None] | None = None
        self._judging = False
        self._may_judge = False
        """The boot application is looked after."""

    @property
    def on_trial(self) -> bool:
        """Whether applications and files were switched and have yet to become healthy."""
        entry = self._ledger.entry
        return entry.scope == ITEMS and entry.state in (State.ACTIVATING, State.CONFIRMING)

    def note_end(self, end: AppExit) -> None:
        """Hear that the boot application has ended by itself."""
        self._trial.note_end(end)

    # --- admission ------------------------------------------------------------------------------------------------
    async def admit(self, manifest: Manifest, target: SlotName) -> None:
        """Check that the release's applications and files can be installed. Raises UpdateRefusedError, OSError."""
        base = await asyncio.to_thread(self._base, target)
        found = items_refusal(manifest, base, self._parts.slots.running)
        wanted = {} if found else await asyncio.to_thread(missing, self._folder, manifest)
        if wanted:
            room = await asyncio.to_thread(self._room, wanted)
            found = room_refusal(room_needed(list(wanted.values())), room)
        if found:
            raise UpdateRefusedError(found.reason, found.sentence)

    def _room(self, wanted: Iterable[str]) -> Room:
        """Return the room for these: what an interrupted update has of them is there already."""
        room = self._folder.room()
        return replace(room, free_bytes=room.free_bytes + self._folder.arrived_bytes(wanted))

    def _base(self, target: SlotName) -> ItemSet | None:
        """Return the set whose contents are carried over: the running slot's; from safe mode the other slot's, or its own."""
        running = self._parts.slots.running
        candidates = (running,) if running != SAFE_SLOT else (*(slot for slot in SLOTS if slot != target), target)
        return next((held for slot in candidates if (held := self._folder.held(slot)) is not None), None)

    # --- with firmware --------------------------------------------------------------------------------------------
    def incoming(self, manifest: Manifest, target: SlotName) -> Incoming:
        """Return what the release brings and the store lacks, to be opened and filled."""
        return Incoming(self._folder, manifest, lambda: self._base(target))

    async def put(self, target: SlotName, manifest: Manifest) -> None:
        """Give a slot that cannot boot now the set that goes with its new firmware. Raises OSError."""
        await asyncio.to_thread(self._put, target, manifest)

    def _put(self, target: SlotName, manifest: Manifest) -> None:
        made = next_set(self._base(target), manifest, str(manifest.version))
        if made.items:
            set_id = self._ledger.entry.update_id
            self._folder.make_set(set_id, made)
            self._folder.switch(target, set_id)
        else:
            # What an older release had in this slot is not the new one's.
            self._folder.forget(f"slot-{target}")

    # --- without firmware -----------------------------------------------------------------------------------------
    async def install(
        self, manifest: Manifest, origin: Origin, attempt: Attempt
    ) -> AsyncGenerator[UpdateProgress, None]:
        """Install, switch and judge; yields news, the last with `done`. Raises UpdateError, OSError: nothing was switched."""
        slot, label = self._parts.slots.running, f"{manifest.product}-{manifest.version}"
        await self._ledger.enter(
            Event.ITEMS_ADMITTED, scope=ITEMS, target=slot, to_version=str(manifest.version), boot_floor="", starts=0,
            then="", steps=0,
        )  # fmt: skip
        attempt.heed_cancel()
        async with self.incoming(manifest, slot) as incoming:
            if incoming.specs:
                spec = InstallSpec(
                    str(manifest.version), slot, incoming.specs, verify_fit=False, unpack=incoming.unpack,
                    budget_bytes=0 if attempt.unlimited or not origin.online else self._parts.budget_bytes(),
                )  # fmt: skip
                filling = Filling(self._link, spec, incoming.fds, origin)
                async with aclosing(filling.run(attempt, label)) as steps:
                    async for news in steps:
                        yield news
            await incoming.adopt()
        if self._ledger.entry.state is State.DOWNLOADING:
            await self._ledger.enter(Event.WRITTEN)
        await asyncio.to_thread(self._make, slot, manifest)
        objection = await attempt.race(self._parts.post_install(manifest))
        if objection:
            raise UpdateRefusedError("hook", f"release {manifest.version} is verified, but must not start: {objection}")
        attempt.heed_cancel()
        attempt.committed = True
        # A task of its own: it goes on when nobody follows this update any more.
        self._task = asyncio.create_task(self._activate_and_judge(slot, manifest), name="items on trial")
        while not self._task.done():
            yield attempt.news(f"{label}: watching what was installed")
            await asyncio.wait({self._task}, timeout=_NEWS_EVERY_S)
        failure = self._task.result()
        attempt.percent = 100
        if failure is None:
            yield attempt.news(f"Updated to {label}.", done=True)
        else:
            sentence = f"release {manifest.version} was taken back: {failure.sentence}"
            yield attempt.news(sentence, done=True, ok=False)

    def _make(self, slot: SlotName, manifest: Manifest) -> None:
        firmware, set_id = self._parts.release.version, self._ledger.entry.update_id
        held = self._folder.held(slot)
        made = next_set(held, manifest, firmware)
        if held is None:
            # So that there is always one to go back to.
            self._folder.make_set(f"{set_id}-before", ItemSet(firmware, firmware))
            self._folder.switch(slot, f"{set_id}-before")
        self._folder.make_set(set_id, made)
        self._folder.keep_previous(slot)

    async def _activate_and_judge(self, slot: SlotName, manifest: Manifest) -> Failure | None:
        self._judging = self._may_judge = True
        try:
            judged, restart = await self._activate(slot, manifest)
            return await self._judge(with_app=judged, restart=restart)
        except Exception:
            if self._ledger.entry.state is State.CONFIRMING:
                # What was switched must not stay without a judge until somebody restarts the device.
                self._later = asyncio.create_task(self.resume(_AGAIN_S), name="items on trial, again")
            raise
        finally:
            self._judging = False

    async def _activate(self, slot: SlotName, manifest: Manifest) -> tuple[bool, bool]:
        """Switch; return whether the boot application is judged, and whether it has to be started anew."""
        apps, set_id = self._parts.checks.apps, self._ledger.entry.update_id
        before = await asyncio.to_thread(self._folder.held, slot)
        was_up = bool(apps.name) and apps.problem is None
        await self._ledger.enter(Event.ITEMS_VERIFIED)
        self._trial.begin()
        try:
            await asyncio.to_thread(self._folder.switch, slot, set_id)
            await self._ledger.enter(Event.SWITCHED, starts=1)
        except OSError as error:
            with suppress(OSError):
                await asyncio.to_thread(self._folder.go_back, slot)
            raise UpdateError(f"the new applications and files cannot be switched to ({error.strerror})") from error
        changed = apps.name in self._changed(before, await asyncio.to_thread(self._folder.held, slot))
        judged = bool(apps.name) and not apps.stopped_by_hand and (changed or was_up)
        return judged, changed and not apps.stopped_by_hand

    @staticmethod
    def _changed(before: ItemSet | None, after: ItemSet | None) -> frozenset[str]:
        return changed_apps(before, after or ItemSet("", ""))

    # --- the trial ------------------------------------------------------------------------------------------------
    async def resume(self, after_s: float = 0.0) -> None:
        """Go on with a trial that a restart or a failure interrupted; call it when the boot application is looked after.

        Never raises: what cannot be ended now is tried again.
        """
        await asyncio.sleep(after_s)
        if self._judging:
            return
        self._judging = self._may_judge = True
        try:
            while self.on_trial and self._ledger.entry.state is State.CONFIRMING:
                try:
                    await self._go_on()
                except Exception:
                    log.exception("update: the trial of applications and files cannot be ended now")
                    await asyncio.sleep(_AGAIN_S)
        finally:
            self._judging = False

    async def _go_on(self) -> None:
        entry, apps = self._ledger.entry, self._parts.checks.apps
        at_home = self._parts.slots.running == entry.target
        if entry.unhealthy or not at_home:
            # That was decided, and the set may be the old one again: nothing is left to judge.
            await self._take_back(_RESTARTED if at_home else _ELSEWHERE)
        elif entry.starts == HEALTHY:
            await self._confirm()
        else:
            self._trial.begin()
            await self._judge(with_app=bool(apps.name) and not apps.stopped_by_hand, restart=False)

    async def _judge(self, *, with_app: bool, restart: bool) -> Failure | None:
        """Watch, and conclude the update; return why it was taken back. Raises OSError: settled at the next start."""
        if restart:
            await self._restart_application()
        failure = await self._trial.run(with_app=with_app)
        if failure is None:
            await self._confirm()
        else:
            log.warning("update: applications and files are taken back: %s", failure.sentence)
            await self._take_back(failure)
        return failure

    async def _restart_application(self) -> None:
        try:
            await self._parts.checks.apps.restart()
        except AppError as error:
            log.info("update: %s", error)

    async def _confirm(self) -> None:
        """Conclude an update that has passed its trial; may be cut anywhere and repeated. Raises OSError."""
        # In the journal first: a floor that was raised for what is then taken back would leave the device below it.
        await self._ledger.save(starts=HEALTHY)
        version = version_or_zero(self._ledger.entry.to_version)
        try:
            await asyncio.to_thread(self._parts.boot_state.update, lambda state: bootstate.raise_floor(state, version))
        except BootStateWriteError as error:
            log.error("update: the floor is not raised before the next good boot: %s", error)
        detail = f"release {self._ledger.entry.to_version} is in use and healthy"
        await self._ledger.finish(Event.ITEMS_HEALTHY, "installed", "", detail, result=int(Result.UPDATED))
        await self.tidy()

    async def _take_back(self, failure: Failure) -> None:
        """Go back to the set before; may be cut anywhere and repeated. Raises OSError."""
        entry = self._ledger.entry
        if not entry.unhealthy:
            entry = await self._ledger.save(unhealthy=f"{failure.reason}: {failure.sentence}"[:600])
        bad = await asyncio.to_thread(self._folder.held, entry.target)
        if not await asyncio.to_thread(self._folder.go_back, entry.target):
            log.error("update: slot %s has no applications and files to go back to", entry.target)
            await asyncio.to_thread(self._folder.forget, f"slot-{entry.target}")
        good = await asyncio.to_thread(self._folder.held, entry.target)
        apps = self._parts.checks.apps
        if apps.name in self._changed(bad, good) and not apps.stopped_by_hand:
            await self._restart_application()
        await self._ledger.forget_faults(entry)
        reason, _, sentence = entry.unhealthy.partition(": ")
        await self._ledger.finish(
            Event.ITEMS_UNHEALTHY, "rolled_back", reason, f"release {entry.to_version}: {sentence}",
            result=int(Result.GENERAL_FAILURE), failed_version=entry.to_version,
        )  # fmt: skip
        await self.tidy()

    # --- what a start finds ---------------------------------------------------------------------------------------
    async def settle(self) -> None:
        """Conclude or go on with what an earlier run left; safe to be cut anywhere. Raises OSError."""
        entry = self._ledger.entry
        if entry.scope != ITEMS or entry.state in (State.IDLE, State.CHECKING):
            await self.tidy()
            return
        at_home = self._parts.slots.running == entry.target
        event = items_event_at_start(
            entry.state,
            switched=await asyncio.to_thread(self._folder.current, entry.target) == entry.update_id,
            at_home=at_home,
            given_up=bool(entry.unhealthy),
            starts=entry.starts,
        )
        if event is Event.FAIL:
            await self._ledger.interrupted()
            await self.tidy()
        elif event is Event.ITEMS_UNHEALTHY:
            await self._take_back(_RESTARTED if at_home else _ELSEWHERE)
        elif event is Event.ITEMS_HEALTHY:
            await self._confirm()
        elif event is Event.SWITCHED:
            await self._ledger.enter(event, starts=1)
            await self.settle()
        else:
            await self._ledger.save(starts=entry.starts + 1)

    async def settle_again(self) -> None:
        """Conclude what a failure left in this very run: nothing may keep every later update from beginning. Raises OSError."""
        if self._ledger.entry.scope != ITEMS or self._judging:
            return
        if self._ledger.entry.state in (State.DOWNLOADING, State.VERIFYING, State.ACTIVATING):
            await self.settle()
        if self.on_trial and self._may_judge:
            self._later = asyncio.create_task(self.resume(), name="items on trial, again")

    async def tidy(self) -> None:
        """Remove what nothing needs any more; what cannot be removed now is removed later."""
        try:
            begun = await asyncio.to_thread(unfinished, self._parts.paths.spool)
            await asyncio.to_thread(self._folder.collect, keep_previous=self.on_trial, unfinished=begun)
        except OSError as error:
            log.error("update: old applications and files cannot be removed (%s)", error)
