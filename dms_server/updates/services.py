"""What devices ask about updates. The check of a device with nothing to do is the hottest path: it touches no file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dms_server.bundles.models import Bundle, BundleItem
from dms_server.bundles.services import Bundles
from dms_server.clock import now
from dms_server.db import Database
from dms_server.devices.known import KnownDevice
from dms_server.devices.models import Device, Report
from dms_server.errors import ForbiddenError, NotFoundError, TooManyReportsError
from dms_server.updates.schemas import Check, ReportBody

OUTCOMES = ("installed", "rolled_back", "failed", "cancelled")
REPORTS_KEPT = 1000
REPORTS_A_MINUTE = 120
"""New ones from one device, twice its whole outbox: one that has more is out of order."""


@dataclass(frozen=True)
class Answer:
    """The answer to a check: the release to go to, or why there is none."""

    product: str
    version: str | None = None
    message: str = ""


class Updates:
    """Decides which release a device should run, and keeps what devices report."""

    def __init__(self, db: Database, bundles: Bundles) -> None:
        self._db = db
        self._bundles = bundles

    async def check(self, device: KnownDevice, asked: Check) -> Answer:
        """Return the release for this device.

        Raises ForbiddenError when it is not claimed or has no product, NotFoundError for a version that is wanted
        and not published.
        """
        if device.owner_id is None:
            raise ForbiddenError("device not claimed")
        if device.product is None or device.product_id is None:
            raise ForbiddenError("no product activated; activate one with `dms activate <product code>`")
        if device.product_state == "archived":
            raise ForbiddenError(f"the product {device.product} is archived; activate another one")
        version: str | None
        if asked.want is not None:
            version, boards = await self._wanted(device.product_id, device.product, asked.want)
        else:
            version, boards = device.target, device.target_boards
            if asked.safemode and version is not None:
                version, boards = await self._repairing(device.product_id, version, boards)
        if version is None:
            return Answer(device.product, message=f"{device.product} has no release yet")
        if asked.board and boards and asked.board not in boards:
            return Answer(device.product, message=f"{version} is for {', '.join(boards)}, not for {asked.board}")
        # A device in safe mode runs no release, whatever version its safe-mode system has.
        if asked.version == version and asked.product in (None, device.product) and not (asked.force or asked.safemode):
            return Answer(device.product, message=f"{version} is what should run")
        return Answer(device.product, version)

    async def _wanted(self, product_id: int, product: str, version: str) -> tuple[str, tuple[str, ...]]:
        statement = select(Bundle.compatible).where(
            Bundle.product_id == product_id, Bundle.version == version, Bundle.state == "published"
        )
        async with self._db.read() as session:
            boards = await session.scalar(statement)
        if boards is None:
            raise NotFoundError(f"{product} has no published version {version}; see the page of the product")
        return version, tuple(boards)

    async def _repairing(self, product_id: int, version: str, boards: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Return the newest release up to `version` that holds firmware: only that repairs a device in safe mode."""
        has_firmware = exists().where(BundleItem.bundle_id == Bundle.id, BundleItem.type == "rootfs")
        target = select(Bundle.version_number).where(Bundle.product_id == product_id, Bundle.version == version)
        statement = (
            select(Bundle.version, Bundle.compatible)
            .where(Bundle.product_id == product_id, Bundle.state == "published", has_firmware)
            .where(Bundle.version_number <= target.scalar_subquery())
            .order_by(Bundle.version_number.desc())
            .limit(1)
        )
        async with self._db.read() as session:
            found = await session.row(statement)
        return (version, boards) if found is None else (found.version, tuple(found.compatible))

    async def report(self, device: KnownDevice, body: ReportBody) -> bool:
        """Keep a report; return False when it was here before. When this returns, it is on the disk."""
        received_at = now()
        values = {
            "device_id": device.id,
            "report_id": str(body.id),
            "device_time": body.time,
            "received_at": received_at,
            "event": body.event,
            "version": body.version,
            "from_version": body.from_version,
            "to_version": body.to_version,
            "reason": body.reason,
            "detail": body.detail,
        }
        statement = sqlite_insert(Report).values(**values)
        async with self._db.write() as session:
            lately = select(func.count()).where(
                Report.device_id == device.id, Report.received_at > received_at - timedelta(minutes=1)
            )
            crowded = (await session.scalar(lately) or 0) >= REPORTS_A_MINUTE
            fresh = await session.change(
                statement.on_conflict_do_nothing(index_elements=[Report.device_id, Report.report_id])
            )
            if not fresh:
                return False
            if crowded:
                raise TooManyReportsError("too many reports in a minute; send the others later", retry_after_s=60)
            await session.change(update(Device).where(Device.id == device.id).values(**_on_device(body, values)))
            oldest_kept = (
                select(Report.id)
                .where(Report.device_id == device.id)
                .order_by(Report.id.desc())
                .offset(REPORTS_KEPT)
                .limit(1)
                .scalar_subquery()
            )
            await session.change(delete(Report).where(Report.device_id == device.id, Report.id <= oldest_kept))
        return True

    async def may_have(self, device: KnownDevice, root_hash: str) -> bool:
        """Tell whether a payload belongs to a bundle of the device's product."""
        if device.owner_id is None or device.product_id is None:
            return False
        return await self._bundles.has_payload(device.product_id, root_hash)


def _on_device(body: ReportBody, values: dict[str, object]) -> dict[str, object]:
    """Return the device's columns that a report changes: the running version, and the last outcome."""
    changed: dict[str, object] = {"last_seen_at": values["received_at"]}
    if body.version:
        changed["version"] = body.version
    if body.event in OUTCOMES:
        changed |= {
            "outcome": body.event,
            "outcome_reason": body.reason,
            "outcome_detail": body.detail,
            "outcome_version": body.to_version,
            "outcome_at": values["received_at"],
        }
    return changed
