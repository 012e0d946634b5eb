"""When and where devices were seen: collected in memory for a second, written in one transaction."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy import bindparam, update

from dms_server.clock import now
from dms_server.db import Database
from dms_server.devices.models import Device

log = structlog.get_logger()

PENDING_MAX = 50_000


@dataclass(slots=True)
class Sighting:
    """What one device last showed of itself; None where it said nothing."""

    at: datetime
    ip: str
    facts: dict[str, Any] = field(default_factory=dict)


class Sightings:
    """Last-seen times, addresses and inventory that wait to be written.

    They are worth one second of a crash; what a device was promised to be kept (reports) does not go this way.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._pending: dict[str, Sighting] = {}
        self._turn = asyncio.Lock()

    def note(self, uuid: str, ip: str, **facts: object) -> None:
        """Remember that a device was here, with what it said about itself (columns of Device)."""
        known = self._pending.get(uuid)
        if known is None:
            if len(self._pending) >= PENDING_MAX:
                return
            self._pending[uuid] = Sighting(now(), ip, dict(facts))
            return
        known.at, known.ip = now(), ip
        known.facts.update(facts)

    async def flush(self) -> None:
        """Write what waits. Called from one place at a time."""
        async with self._turn:
            batch, self._pending = self._pending, {}
            if not batch:
                return
            shapes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
            for uuid, sighting in batch.items():
                row = {"key": uuid, "last_seen_at": sighting.at, "ip": sighting.ip, **sighting.facts}
                shapes.setdefault(tuple(sorted(row)), []).append(row)
            table = Device.__table__
            async with self._db.write() as session:
                for rows in shapes.values():
                    values: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "key"}
                    statement = update(table).where(table.c.uuid == bindparam("key")).values(values)  # type: ignore[arg-type]
                    await session.change(statement, rows)


class Presence:
    """The connections that are open now. One identity at two addresses at a time means a copied key: an alarm."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._open: dict[str, WeakKeyDictionary[asyncio.BaseTransport, str]] = {}
        self._prune_at = PENDING_MAX

    def connected(self, uuid: str, transport: asyncio.BaseTransport, ip: str) -> str | None:
        """Note a connection; a new one from another address than an open one returns that other address."""
        peers = self._open.setdefault(uuid, WeakKeyDictionary())
        if transport in peers:
            return None
        others = [address for other, address in peers.items() if not other.is_closing() and address != ip]
        peers[transport] = ip
        if len(self._open) > self._prune_at:
            self._open = {key: value for key, value in self._open.items() if len(value)}
            self._prune_at = max(PENDING_MAX, 2 * len(self._open))
        return others[0] if others else None

    async def raise_alarm(self, uuid: str, ip: str, other: str) -> None:
        """Write the alarm to the device and to the log."""
        text = f"connected from {other} and from {ip} at the same time: its key may have been copied"
        log.error("device_in_two_places", device=uuid, ip=ip, other=other)
        async with self._db.write() as session:
            await session.change(update(Device).where(Device.uuid == uuid).values(alarm=text, alarm_at=now()))
