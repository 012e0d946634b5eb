"""The table of patches: the queue of those to make, and what is known of those that were made. The bytes are files."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dms_server.db import Base, UtcDateTime

QUEUED, MAKING, READY, FAILED, LARGER = "queued", "making", "ready", "failed", "larger"
STATES = (QUEUED, MAKING, READY, FAILED, LARGER)
"""`larger`: the patch was made and is no smaller than the full payload, so it is of no use."""
REASON_MAX_CHARS = 200


class Patch(Base):
    """The patch that makes one payload out of another, both named by root hash; one that was dropped has no row."""

    __tablename__ = "patches"
    __table_args__ = (
        UniqueConstraint("target_root", "base_root"),
        Index("ix_patches_state_priority", "state", "priority"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    base_root: Mapped[str] = mapped_column(String(64))
    target_root: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(server_default="0")
    """1: a device waits for it."""
    queued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a device first asked for it and had to wait."""
    device_id: Mapped[int | None] = mapped_column(ForeignKey("devices.id", ondelete="SET NULL"), index=True)
    """The device that had it queued; none: made because a release was published."""
    tries: Mapped[int] = mapped_column(server_default="0")
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """After a failed try: when the next one may begin."""
    reason: Mapped[str] = mapped_column(String(REASON_MAX_CHARS), server_default="")
    """Why the last try failed."""
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    took_ms: Mapped[int | None] = mapped_column()
    size_bytes: Mapped[int | None] = mapped_column()
    """Of the stream, once it was made (also when it is `larger`)."""
    sha256: Mapped[str | None] = mapped_column(String(64))
    served_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
