"""The Web App's files of a release, fetched anew from the server: into a folder of their own, touching no slot and no set.

Signed like an update: the worker checks the manifest, the payloads arrive under its hash trees, and each file is hashed once
more by the supervisor before anybody gets it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from zentrid.adapters.items import ItemFolder
from zentrid.adapters.webappfiles import root_of
from zentrid.bundle.manifest import Item, Manifest, ManifestError, parse_manifest
from zentrid.core.items import room_needed, room_refusal, store_name
from zentrid.ports import UpdateOptions
from zentrid.update.attempt import Attempt
from zentrid.update.durable import remove_tree
from zentrid.update.errors import DmsUnreachableError, PayloadError, UpdateRefusedError
from zentrid.update.itemfiles import Incoming
from zentrid.update.ledger import Ledger
from zentrid.update.link import Parts, WorkerLink
from zentrid.update.protocol import InstallSpec, Progress
from zentrid.update.reports import inventory

log = logging.getLogger(__name__)


class WebAppRelease:
    """Asks the server for releases that are known by their version, and fetches some of their files."""

    def __init__(self, parts: Parts, link: WorkerLink, ledger: Ledger) -> None:
        self._parts = parts
        self._link = link
        self._ledger = ledger
        self._top = parts.paths.data_dir / "webapp.new"

    async def manifest(self, version: str, attempt: Attempt) -> Manifest:
        """Return the signed manifest of a release. Raises UpdateError."""
        try:
            return await self._ask(version, attempt)
        except DmsUnreachableError as error:
            raise await asyncio.to_thread(self._parts.network_trouble) or error from error

    async def _ask(self, version: str, attempt: Attempt) -> Manifest:
        slots = await asyncio.to_thread(self._parts.slots.slots)
        options = UpdateOptions(force=True, version=version)
        body = inventory(self._parts.release, await self._ledger.boot(), slots, options)
        answer = await attempt.race(self._link.ask(self._link.request("check", body=body), started=attempt.started))
        text = answer.text("manifest")
        if text is None:
            raise UpdateRefusedError("no_release", f"the server does not give release {version} to this device")
        try:
            manifest = parse_manifest(text.encode(errors="surrogatepass"))
        except ManifestError as error:
            raise UpdateRefusedError("bad_manifest", str(error)) from error
        found = (manifest.product, str(manifest.version), answer.text("target"))
        if found != (self._parts.release.product, version, manifest.target_path):
            raise UpdateRefusedError(
                "bad_manifest", "the signed manifest is not the one of the release that was asked for"
            )
        return manifest

    @asynccontextmanager
    async def fetched(
        self, manifest: Manifest, items: Mapping[str, Item], tell: Callable[[int], None], attempt: Attempt
    ) -> AsyncGenerator[dict[str, Path], None]:
        """Give the files, verified, by the names of `items`, while the context lasts. Raises UpdateError, OSError.

        `manifest`: a signed one of this product. It may be another release of it that has brought some of the items.
        """
        await asyncio.to_thread(self.clear)
        try:
            only = replace(manifest, items=tuple(items.values()), remove=())
            yield await self._fetch(only, items, tell, attempt) if items else {}
        finally:
            await asyncio.to_thread(self.clear)

    async def _fetch(
        self, manifest: Manifest, items: Mapping[str, Item], tell: Callable[[int], None], attempt: Attempt
    ) -> dict[str, Path]:
        folder = ItemFolder(self._top, self._parts.hook)
        refused = room_refusal(room_needed(list(items.values())), await asyncio.to_thread(folder.room))
        if refused is not None:
            raise UpdateRefusedError(refused.reason, refused.sentence)
        async with Incoming(folder, manifest, lambda: None) as incoming:
            spec = InstallSpec(str(manifest.version), self._parts.slots.running, incoming.specs, verify_fit=False)
            # Nothing is kept for going on: that folder may hold what an interrupted update goes on with.
            request = replace(self._link.request("install", install=spec), spool_dir="")
            run = await self._parts.launcher.start(request, incoming.fds, self._link.install_silence_s)
            try:
                attempt.started(run)
                async for message in run.messages():
                    if isinstance(message, Progress):
                        tell(message.percent)
                attempt.heed_cancel()
            finally:
                await run.close()
            await incoming.adopt()
        paths = {name: self._top / "store" / store_name(item, manifest.version) for name, item in items.items()}
        for name, path in paths.items():
            if await asyncio.to_thread(root_of, path) != items[name].root_hash:
                raise PayloadError(f"{name} is not what the signed manifest says, so it is not used; try again")
        return paths

    def clear(self) -> None:
        """Remove what an interrupted run left. Blocking; a problem is logged."""
        try:
            remove_tree(self._top)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("web app: what was left of a restore cannot be removed (%s)", error)
