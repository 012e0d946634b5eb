"""Tables of devices and of what they reported."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from dms_server.db import Base, UtcDateTime


class Device(Base):
    """A device that has shown a good certificate at least once."""

    __tablename__ = "devices"

    id: Mapped[int] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    product_id: Mapped[int | None] = mapped_column(ForeignKey("products.id"), index=True)
    tag: Mapped[str] = mapped_column(String(16), server_default="release")
    notes: Mapped[str] = mapped_column(Text, server_default="")
    first_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    ip: Mapped[str] = mapped_column(String(64), server_default="")
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    version: Mapped[str | None] = mapped_column(String(20))
    board: Mapped[str | None] = mapped_column(String(32))
    safemode: Mapped[bool] = mapped_column(server_default=text("0"))
    faults: Mapped[int] = mapped_column(server_default="0")
    slots: Mapped[list[object] | None] = mapped_column(JSON)
    items: Mapped[list[object] | None] = mapped_column(JSON)
    """Applications and files, as the device said last."""

    outcome: Mapped[str | None] = mapped_column(String(16))
    outcome_reason: Mapped[str | None] = mapped_column(String(64))
    outcome_detail: Mapped[str | None] = mapped_column(Text)
    outcome_version: Mapped[str | None] = mapped_column(String(20))
    outcome_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    alarm: Mapped[str | None] = mapped_column(String(200))
    alarm_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Report(Base):
    """One report of a device. `report_id` is the device's own; a repeated one is the same report."""

    __tablename__ = "reports"
    __table_args__ = (
        UniqueConstraint("device_id", "report_id"),
        Index("ix_reports_device_id_id", "device_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"))
    report_id: Mapped[str] = mapped_column(String(36))
    device_time: Mapped[str] = mapped_column(String(40))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    event: Mapped[str] = mapped_column(String(16))
    version: Mapped[str | None] = mapped_column(String(20))
    from_version: Mapped[str | None] = mapped_column(String(20))
    to_version: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(Text)
