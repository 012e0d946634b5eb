"""Tables of bundles, their items and tags. The bytes are files; here is what is known about them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dms_server.db import Base, UtcDateTime


class Bundle(Base):
    """One version of one product. State: draft, published or archived; the content never changes."""

    __tablename__ = "bundles"
    __table_args__ = (UniqueConstraint("product_id", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    version: Mapped[str] = mapped_column(String(20))
    version_number: Mapped[int] = mapped_column()
    state: Mapped[str] = mapped_column(String(16))
    compatible: Mapped[list[str]] = mapped_column(JSON)
    min_version: Mapped[str | None] = mapped_column(String(20))
    boot_floor: Mapped[str | None] = mapped_column(String(20))
    notes: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[int] = mapped_column(ForeignKey("users.id"))


class BundleItem(Base):
    """One payload of a bundle; the file is named by the root hash and may serve several bundles."""

    __tablename__ = "bundle_items"
    __table_args__ = (Index("ix_bundle_items_root_hash_bundle_id", "root_hash", "bundle_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    bundle_id: Mapped[int] = mapped_column(ForeignKey("bundles.id", ondelete="CASCADE"), index=True)
    type: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column()
    root_hash: Mapped[str] = mapped_column(String(64))
    payload_bytes: Mapped[int] = mapped_column()


class BundleTag(Base):
    """Which bundle of a product carries a tag (alpha, beta, release): at most one each."""

    __tablename__ = "bundle_tags"

    product_id: Mapped[int] = mapped_column(ForeignKey("products.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(16), primary_key=True)
    bundle_id: Mapped[int] = mapped_column(ForeignKey("bundles.id"), index=True)
