"""Commands to devices: asked for by the owner, fetched with the device's status, answered before they are done.

A device acts only after its answer was taken here, so what is withdrawn, expired or answered already is never done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import structlog
from sqlalchemy import Select, delete, select, update

from dms_server.clock import now
from dms_server.commands.models import DeviceCommand
from dms_server.db import Database, Session
from dms_server.devices.known import KnownDevice
from dms_server.devices.models import Device
from dms_server.errors import BadRequestError, ConflictError, NotFoundError

log = structlog.get_logger()

FACTORY_RESET = "factory_reset"
LIFETIME = timedelta(days=7)
AT_ONCE = 4
"""Commands in one status."""
KEPT = 64
"""Commands of one device; the oldest go."""
DETAIL_MAX_CHARS = 200
CONFIRM_CHARS = 6


class Commands:
    """Commands; for a person only those for their own devices exist."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # --- by the owner -----------------------------------------------------------------------------------------------
    async def ask_factory_reset(
        self, owner_id: int, uuid: str, *, settings_only: bool, confirm: str
    ) -> tuple[DeviceCommand, bool]:
        """Ask for a factory reset; return the command and whether it is new: the same one that waits is given again.

        `confirm`: the device's UUID or its last six characters. Raises NotFoundError, BadRequestError (wrong confirmation),
        ConflictError (the device is revoked, or another kind of reset waits).
        """
        uuid, confirm = uuid.lower(), confirm.strip().lower()
        async with self._db.write() as session:
            device = await _own(session, owner_id, uuid)
            if confirm not in (uuid, uuid[-CONFIRM_CHARS:]):
                raise BadRequestError(
                    f"to confirm, give the UUID of this device or its last {CONFIRM_CHARS} characters"
                )
            if device.revoked_at is not None:
                raise ConflictError("this device is revoked, the server does not talk to it any more")
            await _expire(session, device.id)
            waiting = await session.scalar(
                select(DeviceCommand).where(
                    DeviceCommand.device_id == device.id,
                    DeviceCommand.kind == FACTORY_RESET,
                    DeviceCommand.state == "waiting",
                )
            )
            if waiting is not None:
                if waiting.settings_only != settings_only:
                    what = "of the settings" if waiting.settings_only else "of everything"
                    raise ConflictError(f"a factory reset {what} waits already; withdraw it before you ask for another")
                return waiting, False
            command = DeviceCommand(
                command_id=str(uuid4()),
                device_id=device.id,
                kind=FACTORY_RESET,
                settings_only=settings_only,
                requested_by=owner_id,
                requested_at=now(),
                state="waiting",
                detail="",
            )
            await session.add(command)
            await _drop_old(session, device.id)
        log.warning("factory_reset_asked", device=uuid, by=owner_id, settings_only=settings_only)
        return command, True

    async def withdraw(self, owner_id: int, uuid: str, command_id: str) -> DeviceCommand:
        """Take back a command that waits. Raises NotFoundError, ConflictError (it does not wait any more)."""
        async with self._db.write() as session:
            device = await _own(session, owner_id, uuid.lower())
            await _expire(session, device.id)
            command = await session.scalar(
                _of(device.id, owner_id).where(DeviceCommand.command_id == command_id.lower())
            )
            if command is None:
                raise NotFoundError("this device has no such command")
            if command.state not in ("waiting", "withdrawn"):
                raise ConflictError(f"this command is {command.state} already")
            if command.state == "waiting":
                command.state, command.answered_at = "withdrawn", now()
        return command

    async def of_device(self, owner_id: int, uuid: str) -> Sequence[DeviceCommand]:
        """Return the commands that this owner gave to a device, newest first."""
        async with self._db.read() as session:
            device = await _own(session, owner_id, uuid.lower())
            found = await session.scalars(_of(device.id, owner_id).order_by(DeviceCommand.id.desc()).limit(KEPT))
        for command in found:
            if command.state == "waiting" and command.requested_at <= _cutoff():
                command.state = "expired"
        return found

    # --- from the device --------------------------------------------------------------------------------------------
    async def waiting(self, device: KnownDevice) -> Sequence[DeviceCommand]:
        """Return what waits for the device, oldest first; only what its owner of now asked for."""
        if device.owner_id is None:
            return ()
        statement = _of(device.id, device.owner_id).where(
            DeviceCommand.state == "waiting", DeviceCommand.requested_at > _cutoff()
        )
        async with self._db.read() as session:
            return await session.scalars(statement.order_by(DeviceCommand.id).limit(AT_ONCE))

    async def answer(self, device: KnownDevice, command_id: str, *, accepted: bool, detail: str) -> bool:
        """Take the device's answer; return False when it was taken before. When this returns, it is on the disk.

        Raises NotFoundError (no such command for this device), ConflictError (it does not wait any more): the device must
        not act then.
        """
        state = "accepted" if accepted else "refused"
        async with self._db.write() as session:
            await _expire(session, device.id)
            command = await session.scalar(
                _of(device.id, device.owner_id).where(DeviceCommand.command_id == command_id)
            )
            fresh = command is not None and command.state == "waiting"
            if command is not None and fresh:
                command.state, command.answered_at = state, now()
                command.detail = detail[:DETAIL_MAX_CHARS]
        if command is None:
            raise NotFoundError("there is no such command for this device")
        if command.state != state:
            raise ConflictError(f"this command is {command.state}; do not carry it out")
        if fresh:
            log.warning("command_answered", device=device.uuid, command=command_id, state=state)
        return fresh


def _of(device_id: int, owner_id: int | None) -> Select[DeviceCommand]:
    return select(DeviceCommand).where(DeviceCommand.device_id == device_id, DeviceCommand.requested_by == owner_id)


def _cutoff() -> datetime:
    return now() - LIFETIME


async def _own(session: Session, owner_id: int, uuid: str) -> Device:
    device = await session.scalar(select(Device).where(Device.uuid == uuid, Device.owner_id == owner_id))
    if device is None:
        raise NotFoundError("you have no device with that UUID")
    return device


async def _expire(session: Session, device_id: int) -> None:
    await session.change(
        update(DeviceCommand)
        .where(
            DeviceCommand.device_id == device_id,
            DeviceCommand.state == "waiting",
            DeviceCommand.requested_at <= _cutoff(),
        )
        .values(state="expired")
    )


async def _drop_old(session: Session, device_id: int) -> None:
    of_device = DeviceCommand.device_id == device_id
    oldest = select(DeviceCommand.id).where(of_device).order_by(DeviceCommand.id.desc()).offset(KEPT).limit(1)
    await session.change(delete(DeviceCommand).where(of_device, DeviceCommand.id <= oldest.scalar_subquery()))


async def withdraw_all(session: Session, uuid: str, owner_id: int) -> None:
    """Inside the caller's transaction, take back what waits for the owner's device: it changes hands or is shut out."""
    device_id = select(Device.id).where(Device.uuid == uuid, Device.owner_id == owner_id).scalar_subquery()
    await session.change(
        update(DeviceCommand)
        .where(DeviceCommand.device_id == device_id, DeviceCommand.state == "waiting")
        .values(state="withdrawn", answered_at=now())
    )
