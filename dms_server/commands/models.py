"""The table of commands to devices."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from dms_server.db import Base, UtcDateTime


class DeviceCommand(Base):
    """One command. State: waiting; then accepted or refused by the device, withdrawn, or expired. No way back."""

    __tablename__ = "device_commands"
    __table_args__ = (Index("ix_device_commands_device_id_state", "device_id", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    command_id: Mapped[str] = mapped_column(String(36), unique=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(32))
    settings_only: Mapped[bool] = mapped_column()
    requested_by: Mapped[int] = mapped_column(ForeignKey("users.id"))
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(String(16))
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    detail: Mapped[str] = mapped_column(String(200))
