"""The device door's application: every request is bound to the certificate before a handler sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import structlog
from aiohttp import web

from dms_server.body import parse_values
from dms_server.clock import iso, now
from dms_server.core import CORE, Core
from dms_server.devices.known import KnownDevice, meet_device
from dms_server.errors import BadRequestError, DmsError, ForbiddenError
from dms_server.http import REQUEST_ID, Handler, core_of, peer_ip, read_body, request_log
from dms_server.tls import certificate_uuid
from dms_server.updates.schemas import Activate, Check, Claim, ReportBody, StatusQuery
from zentrid.core.text import printable

log = structlog.get_logger()

DEVICE = web.RequestKey("device", KnownDevice)
UUID_HEADER = "X-Zentri-UUID"
B = TypeVar("B", Claim, Activate, Check, ReportBody)

_uuid_of: WeakKeyDictionary[object, str] = WeakKeyDictionary()
"""The UUID of each open connection: its certificate is looked at once."""


def answer(body: dict[str, object], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return JSON without blanks: devices print it as it is."""
    data = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(body=data, status=status, content_type="application/json", headers=headers)


def _refusal(status: int, message: str, retry_after_s: int | None = None) -> web.Response:
    if not retry_after_s:
        return answer({"result": "fail", "message": message}, status)
    body: dict[str, object] = {"result": "fail", "message": message, "retry_after_s": retry_after_s}
    return answer(body, status, {"Retry-After": str(retry_after_s)})


@web.middleware
async def device_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into the two fields that devices know."""
    try:
        return await handler(request)
    except DmsError as error:
        return _refusal(error.status, str(error), error.retry_after_s)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _refusal(error.status, f"{error.reason}: check the device's release and the address it asked for")
    except Exception:
        log.exception("device_request_failed", id=request[REQUEST_ID], path=request.path)
        return _refusal(500, f"the server failed; its log says why under {request[REQUEST_ID]}")


def _connection_uuid(request: web.Request) -> str:
    transport = request.transport
    if transport is None:
        raise ForbiddenError("the connection is closed")
    uuid = _uuid_of.get(transport)
    if uuid is None:
        uuid = certificate_uuid(transport.get_extra_info("peercert"))
        _uuid_of[transport] = uuid
    return uuid


def require_same_uuid(request: web.Request, uuid: str, sent: str | None) -> None:
    """Raise ForbiddenError when a UUID that was sent is not the certificate's; that is an attack or a mix-up."""
    if sent is not None and sent.lower() != uuid:
        log.warning("device_uuid_mismatch", certificate=uuid, sent=sent[:64], ip=peer_ip(request))
        raise ForbiddenError("the UUID sent is not the one in the certificate; provision the device again")


@web.middleware
async def bind_device(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find the device of the connection; refuse a revoked one; note that it was here."""
    core, uuid, ip = core_of(request), _connection_uuid(request), peer_ip(request)
    require_same_uuid(request, uuid, request.headers.get(UUID_HEADER))
    require_same_uuid(request, uuid, request.query.get("uuid"))
    device = await meet_device(core.db, uuid, ip)
    if device.revoked:
        log.warning("revoked_device", device=uuid, ip=ip)
        refused = _refusal(403, "this device's certificate is revoked; provision the device again")
        refused.force_close()
        return refused
    assert request.transport is not None
    other = core.presence.connected(uuid, request.transport, ip)
    if other is not None:
        await core.presence.raise_alarm(uuid, ip, other)
    core.sightings.note(uuid, ip)
    request[DEVICE] = device
    return await handler(request)


async def _body(request: web.Request, model: type[B]) -> B:
    body = await read_body(request, model)
    require_same_uuid(request, request[DEVICE].uuid, body.uuid)
    return body


async def claim(request: web.Request) -> web.Response:
    """POST /device/v1/claim."""
    body, devices, device = await _body(request, Claim), core_of(request).devices, request[DEVICE]
    if body.user is not None and body.password is not None:
        message = await devices.claim_with_password(device, body.user, body.password)
    elif body.product is not None and body.token is not None:
        message = await devices.claim_with_token(device, body.product, body.token)
    else:
        raise BadRequestError("a claim needs user and password, or product and token")
    return answer({"result": "ok", "message": message})


async def activate(request: web.Request) -> web.Response:
    """POST /device/v1/activate."""
    body = await _body(request, Activate)
    message = await core_of(request).devices.activate(request[DEVICE], body.product)
    return answer({"result": "ok", "message": message})


async def status(request: web.Request) -> web.Response:
    """GET /device/v1/status?version=&safemode=&faults=: what the server knows, and what the owner asks of the device."""
    device, core = request[DEVICE], core_of(request)
    told = parse_values(request.query, StatusQuery).model_dump(exclude_none=True)
    core.sightings.note(device.uuid, peer_ip(request), **told)
    waiting = await core.commands.waiting(device)
    return answer(
        {
            "claimed": device.owner_id is not None,
            "owner": device.owner,
            "product": device.product,
            "tag": device.tag,
            "time": iso(now()),
            "commands": [
                {"id": command.command_id, "command": command.kind, "settings_only": command.settings_only}
                for command in waiting
            ],
        }
    )


async def check(request: web.Request) -> web.Response:
    """POST /device/v1/check."""
    body, core, device = await _body(request, Check), core_of(request), request[DEVICE]
    slots = [slot.model_dump(exclude_none=True) for slot in body.slots]
    facts: dict[str, object] = {"safemode": body.safemode, "faults": body.faults, "slots": slots}
    facts |= {"version": body.version} if body.version else {}
    facts |= {"board": body.board} if body.board else {}
    facts |= {"items": [item.model_dump() for item in body.items]} if body.items is not None else {}
    core.sightings.note(device.uuid, peer_ip(request), **facts)
    found = await core.updates.check(device, body)
    if found.version is None:
        return answer({"result": "ok", "update": None, "message": found.message})
    update = {
        "product": found.product,
        "version": found.version,
        "target": f"{found.product}/{found.version}/manifest.json",
    }
    return answer({"result": "ok", "update": update})


async def report(request: web.Request) -> web.Response:
    """POST /device/v1/report."""
    body, core, device = await _body(request, ReportBody), core_of(request), request[DEVICE]
    if body.event == "fault":
        fresh = await core.faults.keep(device, body)
    elif body.event == "command":
        fresh = await _command_answer(core, device, body)
    else:
        fresh = await core.updates.report(device, body)
    return answer({"result": "ok", "message": "report kept" if fresh else "report was here before"})


async def _command_answer(core: Core, device: KnownDevice, body: ReportBody) -> bool:
    """Take a device's answer to a command; the device acts only if this does not raise."""
    if body.reason not in ("accepted", "refused"):
        raise BadRequestError("reason: the answer to a command is accepted or refused")
    detail = printable(body.detail or "")
    return await core.commands.answer(device, str(body.id), accepted=body.reason == "accepted", detail=detail)


def device_app(core: Core, routes: Callable[[web.Application], None]) -> web.Application:
    """Return the device door's application; `routes` adds those of the other domains."""
    app = web.Application(
        middlewares=[request_log("device"), device_errors, bind_device], client_max_size=core.settings.json_max_bytes
    )
    app[CORE] = core
    app.router.add_post("/device/v1/claim", claim)
    app.router.add_post("/device/v1/activate", activate)
    app.router.add_get("/device/v1/status", status)
    app.router.add_post("/device/v1/check", check)
    app.router.add_post("/device/v1/report", report)
    routes(app)
    return app
