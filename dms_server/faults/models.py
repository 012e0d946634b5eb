"""Tables of faults and of symbol files. A symbol file's bytes are a file; here is whose it is and what it is for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dms_server.db import Base, UtcDateTime


class Fault(Base):
    """One fault of a device. `report_id` is the device's own; a repeated one is the same fault."""

    __tablename__ = "faults"
    __table_args__ = (
        UniqueConstraint("device_id", "report_id"),
        Index("ix_faults_device_id_id", "device_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"))
    report_id: Mapped[str] = mapped_column(String(36))
    number: Mapped[int] = mapped_column()
    """Counts the device's faults from 1; the ones that were dropped keep their numbers."""
    cause: Mapped[str] = mapped_column(String(64))
    slot: Mapped[str] = mapped_column(String(1))
    version: Mapped[str] = mapped_column(String(20))
    uptime_s: Mapped[int] = mapped_column(BigInteger)
    device_time: Mapped[str] = mapped_column(String(40))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    detail: Mapped[str] = mapped_column(String(160))
    frames: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    text: Mapped[str] = mapped_column(Text)
    backtrace: Mapped[list[str] | None] = mapped_column(JSON)
    """Readable lines, once they were worked out."""
    backtrace_key: Mapped[str | None] = mapped_column(String(64))
    """Which symbol files `backtrace` was made with: with others it is made anew."""


class SymbolRow(Base):
    """One account's symbol file for a build-id; the file is named by its SHA-256 and may serve several accounts."""

    __tablename__ = "symbol_files"
    __table_args__ = (UniqueConstraint("owner_id", "build_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    build_id: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column()
    uploaded_at: Mapped[datetime] = mapped_column(UtcDateTime)
