"""What can be done with products."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update

from dms_server.accounts.secrets import new_token, token_hash
from dms_server.bundles.models import Bundle, BundleTag
from dms_server.clock import now
from dms_server.db import Database
from dms_server.devices.models import Device
from dms_server.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError
from dms_server.products.models import ClaimToken, Product
from zentrid.bundle.manifest import PRODUCT_PATTERN

STATES = ("preview", "published", "archived")
TITLE_MAX_CHARS = 120
PRODUCTS_MAX = 200
CLAIM_TOKENS_MAX = 10_000
CLAIM_TOKEN_LIFETIME_DAYS = 30


@dataclass(frozen=True)
class ProductSummary:
    """A product with the figures a list shows."""

    code: str
    title: str
    state: str
    created_at: datetime
    bundles: int
    devices: int
    release: str | None
    """The version with the tag `release`."""


class Products:
    """Products of one owner each; what another person owns does not exist for the caller."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, owner_id: int, code: str, title: str) -> Product:
        """Make a product in state preview.

        Raises BadRequestError for a bad code, ConflictError when it is taken, ForbiddenError when its first part
        belongs to another account.
        """
        code, title = code.strip().upper(), title.strip()
        if not PRODUCT_PATTERN.fullmatch(code):
            raise BadRequestError("a product code looks like OWNER-PLATFORM_NAME, capital letters and digits only")
        if not 1 <= len(title) <= TITLE_MAX_CHARS:
            raise BadRequestError(f"a title has 1 to {TITLE_MAX_CHARS} characters")
        prefix = code.split("-")[0]
        async with self._db.write() as session:
            if await session.scalar(select(Product.id).where(Product.code == code)):
                raise ConflictError(f"the product code {code} is taken; choose another")
            others = select(Product.id).where(Product.code.startswith(prefix + "-"), Product.owner_id != owner_id)
            if await session.scalar(others.limit(1)):
                raise ForbiddenError(f"codes beginning with {prefix}- belong to another account; choose another")
            if (await session.scalar(select(func.count()).where(Product.owner_id == owner_id)) or 0) >= PRODUCTS_MAX:
                raise ConflictError(f"an account has at most {PRODUCTS_MAX} products")
            product = Product(code=code, owner_id=owner_id, title=title, state="preview", created_at=now())
            await session.add(product)
        return product

    async def get(self, owner_id: int, code: str) -> Product:
        """Return the owner's product; raises NotFoundError."""
        async with self._db.read() as session:
            product = await session.scalar(select(Product).where(Product.code == code, Product.owner_id == owner_id))
        if product is None:
            raise NotFoundError(f"you have no product {code[:66]}; check the code on the page Products")
        return product

    async def summaries(self, owner_id: int) -> list[ProductSummary]:
        """Return all products of the owner with their figures, by code."""
        bundles = select(func.count()).where(Bundle.product_id == Product.id).scalar_subquery()
        devices = select(func.count()).where(Device.product_id == Product.id).scalar_subquery()
        release = (
            select(Bundle.version)
            .join(BundleTag, BundleTag.bundle_id == Bundle.id)
            .where(BundleTag.product_id == Product.id, BundleTag.tag == "release")
            .scalar_subquery()
        )
        statement = (
            select(Product, bundles, devices, release)
            .where(Product.owner_id == owner_id)
            .order_by(Product.code)
            .limit(PRODUCTS_MAX)
        )
        async with self._db.read() as session:
            rows = await session.rows(statement)
        return [ProductSummary(p.code, p.title, p.state, p.created_at, b, d, r) for p, b, d, r in rows]

    async def change(self, owner_id: int, code: str, *, title: str | None = None, state: str | None = None) -> None:
        """Change title or state. A published product never becomes a preview again."""
        product = await self.get(owner_id, code)
        values: dict[str, str] = {}
        if title is not None:
            if not 1 <= len(title.strip()) <= TITLE_MAX_CHARS:
                raise BadRequestError(f"a title has 1 to {TITLE_MAX_CHARS} characters")
            values["title"] = title.strip()
        if state is not None:
            if state not in STATES:
                raise BadRequestError(f"a product is {', '.join(STATES[:-1])} or {STATES[-1]}")
            if state == "preview" and product.state != "preview":
                raise ConflictError("a product that was published does not become a preview again")
            values["state"] = state
        if values:
            async with self._db.write() as session:
                await session.change(update(Product).where(Product.id == product.id).values(**values))

    async def new_claim_token(self, owner_id: int, code: str) -> tuple[str, datetime]:
        """Make a token that claims one device for this product; return it, this once, and when it expires."""
        product = await self.get(owner_id, code)
        token = new_token("zd")
        expires = now() + timedelta(days=CLAIM_TOKEN_LIFETIME_DAYS)
        row = ClaimToken(product_id=product.id, token_hash=token_hash(token), created_at=now(), expires_at=expires)
        async with self._db.write() as session:
            live = select(func.count()).where(
                ClaimToken.product_id == product.id, ClaimToken.used_at.is_(None), ClaimToken.expires_at > now()
            )
            if (await session.scalar(live) or 0) >= CLAIM_TOKENS_MAX:
                raise ConflictError(f"a product has at most {CLAIM_TOKENS_MAX} unused claim tokens")
            await session.add(row)
        return token, expires
