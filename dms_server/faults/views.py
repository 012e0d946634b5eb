"""The API of faults and symbol files, for owners of devices and publishers of releases."""

from __future__ import annotations

from aiohttp import web

from dms_server.accounts.guard import principal_of
from dms_server.bundles.views import received
from dms_server.clock import iso
from dms_server.devices.views import whole_number
from dms_server.errors import TooLargeError
from dms_server.faults.models import SymbolRow
from dms_server.faults.services import PAGE_MAX, FaultView
from dms_server.faults.symbols import PAGE_MAX as SYMBOLS_PAGE_MAX
from dms_server.http import core_of


def fault_json(view: FaultView) -> dict[str, object]:
    """Return a fault as the API shows it."""
    fault = view.fault
    return {
        "id": fault.report_id,
        "number": fault.number,
        "cause": fault.cause,
        "slot": fault.slot,
        "version": fault.version,
        "uptime_s": fault.uptime_s,
        "time": fault.device_time,
        "received_at": iso(fault.received_at),
        "detail": fault.detail,
        "frames": fault.frames,
        "backtrace": view.backtrace,
        "text": fault.text,
    }


def symbols_json(row: SymbolRow) -> dict[str, object]:
    """Return what is known about a symbol file."""
    return {
        "build_id": row.build_id,
        "sha256": row.sha256,
        "size": row.size_bytes,
        "uploaded_at": iso(row.uploaded_at),
    }


async def faults(request: web.Request) -> web.Response:
    """GET /api/v1/devices/<uuid>/faults?limit=: newest first, each with its backtrace."""
    principal, core = principal_of(request, "read"), core_of(request)
    device, _ = await core.devices.get(principal.user_id, request.match_info["uuid"])
    found = await core.faults.of_device(device, whole_number(request, "limit", PAGE_MAX, PAGE_MAX))
    return web.json_response({"faults": [fault_json(view) for view in found]})


async def symbols(request: web.Request) -> web.Response:
    """GET /api/v1/symbols?offset=&limit=: the build-ids that the account has symbol files for."""
    principal = principal_of(request, "read")
    total, page = await core_of(request).symbols.page(
        principal.user_id,
        offset=whole_number(request, "offset", 0, 10_000_000),
        limit=whole_number(request, "limit", SYMBOLS_PAGE_MAX, SYMBOLS_PAGE_MAX),
    )
    return web.json_response({"total": total, "symbols": [symbols_json(row) for row in page]})


async def one(request: web.Request) -> web.Response:
    """GET or HEAD /api/v1/symbols/<build-id>: whether the symbol file is there."""
    principal = principal_of(request, "read")
    return web.json_response(symbols_json(await core_of(request).symbols.get(principal.user_id, _build_id(request))))


async def put(request: web.Request) -> web.Response:
    """PUT /api/v1/symbols/<build-id>: the body is the ELF file with the symbols. 201: it is new, 200: it was here."""
    principal, core, build_id = principal_of(request, "publish"), core_of(request), _build_id(request)
    limit = core.settings.symbols_max_bytes
    if request.content_length is not None and request.content_length > limit:
        raise TooLargeError(f"a symbol file has at most {limit} bytes; the operator can raise symbols_max_bytes")
    async with received(core, request.content, "symbol file", "symbols_max_bytes") as path:
        fresh = await core.symbols.put(principal.user_id, build_id, path)
    row = await core.symbols.get(principal.user_id, build_id)
    return web.json_response({"result": "ok", **symbols_json(row)}, status=201 if fresh else 200)


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/v1/symbols/<build-id>."""
    principal = principal_of(request, "publish")
    await core_of(request).symbols.delete(principal.user_id, _build_id(request))
    return web.json_response({"result": "ok"})


def _build_id(request: web.Request) -> str:
    return request.match_info["build_id"].lower()


def add_routes(app: web.Application) -> None:
    """Add this domain's API."""
    app.router.add_get("/api/v1/devices/{uuid:[0-9A-Fa-f-]{36}}/faults", faults)
    app.router.add_get("/api/v1/symbols", symbols)
    file = "/api/v1/symbols/{build_id:[0-9A-Fa-f]{8,64}}"
    app.router.add_get(file, one)
    app.router.add_put(file, put)
    app.router.add_delete(file, delete)
