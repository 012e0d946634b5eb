"""Patches for devices and pages: what to answer, what to queue, what there is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import structlog
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import DBAPIError

from dms_server.bundles.models import Bundle, BundleItem
from dms_server.bundles.store import PayloadStore
from dms_server.clock import now
from dms_server.db import Database, Session
from dms_server.errors import NotFoundError, NotYetError
from dms_server.patches import queue
from dms_server.patches.decide import Known, Verdict, decide, retry_after_s
from dms_server.patches.models import MAKING, QUEUED, READY, Patch
from dms_server.patches.store import DamagedError, PatchStore
from dms_server.patches.workshop import Workshop
from dms_server.settings import Settings

log = structlog.get_logger()

NOTHING = "none"
"""The base of a full payload."""
DIGESTS_MAX = 10_000
SERVED_MAX = 10_000


@dataclass(frozen=True)
class OpenStream:
    """A patch stream to give out, open at its beginning; whoever gets it closes it."""

    stream: BinaryIO
    etag: str
    """The same for as long as the content is the same."""


@dataclass(frozen=True)
class PatchView:
    """A patch as people see it."""

    versions: tuple[str, ...]
    """Those of the product whose item is the base, newest first."""
    base_root: str
    state: str
    size_bytes: int | None
    reason: str
    percent: int | None
    """How far it is, while it is made."""


class Patches:
    """Patches of all products; which of them a device may have is checked here."""

    def __init__(self, db: Database, settings: Settings, payloads: PayloadStore) -> None:
        self._db = db
        self._settings = settings
        self._payloads = payloads
        self._store = PatchStore(settings.data / "patches")
        self._workshop = Workshop(db, settings, payloads, self._store)
        self._digests: dict[str, str] = {}
        self._digest_turn = asyncio.Lock()
        self._served: dict[int, datetime] = {}

    async def open(self) -> None:
        """Put folder and table in order and begin to work."""
        async with self._db.read() as session:
            rows = await session.rows(select(Patch.target_root, Patch.base_root).where(Patch.state == READY))
        known = [(row[0], row[1]) for row in rows]
        try:
            await asyncio.to_thread(self._store.prepare, known)
        except OSError as error:
            log.error("patch_folder_unusable", problem=str(error))
        self._workshop.start()

    async def close(self) -> None:
        """End the work; what was being made is made after the next start."""
        await self._workshop.stop()
        await self.flush()

    async def flush(self) -> None:
        """Write when patches were served last. Worth a minute of a crash."""
        served, self._served = self._served, {}
        if served:
            table = Patch.__table__
            statement = update(table).where(table.c.id == bindparam("key")).values(served_at=bindparam("at"))  # type: ignore[arg-type]
            async with self._db.write() as session:
                await session.change(statement, [{"key": key, "at": at} for key, at in served.items()])

    # --- what is made -------------------------------------------------------------------------------------------------
    async def queue_release(self, session: Session, bundle: Bundle) -> None:
        """Queue the patches to a bundle that becomes published, in the caller's transaction."""
        settings = self._settings
        if not settings.patch_workers:
            return
        left_out = await queue.queue_release(session, bundle, settings.patch_releases, settings.patch_queue_max, now())
        if left_out:
            log.warning("patch_queue_full", version=bundle.version, left_out=left_out, most=settings.patch_queue_max)
        self._workshop.wake()

    # --- for devices --------------------------------------------------------------------------------------------------
    async def offer(self, product_id: int, device_id: int, target: str, base: str, held_etag: str = "") -> OpenStream:
        """Return the stream for a device that has `base`: the patch, or the full payload that answers every base.

        The device may have `target`; that was checked. `held_etag` names the stream of which it has the beginning.
        Raises NotYetError while the patch is made, NotFoundError.
        """
        goes_on = held_etag.startswith(_etag(target, NOTHING, ""))
        if base in (NOTHING, target) or goes_on or not await self._is_base(product_id, base):
            return await self._full(target)
        try:
            return await self._patch(device_id, target, base)
        except DBAPIError as error:
            log.error("patch_not_queued", problem=str(error.orig))
            return await self._full(target)

    async def _patch(self, device_id: int, target: str, base: str) -> OpenStream:
        patch = await self._known(target, base)
        if patch is not None and patch.state == READY:
            opened = await self._open(patch)
            if opened is not None:
                return opened
            patch = await self._known(target, base)
        if self._decide(patch) in (Verdict.QUEUE, Verdict.WAIT) and self._settings.patch_workers:
            # Those that ask again only read.
            if patch is None or patch.asked_at is None or self._decide(patch) is Verdict.QUEUE:
                patch = await self._want(device_id, target, base)
            if patch is not None and self._decide(patch) is Verdict.WAIT:
                self._workshop.wake()
                seconds = retry_after_s(patch.asked_at, now(), self._settings.patch_wait_max_s)
                raise NotYetError("this patch is being made; ask again in a moment", retry_after_s=seconds)
            if patch is not None and patch.state == READY:
                opened = await self._open(patch)
                if opened is not None:
                    return opened
        return await self._full(target)

    async def _known(self, target: str, base: str) -> Patch | None:
        async with self._db.read() as session:
            return await queue.find(session, target, base)

    def _decide(self, patch: Patch | None) -> Verdict:
        known = None if patch is None else Known(patch.state, patch.asked_at, patch.not_before, patch.ended_at)
        return decide(known, now(), self._settings.patch_wait_max_s)

    async def _want(self, device_id: int, target: str, base: str) -> Patch | None:
        """Queue a patch that a device waits for, or put it before the others; None: there is no room for it."""
        at, settings = now(), self._settings
        async with self._db.write() as session:
            patch = await queue.find(session, target, base)
            if self._decide(patch) is Verdict.QUEUE:
                full = await queue.waiting(session) >= settings.patch_queue_max
                if full or await queue.waiting(session, device_id) >= settings.patch_device_queue_max:
                    log.warning(
                        "patch_queue_full", base=base[:16], target=target[:16], device=None if full else device_id
                    )
                    return None
                await queue.put(session, target, base, at, device_id)
            elif patch is not None and patch.state in (QUEUED, MAKING) and patch.asked_at is None:
                values = {"priority": 1, "asked_at": at}
                await session.change(update(Patch).where(Patch.id == patch.id).values(**values))
            else:
                return patch
        return await self._known(target, base)

    async def _forget(self, patch: Patch) -> None:
        """Note that the file of a patch is gone: it is made again."""
        async with self._db.write() as session:
            found = await queue.find(session, patch.target_root, patch.base_root)
            # Unless it was made again in the meantime.
            if found is not None and found.state == READY and found.ended_at == patch.ended_at:
                await asyncio.to_thread(self._store.drop, patch.target_root, patch.base_root)
                await queue.put(session, patch.target_root, patch.base_root, now())

    async def _open(self, patch: Patch) -> OpenStream | None:
        """Return the stream of a patch that is ready; None: its file is not what it was, or cannot be read now."""
        names = (patch.target_root, patch.base_root)
        size_bytes, sha256 = patch.size_bytes or 0, patch.sha256 or ""
        try:
            stream = await asyncio.to_thread(self._store.open, *names, size_bytes, sha256)
        except DamagedError as error:
            log.warning("patch_damaged", base=names[1][:16], target=names[0][:16], problem=str(error))
            await self._forget(patch)
            return None
        except OSError as error:
            log.error("patch_unreadable", base=names[1][:16], target=names[0][:16], problem=str(error))
            return None
        if len(self._served) < SERVED_MAX:
            self._served[patch.id] = now()
        return OpenStream(stream, _etag(patch.target_root, patch.base_root, sha256))

    async def _full(self, target: str) -> OpenStream:
        path = self._payloads.path(target)
        try:
            digest = await self._digest(target, path)
            stream = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError as error:
            log.error("payload_lost", root=target)
            raise NotFoundError("this payload is not on the server any more; publish its bundle again") from error
        return OpenStream(stream, _etag(target, NOTHING, digest))

    async def _digest(self, target: str, path: Path) -> str:
        """Return the SHA-256 of a full payload's stream, worked out once: the file never changes."""
        if target not in self._digests:
            async with self._digest_turn:
                if target not in self._digests:
                    if len(self._digests) >= DIGESTS_MAX:
                        self._digests.clear()
                    self._digests[target] = await asyncio.to_thread(_sha256, path)
        return self._digests[target]

    async def _is_base(self, product_id: int, root: str) -> bool:
        """Tell whether a payload was ever given to devices of a product: they may have it installed."""
        statement = (
            select(BundleItem.id)
            .join(Bundle, Bundle.id == BundleItem.bundle_id)
            .where(BundleItem.root_hash == root, Bundle.product_id == product_id, Bundle.state != "draft")
            .limit(1)
        )
        async with self._db.read() as session:
            return await session.scalar(statement) is not None

    # --- for people -----------------------------------------------------------------------------------------------------
    async def of_bundle(self, bundle: Bundle, items: Collection[BundleItem]) -> dict[str, list[PatchView]]:
        """Return the patches to each item of a bundle, by root hash, from versions of the same product, newest first."""
        roots = [item.root_hash for item in items]
        statement = (
            select(Patch, Bundle.version)
            .join(BundleItem, BundleItem.root_hash == Patch.base_root)
            .join(Bundle, Bundle.id == BundleItem.bundle_id)
            .where(Patch.target_root.in_(roots), Bundle.product_id == bundle.product_id)
            .where(Bundle.state != "draft")
            .order_by(Bundle.version_number.desc())
        )
        async with self._db.read() as session:
            rows = await session.rows(statement)
        patches: dict[int, Patch] = {}
        versions: dict[int, dict[str, None]] = {}
        for patch, version in rows:
            patches[patch.id] = patch
            versions.setdefault(patch.id, {})[version] = None
        found: dict[str, list[PatchView]] = {root: [] for root in roots}
        for key, patch in patches.items():
            view = PatchView(
                versions=tuple(versions[key]),
                base_root=patch.base_root,
                state=patch.state,
                size_bytes=patch.size_bytes,
                reason=patch.reason,
                percent=self._workshop.percent.get(key) if patch.state == MAKING else None,
            )
            found[patch.target_root].append(view)
        return found


def _etag(target: str, base: str, sha256: str) -> str:
    return f'"{target}-{base}-{sha256[:16]}' + ('"' if sha256 else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
