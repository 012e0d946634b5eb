"""What can be done with bundles: upload with all checks, tags, archive; and the signed metadata behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dms_server.bundles.check import CheckedBundle, check_bundle, read_bundle
from dms_server.bundles.metadata import MetadataStore
from dms_server.bundles.models import Bundle, BundleItem, BundleTag
from dms_server.bundles.store import PayloadStore
from dms_server.clock import now
from dms_server.db import Database
from dms_server.devices.services import TAGS
from dms_server.errors import BadRequestError, ConflictError, NotFoundError
from dms_server.patches.services import Patches
from dms_server.products.services import Products
from dms_server.settings import Settings

log = structlog.get_logger()
T = TypeVar("T")

BUNDLES_MAX = 1000


@dataclass(frozen=True)
class BundleView:
    """A bundle with its items and tags."""

    bundle: Bundle
    product: str
    items: tuple[BundleItem, ...]
    tags: tuple[str, ...]


class Bundles:
    """Bundles of products; one upload is stored at a time, so that versions and metadata stay in step."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        products: Products,
        metadata: MetadataStore,
        payloads: PayloadStore,
        patches: Patches,
    ) -> None:
        self._db = db
        self._settings = settings
        self._products = products
        self._metadata = metadata
        self.payloads = payloads
        self._patches = patches
        self._turn = asyncio.Lock()

    # --- metadata -------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Open payload folder and TUF repository. Raises SetupError."""
        await self._files(self.payloads.open)
        await self._files(self._metadata.open)

    async def refresh_metadata(self) -> None:
        """Sign snapshot and timestamp again when it is time."""
        if await self._files(self._metadata.refresh):
            log.info("metadata_signed")

    async def adopt_targets(self, data: bytes | None) -> bool:
        """Take over newer top-level targets, given or in the fleet folder; return whether they were newer."""

        def work() -> bool:
            offered = data if data is not None else (self._settings.fleet / "public" / "targets.json").read_bytes()
            newer = self._metadata.adopt_targets(offered)
            self._metadata.refresh()
            return newer

        return await self._files(work)

    async def metadata_file(self, name: str) -> Path | None:
        """Return the file of a metadata name, or None."""
        return await asyncio.to_thread(self._metadata.file, name)

    def manifest_file(self, product: str, version: str, name: str) -> Path:
        """Return where a manifest is kept; the parts were checked by the caller."""
        return self._metadata.manifest_file(product, version, name)

    async def ready(self) -> bool:
        """Tell whether the timestamp that devices get is fresh."""
        return await asyncio.to_thread(self._metadata.timestamp_expires) > now()

    async def _files(self, work: Callable[[], T]) -> T:
        """Run work on the repository's files outside the event loop, one at a time."""
        async with self._turn:
            return await asyncio.to_thread(work)

    # --- upload -----------------------------------------------------------------------------------------------------
    async def upload(self, user_id: int, path: Path, *, draft: bool = False) -> BundleView:
        """Check an uploaded `.zb` and keep it; nothing is kept if anything is wrong.

        Raises UploadRefusedError (what is wrong with it), ConflictError (that version is there already),
        NotFoundError (the caller has no such product).
        """
        bundle = await asyncio.to_thread(read_bundle, path)
        code, version = bundle.manifest.product, str(bundle.manifest.version)
        product = await self._products.get(user_id, code)
        async with self._turn:
            held = await self._held(product.id)
            if version in held:
                raise ConflictError(f"{code} {version} is on the server already; a version never changes, raise it")
            if len(held) >= BUNDLES_MAX:
                raise ConflictError(f"a product has at most {BUNDLES_MAX} bundles")
            checked = await asyncio.to_thread(check_bundle, bundle, self._metadata, self.payloads, held)
            try:
                await self._keep(user_id, product.id, checked, "draft" if draft else "published")
            finally:
                await asyncio.to_thread(checked.drop)
        log.info("bundle_uploaded", product=code, version=version, by=user_id)
        return await self.get(user_id, code, version)

    async def _held(self, product_id: int) -> dict[str, str]:
        """Return the versions of a product on the server and the SHA-256 of their manifests."""
        statement = select(Bundle.version, Bundle.manifest_sha256).where(Bundle.product_id == product_id)
        async with self._db.read() as session:
            return {version: digest for version, digest in await session.rows(statement)}  # noqa: C416 - rows are no pairs

    async def _keep(self, user_id: int, product_id: int, checked: CheckedBundle, state: str) -> None:
        """Store files, then the row, then tell devices. A crash in between is mended by uploading again."""
        await asyncio.to_thread(checked.store, self._metadata, self.payloads)
        manifest = checked.bundle.manifest
        bundle = Bundle(
            product_id=product_id,
            version=checked.version,
            version_number=checked.version_number,
            state=state,
            compatible=list(manifest.compatible),
            min_version=str(manifest.min_version) if manifest.min_version else None,
            boot_floor=str(manifest.boot_floor) if manifest.boot_floor else None,
            notes=manifest.notes,
            manifest_sha256=checked.manifest_sha256,
            size_bytes=sum(item.size_bytes for item in checked.items),
            created_at=now(),
            created_by=user_id,
        )
        async with self._db.write() as session:
            await session.add(bundle)
            await session.add(*(BundleItem(bundle_id=bundle.id, **asdict(item)) for item in checked.items))
            if state == "published":
                await self._patches.queue_release(session, bundle)
        await asyncio.to_thread(self._metadata.refresh)

    # --- reading ----------------------------------------------------------------------------------------------------
    async def of_product(self, owner_id: int, code: str) -> Sequence[BundleView]:
        """Return all bundles of a product, newest version first."""
        product = await self._products.get(owner_id, code)
        async with self._db.read() as session:
            bundles = await session.scalars(
                select(Bundle).where(Bundle.product_id == product.id).order_by(Bundle.version_number.desc())
            )
            items = await session.scalars(
                select(BundleItem)
                .join(Bundle, Bundle.id == BundleItem.bundle_id)
                .where(Bundle.product_id == product.id)
            )
            tags = await session.scalars(select(BundleTag).where(BundleTag.product_id == product.id))
        return [
            BundleView(
                bundle,
                product.code,
                tuple(item for item in items if item.bundle_id == bundle.id),
                tuple(tag.tag for tag in tags if tag.bundle_id == bundle.id),
            )
            for bundle in bundles
        ]

    async def get(self, owner_id: int, code: str, version: str) -> BundleView:
        """Return one bundle; raises NotFoundError."""
        for view in await self.of_product(owner_id, code):
            if view.bundle.version == version:
                return view
        raise NotFoundError(f"{code} has no bundle {version[:20]}")

    async def has_payload(self, product_id: int, root_hash: str) -> bool:
        """Tell whether a payload belongs to a bundle of the product that devices may get."""
        statement = (
            select(BundleItem.id)
            .join(Bundle, Bundle.id == BundleItem.bundle_id)
            .where(BundleItem.root_hash == root_hash, Bundle.product_id == product_id, Bundle.state == "published")
            .limit(1)
        )
        async with self._db.read() as session:
            return await session.scalar(statement) is not None

    # --- changing -----------------------------------------------------------------------------------------------------
    async def tag(self, owner_id: int, code: str, version: str, tag: str) -> None:
        """Give a bundle a tag, taking it from the bundle that has it; a draft becomes published."""
        if tag not in TAGS:
            raise BadRequestError(f"a tag is {', '.join(TAGS[:-1])} or {TAGS[-1]}")
        view = await self.get(owner_id, code, version)
        if view.bundle.state == "archived":
            raise ConflictError(f"{code} {version} is archived; tag another bundle")
        statement = sqlite_insert(BundleTag).values(
            product_id=view.bundle.product_id, tag=tag, bundle_id=view.bundle.id
        )
        async with self._db.write() as session:
            await session.change(
                update(Bundle).where(Bundle.id == view.bundle.id, Bundle.state == "draft").values(state="published")
            )
            # Before the tag moves: devices run the bundle that has it now.
            await self._patches.queue_release(session, view.bundle)
            await session.change(
                statement.on_conflict_do_update(
                    index_elements=[BundleTag.product_id, BundleTag.tag], set_={"bundle_id": view.bundle.id}
                )
            )
        log.info("bundle_tagged", product=code, version=version, tag=tag, by=owner_id)

    async def untag(self, owner_id: int, code: str, version: str, tag: str) -> None:
        """Take a tag off a bundle."""
        view = await self.get(owner_id, code, version)
        async with self._db.write() as session:
            if not await session.change(
                delete(BundleTag).where(BundleTag.bundle_id == view.bundle.id, BundleTag.tag == tag)
            ):
                raise NotFoundError(f"{code} {version} has no tag {tag[:16]}")

    async def publish(self, owner_id: int, code: str, version: str) -> None:
        """Let devices have a draft when they ask for it by its version."""
        view = await self.get(owner_id, code, version)
        if view.bundle.state == "archived":
            raise ConflictError(f"{code} {version} is archived")
        async with self._db.write() as session:
            await session.change(update(Bundle).where(Bundle.id == view.bundle.id).values(state="published"))
            await self._patches.queue_release(session, view.bundle)

    async def archive(self, owner_id: int, code: str, version: str) -> None:
        """Put a bundle away: no device gets it any more. Raises ConflictError while it has a tag."""
        view = await self.get(owner_id, code, version)
        async with self._db.write() as session:
            tags = await session.scalars(select(BundleTag.tag).where(BundleTag.bundle_id == view.bundle.id))
            if tags:
                raise ConflictError(f"{code} {version} carries the tag {tags[0]}; take the tag off first")
            await session.change(update(Bundle).where(Bundle.id == view.bundle.id).values(state="archived"))
