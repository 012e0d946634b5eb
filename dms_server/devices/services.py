"""What can be done with devices: claiming and activating from the device, looking after them by their owner."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import func, or_, select, update

from dms_server.accounts.guesses import Guesses
from dms_server.accounts.models import User
from dms_server.accounts.secrets import token_hash
from dms_server.accounts.services import Accounts
from dms_server.clock import now
from dms_server.commands.services import withdraw_all
from dms_server.db import Database, Session
from dms_server.devices.known import KnownDevice
from dms_server.devices.models import Device, Report
from dms_server.errors import BadRequestError, ForbiddenError, NotFoundError
from dms_server.products.models import ClaimToken, Product

log = structlog.get_logger()

TAGS = ("alpha", "beta", "release")
ONLINE_S = 15 * 60
"""A device seen within this time counts as online: three missed polls of five minutes."""
PAGE_MAX = 100
NOTES_MAX_CHARS = 2000


class Devices:
    """Devices; for a person only their own exist."""

    def __init__(self, db: Database, accounts: Accounts, guesses: Guesses) -> None:
        self._db = db
        self._accounts = accounts
        self._guesses = guesses

    # --- from the device ------------------------------------------------------------------------------------------
    async def claim_with_password(self, device: KnownDevice, user: str, password: str) -> str:
        """Claim a device for a person; return the sentence for the console. Repeating it is no error.

        Raises ForbiddenError: wrong name or password, or the device belongs to another account.
        """
        owner = await self._accounts.check_password(user, password, f"device:{device.uuid}")
        if owner.confirmed_at is None:
            raise ForbiddenError("this account's e-mail address is not confirmed yet; follow the link that was sent")
        async with self._db.write() as session:
            return await _take(session, device, owner.id, owner.name, None)

    async def claim_with_token(self, device: KnownDevice, product: str, token: str) -> str:
        """Claim a device for a product's owner with a one-time token, and activate the product.

        Raises ForbiddenError: wrong, used or expired token, or the device belongs to another account.
        """
        attempt = await self._guesses.begin(f"device:{device.uuid}")
        statement = (
            select(ClaimToken, Product, User)
            .join(Product, Product.id == ClaimToken.product_id)
            .join(User, User.id == Product.owner_id)
            .where(ClaimToken.token_hash == token_hash(token), Product.code == product, ClaimToken.expires_at > now())
            .where(or_(ClaimToken.used_at.is_(None), ClaimToken.used_by == device.id))
        )
        async with self._db.write() as session:
            row = await session.row(statement)
            if row is not None:
                claim, found, owner = row
                await session.change(
                    update(ClaimToken).where(ClaimToken.id == claim.id).values(used_at=now(), used_by=device.id)
                )
                message = await _take(session, device, owner.id, owner.name, found)
        if row is not None:
            await self._guesses.right(attempt)
            return message
        log.warning("wrong_claim_token", device=device.uuid, product=product)
        await self._guesses.wrong(attempt)
        raise ForbiddenError("wrong product or token, or the token was used or has expired")

    async def activate(self, device: KnownDevice, code: str) -> str:
        """Make a product the device's one active product; return the sentence for the console.

        Raises ForbiddenError when the device is not claimed or may not change, NotFoundError for a product that its
        owner may not use.
        """
        if device.owner_id is None:
            raise ForbiddenError("device not claimed")
        async with self._db.write() as session:
            product = await session.scalar(
                select(Product).where(Product.code == code, Product.owner_id == device.owner_id)
            )
            if product is None or product.state == "archived":
                raise NotFoundError(f"no product {code[:66]} that this device's owner may use; check the code")
            await _set_product(session, device.id, product)
        return f"product {product.code} activated"

    # --- by the owner ---------------------------------------------------------------------------------------------
    async def page(
        self, owner_id: int, *, search: str = "", product: str = "", offset: int = 0, limit: int = PAGE_MAX
    ) -> tuple[int, Sequence[tuple[Device, str | None]]]:
        """Return how many devices match and one page of them with their product codes, last seen first."""
        statement = select(Device, Product.code).outerjoin(Product, Product.id == Device.product_id)
        statement = statement.where(Device.owner_id == owner_id)
        if search:
            pattern = "%" + search[:64].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            statement = statement.where(
                or_(
                    Device.uuid.like(pattern.lower(), escape="\\"),
                    Device.notes.like(pattern, escape="\\"),
                    Device.version.like(pattern, escape="\\"),
                    Device.ip.like(pattern, escape="\\"),
                )
            )
        if product:
            statement = statement.where(Product.code == product)
        async with self._db.read() as session:
            total = await session.scalar(select(func.count()).select_from(statement.subquery()))
            newest = statement.order_by(Device.last_seen_at.desc(), Device.id).offset(max(offset, 0))
            rows = await session.rows(newest.limit(min(max(limit, 1), PAGE_MAX)))
        return total or 0, [(row[0], row[1]) for row in rows]

    async def get(self, owner_id: int, uuid: str) -> tuple[Device, str | None]:
        """Return the owner's device and its product code; raises NotFoundError."""
        statement = (
            select(Device, Product.code)
            .outerjoin(Product, Product.id == Device.product_id)
            .where(Device.uuid == uuid.lower(), Device.owner_id == owner_id)
        )
        async with self._db.read() as session:
            row = await session.row(statement)
        if row is None:
            raise NotFoundError("you have no device with that UUID")
        return row[0], row[1]

    async def reports(self, device_id: int, limit: int = PAGE_MAX) -> Sequence[Report]:
        """Return the newest reports of a device."""
        statement = select(Report).where(Report.device_id == device_id).order_by(Report.id.desc())
        async with self._db.read() as session:
            return await session.scalars(statement.limit(min(max(limit, 1), PAGE_MAX)))

    async def change(self, owner_id: int, uuid: str, *, tag: str | None = None, notes: str | None = None) -> None:
        """Set the tag or the notes of a device."""
        values: dict[str, str] = {}
        if tag is not None:
            if tag not in TAGS:
                raise BadRequestError(f"a device's tag is {', '.join(TAGS[:-1])} or {TAGS[-1]}")
            values["tag"] = tag
        if notes is not None:
            if len(notes) > NOTES_MAX_CHARS:
                raise BadRequestError(f"notes have at most {NOTES_MAX_CHARS} characters")
            values["notes"] = notes
        if values:
            await self._update(owner_id, uuid, **values)

    async def release(self, owner_id: int, uuid: str) -> None:
        """Give a device up: it is unclaimed again and anyone who holds it may claim it."""
        await self._part(owner_id, uuid, owner_id=None, product_id=None, claimed_at=None, tag="release", notes="")

    async def transfer(self, owner_id: int, uuid: str, to: str) -> None:
        """Give a device to another account, without its product: that belongs to the one who gives."""
        async with self._db.read() as session:
            other = await session.scalar(
                select(User.id).where(User.name == to.strip().lower(), User.confirmed_at.is_not(None))
            )
        if other is None:
            raise NotFoundError("there is no confirmed account of that name")
        await self._part(owner_id, uuid, owner_id=other, product_id=None, claimed_at=now(), notes="")

    async def revoke(self, owner_id: int, uuid: str) -> None:
        """Refuse the device's certificate from now on. There is no way back: its key may be in other hands."""
        await self._part(owner_id, uuid, revoked_at=now())
        log.warning("device_revoked", device=uuid, by=owner_id)

    async def _part(self, caller_id: int, uuid: str, /, **values: object) -> None:
        """Change who has the device or whether it is let in; what the owner asked of it and waits is taken back first."""
        async with self._db.write() as session:
            await withdraw_all(session, uuid.lower(), caller_id)
            await _change(session, caller_id, uuid, values)

    async def _update(self, caller_id: int, uuid: str, /, **values: object) -> None:
        async with self._db.write() as session:
            await _change(session, caller_id, uuid, values)


