"""Which release is to be installed: asked of the server or read from a bundle, by way of what it needs first, and admitted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from zentrid.bundle.manifest import Manifest, ManifestError, parse_manifest
from zentrid.core import chain
from zentrid.core.events import UpdateAvailable
from zentrid.core.names import SAFE_SLOT
from zentrid.core.update import WHY_NOT_NOW, Device, State, choose_target, refusal
from zentrid.core.version import Version, version_or_zero
from zentrid.ports import UpdateOptions
from zentrid.update.attempt import Attempt
from zentrid.update.errors import DmsRefusedError, NotByItselfError, UpdateRefusedError
from zentrid.update.freshness import Freshness
from zentrid.update.itemset import ItemUpdates
from zentrid.update.ledger import Ledger
from zentrid.update.link import Parts, WorkerLink
from zentrid.update.origin import Origin
from zentrid.update.reports import inventory

_NOT_FOUND: Final = 404


class Finding:
    """Finds releases for the update manager; changes nothing on the device."""

    def __init__(
        self, parts: Parts, link: WorkerLink, ledger: Ledger, freshness: Freshness, items: ItemUpdates
    ) -> None:
        self._parts = parts
        self._link = link
        self._ledger = ledger
        self._freshness = freshness
        self._items = items
        self.available = ""
        """The release that the server offered last, if it does not run; empty: none."""

    async def find(self, options: UpdateOptions, origin: Origin, attempt: Attempt, *, proven: bool) -> Manifest | None:
        """Return the manifest to install, trusted and admitted; None: nothing to do. Raises UpdateError.

        `proven`: the running slot is good; applications and files wait for that.
        """
        manifest = await self._reach(options, origin, attempt)
        if origin.online:
            self._note_available("" if manifest is None else attempt.goal or str(manifest.version))
        if manifest is None:
            return None
        if options.by_itself:
            await self._refuse_by_itself(manifest, attempt)
        await self._admit(manifest, proven=proven, step=bool(attempt.goal))
        if not options.check_only:
            await attempt.race(self._ask_pre_install(manifest))
        return manifest

    def _note_available(self, version: str) -> None:
        before, self.available = self.available, version
        if version and version != before:
            self._parts.tell(UpdateAvailable(version))

    async def _reach(self, options: UpdateOptions, origin: Origin, attempt: Attempt) -> Manifest | None:
        """Return the manifest of the release to go to, or of the one that it needs first: `goal` then says where it leads."""
        asked = options
        for _ in range(chain.MAX_STEPS + 1):
            manifest = await self._ask(asked, origin, attempt)
            if manifest is None and attempt.goal and asked.version:
                raise self._no_way(attempt, chain.step_not_there(attempt.goal, asked.version))
            if manifest is None:
                return None
            first = chain.needed_first(manifest, await self._running_version()) if origin.online else ""
            if not first and attempt.goal and not manifest.has_firmware:
                raise self._no_way(attempt, chain.step_without_firmware(attempt.goal, str(manifest.version)))
            if not first and (not attempt.goal or self._ledger.entry.steps < chain.MAX_STEPS):
                return manifest
            if not first:
                break
            attempt.goal = attempt.goal or str(manifest.version)
            asked = replace(options, version=first)
        raise self._no_way(attempt, chain.too_many_steps(attempt.goal))

    def _no_way(self, attempt: Attempt, sentence: str) -> UpdateRefusedError:
        """Return the end of a way that cannot be gone; what is reported is about where it leads."""
        self._ledger.remember(to_version=attempt.goal)
        return UpdateRefusedError("min_version", sentence)

    async def _ask(self, options: UpdateOptions, origin: Origin, attempt: Attempt) -> Manifest | None:
        """Return the trusted manifest that the server or the bundle file offers; None: it runs already."""
        slots = await asyncio.to_thread(self._parts.slots.slots)
        boot = await self._ledger.boot()
        running = replace(self._parts.release, version=self._ledger.entry.from_version)
        body = inventory(running, boot, slots, options) if origin.online else {}
        request = self._link.request("check", body=body, bundle_fd=origin.fd, bundle_url=origin.url)
        try:
            answer = await attempt.race(self._link.ask(request, fds=origin.fds, started=attempt.started))
        except DmsRefusedError as error:
            if attempt.goal and error.status == _NOT_FOUND and options.version:
                raise self._no_way(attempt, chain.step_not_there(attempt.goal, options.version)) from error
            raise
        if origin.online:
            await asyncio.to_thread(self._freshness.passed)
        text = answer.text("manifest")
        if text is None:
            return None
        try:
            manifest = parse_manifest(text.encode(errors="surrogatepass"))
        except ManifestError as error:
            raise UpdateRefusedError("bad_manifest", str(error)) from error
        self._ledger.remember(to_version=str(manifest.version))
        if origin.online and answer.text("target") != manifest.target_path:
            raise UpdateRefusedError("bad_manifest", "the signed manifest is for another release than its name says")
        if attempt.goal and str(manifest.version) != options.version:
            raise UpdateRefusedError(
                "bad_manifest", "the server offers another release than the one that was asked for"
            )
        if str(manifest.version) == running.version and not options.force and not self._in_safe_mode:
            return None
        return manifest

    async def _running_version(self) -> Version:
        """Return the version that counts as running.

        The safe-mode system is old by nature: there it is the newest release that was healthy here.
        """
        running = version_or_zero(self._parts.release.version)
        return max(running, (await self._ledger.boot()).floor) if self._in_safe_mode else running

    async def _refuse_by_itself(self, manifest: Manifest, attempt: Attempt) -> None:
        """Raise NotByItselfError for a release that only a person may install."""
        slots = await asyncio.to_thread(self._parts.slots.slots) if self._in_safe_mode else ()
        tried = {info.version for info in slots if info.version and (info.good or info.tries_left) and not info.running}
        for version in dict.fromkeys((str(manifest.version), attempt.goal)):
            why = chain.not_by_itself(version, self._ledger.entry.failed_version, tried) if version else ""
            if why:
                raise NotByItselfError(why)

    async def _ask_pre_install(self, manifest: Manifest) -> None:
        objection = await self._parts.pre_install(manifest)
        if objection:
            raise UpdateRefusedError("hook", f"the device does not want to be updated now: {objection}")

    async def _admit(self, manifest: Manifest, *, proven: bool, step: bool) -> None:
        parts = self._parts
        boot = await self._ledger.boot()
        floor = boot.floor
        if step and not self._in_safe_mode:
            newest = version_or_zero(self._ledger.entry.from_version)
            floor = chain.floor_of_step(floor, version_or_zero(parts.release.version), newest)
        target = choose_target(boot, parts.slots.running)
        device = Device(
            product=parts.release.product,
            board=parts.release.board,
            running=await self._running_version(),
            floor=floor,
            boot_floor=boot.boot_floor,
            capacity=await asyncio.to_thread(parts.slots.capacity, target),
        )
        found = refusal(manifest, device)
        if found is not None:
            raise UpdateRefusedError(found.reason, found.sentence)
        if not manifest.has_firmware and not proven:
            raise UpdateRefusedError("waiting", WHY_NOT_NOW[State.CONFIRMING])
        await self._items.admit(manifest, target)

    @property
    def _in_safe_mode(self) -> bool:
        return self._parts.slots.running == SAFE_SLOT
