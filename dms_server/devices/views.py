"""The API of devices, for their owners."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from dms_server.accounts.guard import principal_of
from dms_server.body import Body
from dms_server.clock import iso
from dms_server.devices.models import Device, Report
from dms_server.devices.services import NOTES_MAX_CHARS, PAGE_MAX, online
from dms_server.errors import BadRequestError
from dms_server.http import core_of, read_body


class DeviceChange(Body):
    """What an owner may set; what is absent stays."""

    tag: Annotated[str, Field(max_length=16)] | None = None
    notes: Annotated[str, Field(max_length=NOTES_MAX_CHARS)] | None = None


class Transfer(Body):
    """The account that gets the device."""

    user: Annotated[str, Field(max_length=64)]


def device_json(device: Device, product: str | None) -> dict[str, object]:
    """Return a device as the API shows it."""
    return {
        "uuid": device.uuid,
        "product": product,
        "tag": device.tag,
        "notes": device.notes,
        "version": device.version,
        "board": device.board,
        "safemode": device.safemode,
        "faults": device.faults,
        "slots": device.slots or [],
        "items": device.items or [],
        "ip": device.ip,
        "online": online(device),
        "first_seen_at": iso(device.first_seen_at),
        "last_seen_at": iso(device.last_seen_at),
        "claimed_at": iso(device.claimed_at),
        "revoked_at": iso(device.revoked_at),
        "outcome": device.outcome,
        "outcome_reason": device.outcome_reason,
        "outcome_detail": device.outcome_detail,
        "outcome_version": device.outcome_version,
        "outcome_at": iso(device.outcome_at),
        "alarm": device.alarm,
        "alarm_at": iso(device.alarm_at),
    }


def report_json(report: Report) -> dict[str, object]:
    """Return a report as the API shows it."""
    return {
        "id": report.report_id,
        "time": report.device_time,
        "received_at": iso(report.received_at),
        "event": report.event,
        "version": report.version,
        "from": report.from_version,
        "to": report.to_version,
        "reason": report.reason,
        "detail": report.detail,
    }


def whole_number(request: web.Request, name: str, default: int, most: int) -> int:
    """Return a query parameter that is a whole number from 0 to `most`; raises BadRequestError."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= most):
        raise BadRequestError(f"{name} is a whole number from 0 to {most}")
    return int(text)


async def devices(request: web.Request) -> web.Response:
    """GET /api/v1/devices?search=&product=&offset=&limit=."""
    principal = principal_of(request, "read")
    total, page = await core_of(request).devices.page(
        principal.user_id,
        search=request.query.get("search", ""),
        product=request.query.get("product", ""),
        offset=whole_number(request, "offset", 0, 10_000_000),
        limit=whole_number(request, "limit", PAGE_MAX, PAGE_MAX),
    )
    return web.json_response({"total": total, "devices": [device_json(device, product) for device, product in page]})


async def device(request: web.Request) -> web.Response:
    """GET /api/v1/devices/<uuid>."""
    principal = principal_of(request, "read")
    found, product = await core_of(request).devices.get(principal.user_id, request.match_info["uuid"])
    return web.json_response(device_json(found, product))


async def reports(request: web.Request) -> web.Response:
    """GET /api/v1/devices/<uuid>/reports?limit=: newest first."""
    principal, core = principal_of(request, "read"), core_of(request)
    found, _ = await core.devices.get(principal.user_id, request.match_info["uuid"])
    history = await core.devices.reports(found.id, whole_number(request, "limit", PAGE_MAX, PAGE_MAX))
    return web.json_response({"reports": [report_json(report) for report in history]})


async def change(request: web.Request) -> web.Response:
    """PATCH /api/v1/devices/<uuid>."""
    principal, body = principal_of(request, "devices"), await read_body(request, DeviceChange)
    devices_of = core_of(request).devices
    await devices_of.change(principal.user_id, request.match_info["uuid"], tag=body.tag, notes=body.notes)
    return await device(request)


async def release(request: web.Request) -> web.Response:
    """POST /api/v1/devices/<uuid>/release."""
    principal = principal_of(request, "devices")
    await core_of(request).devices.release(principal.user_id, request.match_info["uuid"])
    return web.json_response({"result": "ok"})


async def revoke(request: web.Request) -> web.Response:
    """POST /api/v1/devices/<uuid>/revoke."""
    principal = principal_of(request, "devices")
    await core_of(request).devices.revoke(principal.user_id, request.match_info["uuid"])
    return web.json_response({"result": "ok"})


async def transfer(request: web.Request) -> web.Response:
    """POST /api/v1/devices/<uuid>/transfer."""
    principal, body = principal_of(request, "devices"), await read_body(request, Transfer)
    await core_of(request).devices.transfer(principal.user_id, request.match_info["uuid"], body.user)
    return web.json_response({"result": "ok"})


def add_routes(app: web.Application) -> None:
    """Add this domain's API."""
    one = "/api/v1/devices/{uuid:[0-9A-Fa-f-]{36}}"
    app.router.add_get("/api/v1/devices", devices)
    app.router.add_get(one, device)
    app.router.add_get(one + "/reports", reports)
    app.router.add_patch(one, change)
    app.router.add_post(one + "/release", release)
    app.router.add_post(one + "/revoke", revoke)
    app.router.add_post(one + "/transfer", transfer)
