"""What the device door must know about a device at every request: one indexed query, no objects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import aliased

from dms_server.accounts.models import User
from dms_server.bundles.models import Bundle, BundleTag
from dms_server.clock import now
from dms_server.db import Database
from dms_server.devices.models import Device
from dms_server.products.models import Product


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device, its owner, its product and the version it should run."""

    id: int
    uuid: str
    owner_id: int | None
    owner: str | None
    product_id: int | None
    product: str | None
    product_state: str | None
    tag: str
    revoked: bool
    target: str | None
    """The version with the device's tag, or with `release` where the tag has none."""
    target_boards: tuple[str, ...]


_own = aliased(Bundle)
_release = aliased(Bundle)
_own_tag = aliased(BundleTag)
_release_tag = aliased(BundleTag)

_KNOWN = (
    select(
        Device.id,
        Device.owner_id,
        User.name,
        Device.product_id,
        Product.code,
        Product.state,
        Device.tag,
        Device.revoked_at,
        _own.version,
        _own.compatible,
        _release.version,
        _release.compatible,
    )
    .outerjoin(User, User.id == Device.owner_id)
    .outerjoin(Product, Product.id == Device.product_id)
    .outerjoin(_own_tag, (_own_tag.product_id == Device.product_id) & (_own_tag.tag == Device.tag))
    .outerjoin(_own, _own.id == _own_tag.bundle_id)
    .outerjoin(_release_tag, (_release_tag.product_id == Device.product_id) & (_release_tag.tag == "release"))
    .outerjoin(_release, _release.id == _release_tag.bundle_id)
    .where(Device.uuid == bindparam("uuid"))
)


async def find_device(db: Database, uuid: str) -> KnownDevice | None:
    """Return what is known about a device, or None when it was never here."""
    row = await db.read_row(_KNOWN, {"uuid": uuid})
    if row is None:
        return None
    key, owner_id, owner, product_id, code, state, tag, revoked_at, version, boards, fallback, fallback_boards = row
    target, target_boards = (version, boards) if version is not None else (fallback, fallback_boards)
    return KnownDevice(
        id=key,
        uuid=uuid,
        owner_id=owner_id,
        owner=owner,
        product_id=product_id,
        product=code,
        product_state=state,
        tag=tag,
        revoked=revoked_at is not None,
        target=target,
        target_boards=tuple(target_boards or ()),
    )


async def meet_device(db: Database, uuid: str, ip: str, at: datetime | None = None) -> KnownDevice:
    """Return what is known about a device with a good certificate; a new one is written down first."""
    known = await find_device(db, uuid)
    if known is None:
        seen_at = at or now()
        statement = sqlite_insert(Device).values(uuid=uuid, first_seen_at=seen_at, last_seen_at=seen_at, ip=ip)
        async with db.write() as session:
            await session.change(statement.on_conflict_do_nothing(index_elements=[Device.uuid]))
        known = await find_device(db, uuid)
    if known is None:
        raise RuntimeError(f"device {uuid} was written and is not there")
    return known