async def _change(session: Session, owner_id: int, uuid: str, values: dict[str, object]) -> None:
    """Change the owner's device inside the caller's transaction; raises NotFoundError."""
    statement = update(Device).where(Device.uuid == uuid.lower(), Device.owner_id == owner_id).values(**values)
    if not await session.change(statement):
        raise NotFoundError("you have no device with that UUID")


async def _take(session: Session, device: KnownDevice, owner_id: int, owner: str, product: Product | None) -> str:
    """Claim the device inside the caller's transaction; of two at once exactly one changes the row."""
    won = await session.change(
        update(Device)
        .where(Device.id == device.id, Device.owner_id.is_(None))
        .values(owner_id=owner_id, claimed_at=now())
    )
    if not won and await session.scalar(select(Device.owner_id).where(Device.id == device.id)) != owner_id:
        log.warning("claim_of_claimed_device", device=device.uuid, by=owner)
        raise ForbiddenError("this device is claimed by another account; its owner must release or transfer it first")
    if product is not None:
        await _set_product(session, device.id, product)
    return f"device claimed by {owner}"


async def _set_product(session: Session, device_id: int, product: Product) -> None:
    """Set the active product; a published product on the device is never exchanged for another."""
    held = await session.row(
        select(Product.code, Product.state)
        .join(Device, Device.product_id == Product.id)
        .where(Device.id == device_id, Product.id != product.id)
    )
    if held is not None and held[1] != "preview":
        raise ForbiddenError(f"this device is a {held[0]}; a production product is never exchanged for another")
    await session.change(update(Device).where(Device.id == device_id).values(product_id=product.id))


def online(device: Device) -> bool:
    """Tell whether a device was seen lately."""
    return now() - device.last_seen_at < timedelta(seconds=ONLINE_S)
