"""The API of commands to devices, for the devices' owners."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from dms_server.accounts.guard import principal_of
from dms_server.body import Body
from dms_server.clock import iso
from dms_server.commands.models import DeviceCommand
from dms_server.http import core_of, read_body


class FactoryReset(Body):
    """A factory reset; `confirm` is the device's UUID or its last six characters."""

    settings_only: Annotated[bool, Field(strict=True)]
    confirm: Annotated[str, Field(max_length=64)]


def command_json(command: DeviceCommand) -> dict[str, object]:
    """Return a command as the API shows it."""
    return {
        "id": command.command_id,
        "command": command.kind,
        "settings_only": command.settings_only,
        "requested_at": iso(command.requested_at),
        "state": command.state,
        "answered_at": iso(command.answered_at),
        "detail": command.detail,
    }


async def factory_reset(request: web.Request) -> web.Response:
    """POST /api/v1/devices/<uuid>/factory-reset. 201: it waits now, 200: it waited already."""
    principal, body = principal_of(request, "devices"), await read_body(request, FactoryReset)
    command, fresh = await core_of(request).commands.ask_factory_reset(
        principal.user_id, request.match_info["uuid"], settings_only=body.settings_only, confirm=body.confirm
    )
    return web.json_response({"result": "ok", **command_json(command)}, status=201 if fresh else 200)


async def commands(request: web.Request) -> web.Response:
    """GET /api/v1/devices/<uuid>/commands: newest first."""
    principal = principal_of(request, "read")
    found = await core_of(request).commands.of_device(principal.user_id, request.match_info["uuid"])
    return web.json_response({"commands": [command_json(command) for command in found]})


async def withdraw(request: web.Request) -> web.Response:
    """DELETE /api/v1/devices/<uuid>/commands/<id>."""
    principal, match = principal_of(request, "devices"), request.match_info
    command = await core_of(request).commands.withdraw(principal.user_id, match["uuid"], match["id"])
    return web.json_response({"result": "ok", **command_json(command)})


def add_routes(app: web.Application) -> None:
    """Add this domain's API."""
    one = "/api/v1/devices/{uuid:[0-9A-Fa-f-]{36}}"
    app.router.add_post(one + "/factory-reset", factory_reset)
    app.router.add_get(one + "/commands", commands)
    app.router.add_delete(one + "/commands/{id:[0-9A-Fa-f-]{36}}", withdraw)
