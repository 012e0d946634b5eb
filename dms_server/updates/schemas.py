"""What devices send, typed and bounded."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from dms_server.body import Body
from dms_server.faults.schemas import FaultBody
from zentrid.core.text import printable

DeviceUuid = Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{36}$")]
VersionText = Annotated[str, Field(pattern=r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,5}$")]
ITEMS_MAX = 128
ProductText = Annotated[str, Field(max_length=66)]


class Claim(Body):
    """A claim: by name and password, or by product and one-time token."""

    uuid: DeviceUuid
    user: Annotated[str, Field(max_length=64)] | None = None
    password: Annotated[str, Field(max_length=256)] | None = None
    product: ProductText | None = None
    token: Annotated[str, Field(max_length=128)] | None = None


class Activate(Body):
    """The product to activate."""

    uuid: DeviceUuid
    product: ProductText


class Slot(Body):
    """One slot, as the device sees it."""

    slot: Annotated[str, Field(max_length=32)] | None = None
    version: Annotated[str, Field(max_length=20)] | None = None
    state: Annotated[str, Field(max_length=32)] | None = None
    running: bool | None = None
    good: bool | None = None
    tries_left: Annotated[int, Field(ge=0, le=255)] | None = None


class ItemBody(Body):
    """One application or file of a release that the device has, beside its slots."""

    type: Annotated[str, Field(max_length=16), AfterValidator(printable)]
    name: Annotated[str, Field(max_length=255), AfterValidator(printable)]
    version: Annotated[str, Field(max_length=32), AfterValidator(printable)] | None = None
    root_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Check(Body):
    """An update check, with the inventory that rides along."""

    uuid: DeviceUuid
    version: VersionText | None = None
    product: ProductText | None = None
    board: Annotated[str, Field(max_length=32)] | None = None
    slots: Annotated[list[Slot], Field(max_length=8)] = Field(default_factory=list)
    safemode: bool = False
    faults: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    force: bool = False
    want: VersionText | None = None
    items: Annotated[list[ItemBody], Field(max_length=ITEMS_MAX)] | None = None
    """None: the device says nothing of them; empty: it has none."""


class ReportBody(Body):
    """One report; `id` is the same when it is sent again."""

    uuid: DeviceUuid
    id: UUID
    time: Annotated[str, Field(max_length=40)]
    event: Literal["installed", "rolled_back", "failed", "cancelled", "progress", "boot", "fault", "command"]
    version: VersionText | None = None
    from_version: Annotated[VersionText | None, Field(alias="from")] = None
    to_version: Annotated[VersionText | None, Field(alias="to")] = None
    reason: Annotated[str, Field(max_length=64)] | None = None
    detail: Annotated[str, Field(max_length=4096)] | None = None
    fault: FaultBody | None = None
    """With the event `fault`."""


class StatusQuery(Body):
    """What a device may tell of itself when it asks for its status; all may be absent."""

    version: VersionText | None = None
    safemode: bool | None = None
    faults: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
