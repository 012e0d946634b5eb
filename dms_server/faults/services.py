"""Faults: kept as devices report them, read with backtraces by the devices' owners."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dms_server.clock import now
from dms_server.db import Database
from dms_server.devices.known import KnownDevice
from dms_server.devices.models import Device
from dms_server.errors import BadRequestError, TooManyReportsError
from dms_server.faults.backtraces import Backtraces
from dms_server.faults.models import Fault
from dms_server.faults.schemas import DETAIL_MAX_CHARS
from dms_server.updates.schemas import ReportBody
from zentrid.core.text import printable

log = structlog.get_logger()

FAULTS_KEPT = 256
"""Faults of one device; the oldest go."""
FAULTS_A_MINUTE = 120
"""New ones from one device. A device's whole outbox, twice: one that has more is out of order."""
PAGE_MAX = 100


@dataclass(frozen=True)
class FaultView:
    """A fault with its backtrace, a line for each frame, innermost first."""

    fault: Fault
    backtrace: list[str]


class Faults:
    """What went wrong on devices."""

    def __init__(self, db: Database, backtraces: Backtraces) -> None:
        self._db = db
        self._backtraces = backtraces

    async def keep(self, device: KnownDevice, body: ReportBody) -> bool:
        """Keep a fault; return False when it was here before. When this returns, it is on the disk.

        Raises BadRequestError for a report without a fault, TooManyReportsError.
        """
        if body.fault is None:
            raise BadRequestError("fault: a report of a fault needs this field")
        received_at, report_id = now(), str(body.id)
        values = {
            **body.fault.model_dump(include={"cause", "slot", "version", "uptime_s", "text"}),
            "frames": [frame.model_dump() for frame in body.fault.frames],
            "device_id": device.id,
            "report_id": report_id,
            "device_time": body.fault.utc or printable(body.time),
            "received_at": received_at,
            "detail": printable(body.detail or "")[:DETAIL_MAX_CHARS],
        }
        of_device = Fault.device_id == device.id
        async with self._db.write() as session:
            if await session.scalar(select(Fault.id).where(of_device, Fault.report_id == report_id)) is not None:
                return False
            lately = select(func.count()).where(of_device, Fault.received_at > received_at - timedelta(minutes=1))
            if (await session.scalar(lately) or 0) >= FAULTS_A_MINUTE:
                raise TooManyReportsError("too many faults in a minute; send the others later", retry_after_s=60)
            last = await session.scalar(select(func.max(Fault.number)).where(of_device))
            await session.change(sqlite_insert(Fault).values(number=(last or 0) + 1, **values))
            changed: dict[str, object] = {"last_seen_at": received_at}
            changed |= {"version": body.version} if body.version else {}
            await session.change(update(Device).where(Device.id == device.id).values(**changed))
            oldest = select(Fault.id).where(of_device).order_by(Fault.id.desc()).offset(FAULTS_KEPT).limit(1)
            await session.change(delete(Fault).where(of_device, Fault.id <= oldest.scalar_subquery()))
        log.info("fault_reported", device=device.uuid, cause=body.fault.cause, version=body.fault.version)
        return True

    async def close(self) -> None:
        """End what goes on without a request."""
        await self._backtraces.close()

    async def of_device(
        self, device: Device, limit: int = PAGE_MAX, patience_s: float | None = None
    ) -> list[FaultView]:
        """Return the newest faults of a device, read with the symbol files of its owner.

        With `patience_s`, backtraces whose symbol files are not read by then say so, and are there the next time.
        """
        statement = select(Fault).where(Fault.device_id == device.id).order_by(Fault.id.desc())
        async with self._db.read() as session:
            faults = await session.scalars(statement.limit(min(max(limit, 1), PAGE_MAX)))
        if device.owner_id is None:
            return []
        lines = await self._backtraces.of(device.owner_id, faults, patience_s)
        return [FaultView(*pair) for pair in zip(faults, lines, strict=True)]
