"""The pages of devices."""

from __future__ import annotations

from aiohttp import web

from dms_server.accounts.guard import principal_of
from dms_server.devices.known import find_device
from dms_server.devices.services import TAGS, online
from dms_server.devices.views import whole_number
from dms_server.errors import BadRequestError, ConflictError
from dms_server.http import core_of
from dms_server.pages.forms import field
from dms_server.pages.render import render

PAGE_SIZE = 50
FAULTS_SHOWN = 50
PATIENCE_S = 3.0
"""How long a page waits for slow symbol files."""


async def devices(request: web.Request) -> web.Response:
    """GET /devices?search=&product=&page=."""
    principal, core = principal_of(request, "read"), core_of(request)
    search, product = request.query.get("search", "")[:64], request.query.get("product", "")[:66]
    number = whole_number(request, "page", 0, 100_000)
    total, page = await core.devices.page(
        principal.user_id, search=search, product=product, offset=number * PAGE_SIZE, limit=PAGE_SIZE
    )
    return render(
        request,
        "devices.html",
        devices=[(device, code, online(device)) for device, code in page],
        products=await core.products.summaries(principal.user_id),
        total=total,
        search=search,
        product=product,
        page=number,
        pages=max(1, -(-total // PAGE_SIZE)),
    )


async def device(request: web.Request, *, message: str = "", status: int = 200) -> web.Response:
    """GET /devices/<uuid>."""
    principal, core = principal_of(request, "read"), core_of(request)
    found, product = await core.devices.get(principal.user_id, request.match_info["uuid"])
    reports = await core.devices.reports(found.id, 50)
    faults = await core.faults.of_device(found, FAULTS_SHOWN, PATIENCE_S)
    commands = await core.commands.of_device(principal.user_id, found.uuid)
    known = await find_device(core.db, found.uuid)
    return render(
        request,
        "device.html",
        status=status,
        message=message,
        device=found,
        product=product,
        products=[] if product else await core.products.summaries(principal.user_id),
        target=known.target if known else None,
        online=online(found),
        reports=reports,
        faults=faults,
        command=commands[0] if commands else None,
        tags=TAGS,
    )


async def change(request: web.Request) -> web.Response:
    """POST /devices/<uuid>: tag and notes."""
    principal, uuid = principal_of(request, "devices"), request.match_info["uuid"]
    tag, notes = await field(request, "tag"), await field(request, "notes")
    await core_of(request).devices.change(principal.user_id, uuid, tag=tag, notes=notes)
    raise web.HTTPSeeOther(f"/devices/{uuid}")


async def release(request: web.Request) -> web.Response:
    """POST /devices/<uuid>/release."""
    principal = principal_of(request, "devices")
    await core_of(request).devices.release(principal.user_id, request.match_info["uuid"])
    raise web.HTTPSeeOther("/devices")


async def transfer(request: web.Request) -> web.Response:
    """POST /devices/<uuid>/transfer."""
    principal = principal_of(request, "devices")
    await core_of(request).devices.transfer(principal.user_id, request.match_info["uuid"], await field(request, "user"))
    raise web.HTTPSeeOther("/devices")


async def revoke(request: web.Request) -> web.Response:
    """POST /devices/<uuid>/revoke."""
    principal, uuid = principal_of(request, "devices"), request.match_info["uuid"]
    await core_of(request).devices.revoke(principal.user_id, uuid)
    raise web.HTTPSeeOther(f"/devices/{uuid}")


async def factory_reset(request: web.Request) -> web.Response:
    """POST /devices/<uuid>/factory-reset: asks the device for it."""
    principal, uuid = principal_of(request, "devices"), request.match_info["uuid"]
    settings_only, confirm = await field(request, "settings_only") == "1", await field(request, "confirm")
    try:
        await core_of(request).commands.ask_factory_reset(
            principal.user_id, uuid, settings_only=settings_only, confirm=confirm
        )
    except (BadRequestError, ConflictError) as error:
        return await device(request, message=str(error), status=error.status)
    raise web.HTTPSeeOther(f"/devices/{uuid}#reset")


async def withdraw(request: web.Request) -> web.Response:
    """POST /devices/<uuid>/commands/<id>/withdraw."""
    principal, match = principal_of(request, "devices"), request.match_info
    try:
        await core_of(request).commands.withdraw(principal.user_id, match["uuid"], match["id"])
    except ConflictError as error:
        return await device(request, message=str(error), status=error.status)
    raise web.HTTPSeeOther(f"/devices/{match['uuid']}#reset")


def add_routes(app: web.Application) -> None:
    """Add these pages."""
    one = "/devices/{uuid:[0-9a-f-]{36}}"
    app.router.add_get("/devices", devices)
    app.router.add_get(one, device)
    app.router.add_post(one, change)
    app.router.add_post(one + "/release", release)
    app.router.add_post(one + "/transfer", transfer)
    app.router.add_post(one + "/revoke", revoke)
    app.router.add_post(one + "/factory-reset", factory_reset)
    app.router.add_post(one + "/commands/{id:[0-9a-f-]{36}}/withdraw", withdraw)
