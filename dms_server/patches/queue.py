"""The queue of patches to make, in the database: functions inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import aliased

from dms_server.bundles.models import Bundle, BundleItem, BundleTag
from dms_server.db import Session
from dms_server.patches.models import FAILED, LARGER, MAKING, QUEUED, READY, REASON_MAX_CHARS, Patch

WAITING = (QUEUED, MAKING)
FRESH: dict[str, object] = {
    "state": QUEUED,
    "tries": 0,
    "not_before": None,
    "reason": "",
    "ended_at": None,
    "took_ms": None,
    "size_bytes": None,
    "sha256": None,
    "served_at": None,
}
"""The columns of a patch that is queued from the beginning."""


@dataclass(frozen=True)
class Job:
    """A patch to make. Sizes in bytes; `full_bytes`: of the target's full stream."""

    id: int
    base_root: str
    target_root: str
    base_bytes: int
    target_bytes: int
    full_bytes: int
    tries: int
    """This one included."""


async def queue_release(session: Session, bundle: Bundle, releases: int, queue_max: int, at: datetime) -> int:
    """Queue the patches to a bundle that becomes published; return how many the full queue left out.

    From the same item of the last `releases` published versions before it, and of those that carry a tag now: devices
    run these. What is there already stays; what had failed is tried again.
    """
    older = (Bundle.product_id == bundle.product_id, Bundle.version_number < bundle.version_number)
    newest = select(Bundle.id).where(*older, Bundle.state == "published").order_by(Bundle.version_number.desc())
    tagged = select(Bundle.id).join(BundleTag, BundleTag.bundle_id == Bundle.id).where(*older)
    ids = [*await session.scalars(newest.limit(releases)), *await session.scalars(tagged)] if releases else []
    base, target = aliased(BundleItem), aliased(BundleItem)
    pairs = await session.rows(
        select(base.root_hash, target.root_hash)
        .join(Bundle, Bundle.id == base.bundle_id)
        .join(target, and_(target.type == base.type, target.name == base.name))
        .where(base.bundle_id.in_(ids), target.bundle_id == bundle.id, base.root_hash != target.root_hash)
        .order_by(Bundle.version_number.desc(), target.size_bytes.desc())
    )
    known = await session.rows(
        select(Patch.base_root, Patch.target_root)
        .join(BundleItem, BundleItem.root_hash == Patch.target_root)
        .where(BundleItem.bundle_id == bundle.id, Patch.state != FAILED)
    )
    there = {(row[0], row[1]) for row in known}
    wanted = [pair for pair in dict.fromkeys((row[0], row[1]) for row in pairs) if pair not in there]
    room = max(0, queue_max - await waiting(session))
    for base_root, target_root in wanted[:room]:
        await put(session, target_root, base_root, at)
    return max(0, len(wanted) - room)


async def waiting(session: Session, device_id: int | None = None) -> int:
    """Return how many patches wait or are being made: all, or those that one device had queued."""
    statement = select(func.count()).where(Patch.state.in_(WAITING))
    if device_id is not None:
        statement = statement.where(Patch.device_id == device_id)
    return await session.scalar(statement) or 0


async def put(session: Session, target: str, base: str, at: datetime, device_id: int | None = None) -> None:
    """Queue a patch from the beginning, whatever was known of it; with a device it goes first."""
    values = {
        **FRESH,
        "queued_at": at,
        "priority": 0 if device_id is None else 1,
        "asked_at": None if device_id is None else at,
        "device_id": device_id,
    }
    statement = sqlite_insert(Patch).values(target_root=target, base_root=base, **values)
    await session.change(
        statement.on_conflict_do_update(index_elements=[Patch.target_root, Patch.base_root], set_=values)
    )


async def find(session: Session, target: str, base: str) -> Patch | None:
    """Return what is known of a patch."""
    return await session.scalar(select(Patch).where(Patch.target_root == target, Patch.base_root == base))


def _next(at: datetime) -> tuple[object, ...]:
    return Patch.state == QUEUED, or_(Patch.not_before.is_(None), Patch.not_before <= at)


async def anything_to_do(session: Session, active: Collection[int], at: datetime) -> bool:
    """Tell whether `take` would find something."""
    lost = and_(Patch.state == MAKING, Patch.id.not_in(active))
    statement = select(Patch.id).where(or_(and_(*_next(at)), lost)).limit(1)  # type: ignore[arg-type]
    return await session.scalar(statement) is not None


async def take(session: Session, active: Collection[int], tries_max: int, at: datetime) -> Job | None:
    """Take the next patch to make: those that devices wait for first. None: there is none.

    Those that are being made and not `active` were lost, with the server or its database: they are queued again, or
    given up after `tries_max`.
    """
    lost = (Patch.state == MAKING, Patch.id.not_in(active))
    why = "the server ended while it was made"
    await session.change(
        update(Patch).where(*lost, Patch.tries >= tries_max).values(state=FAILED, reason=why, ended_at=at)
    )
    await session.change(update(Patch).where(*lost).values(state=QUEUED, reason=why, not_before=None))
    order = (Patch.priority.desc(), Patch.queued_at, Patch.id)
    found = await session.scalar(select(Patch).where(*_next(at)).order_by(*order).limit(1))  # type: ignore[arg-type]
    if found is None:
        return None
    sizes: dict[str, tuple[int, int]] = {}
    for root in (found.base_root, found.target_root):
        row = await session.row(
            select(BundleItem.size_bytes, BundleItem.payload_bytes).where(BundleItem.root_hash == root).limit(1)
        )
        sizes[root] = (row[0], row[1]) if row is not None else (0, 0)
    await session.change(update(Patch).where(Patch.id == found.id).values(state=MAKING, tries=Patch.tries + 1))
    return Job(
        id=found.id,
        base_root=found.base_root,
        target_root=found.target_root,
        base_bytes=sizes[found.base_root][0],
        target_bytes=sizes[found.target_root][0],
        full_bytes=sizes[found.target_root][1],
        tries=found.tries + 1,
    )


async def put_back(session: Session, job: Job) -> None:
    """Queue a patch again whose making was stopped by the server's own end: no try was used up."""
    values = {"state": QUEUED, "tries": job.tries - 1}
    await session.change(update(Patch).where(Patch.id == job.id).values(**values))


async def made(session: Session, job: Job, size_bytes: int, sha256: str | None, took_ms: int, at: datetime) -> None:
    """Note a patch that was made; without `sha256` it was larger than the full payload and is not kept."""
    values: dict[str, object] = {"state": READY if sha256 else LARGER, "size_bytes": size_bytes, "sha256": sha256}
    values |= {"took_ms": took_ms, "ended_at": at, "reason": "", "not_before": None}
    await session.change(update(Patch).where(Patch.id == job.id).values(**values))


async def failed(session: Session, job: Job, reason: str, retry_at: datetime | None, at: datetime) -> None:
    """Note a try that failed: queued again for `retry_at`, or given up."""
    values: dict[str, object] = {"reason": reason[:REASON_MAX_CHARS], "ended_at": at, "not_before": retry_at}
    values["state"] = FAILED if retry_at is None else QUEUED
    await session.change(update(Patch).where(Patch.id == job.id).values(**values))


def retry_at(tries: int, tries_max: int, retry_s: float, at: datetime) -> datetime | None:
    """Return when to try again after `tries` failed ones, each pause twice the one before; None: give up."""
    return None if tries >= tries_max else at + timedelta(seconds=retry_s * 2 ** (tries - 1))


async def choose_victims(session: Session, needed_bytes: int, limit_bytes: int) -> Sequence[Patch] | None:
    """Return the patches to drop so that `needed_bytes` fit below the limit; None: they cannot fit.

    Least recently served first. Patches to bundles that carry a tag are never dropped.
    """
    total = await session.scalar(select(func.coalesce(func.sum(Patch.size_bytes), 0)).where(Patch.state == READY))
    excess = (total or 0) + needed_bytes - limit_bytes
    if excess <= 0:
        return ()
    kept = select(BundleItem.root_hash).join(BundleTag, BundleTag.bundle_id == BundleItem.bundle_id)
    statement = select(Patch).where(Patch.state == READY, Patch.target_root.not_in(kept))
    victims: list[Patch] = []
    for patch in await session.scalars(statement.order_by(func.coalesce(Patch.served_at, Patch.ended_at), Patch.id)):
        victims.append(patch)
        excess -= patch.size_bytes or 0
        if excess <= 0:
            return victims
    return None
