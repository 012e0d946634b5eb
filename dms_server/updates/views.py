"""What devices download: signed metadata, manifests, payloads."""

from __future__ import annotations

import asyncio

from aiohttp import web

from dms_server.bundles.metadata import ROLE_FILE, TOP_ROLES
from dms_server.bundles.store import ROOT_PATTERN
from dms_server.content import ContentResponse
from dms_server.devices.door import DEVICE
from dms_server.errors import NotFoundError
from dms_server.http import core_of
from dms_server.patches.services import NOTHING

NO_STORE = {"Cache-Control": "no-store"}
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


async def metadata(request: web.Request) -> web.StreamResponse:
    """GET /device/v1/metadata/<name>: top-level roles for all, a product's role for its devices only."""
    name = request.match_info["name"]
    match = ROLE_FILE.fullmatch(name)
    role = match[2] if match else ""
    path = await core_of(request).bundles.metadata_file(name)
    hidden = bool(role) and role not in TOP_ROLES and role != request[DEVICE].product
    if path is None or hidden:
        raise NotFoundError("there is no such metadata")
    headers = NO_STORE if name == "timestamp.json" else FOR_EVER
    return web.FileResponse(path, headers={**headers, "Content-Type": "application/json"})


async def target(request: web.Request) -> web.StreamResponse:
    """GET /device/v1/targets/<PRODUCT>/<version>/<sha256>.manifest.json, for devices of the product."""
    product, version, name = (request.match_info[key] for key in ("product", "version", "name"))
    path = core_of(request).bundles.manifest_file(product, version, name)
    if product != request[DEVICE].product or not await asyncio.to_thread(path.is_file):
        raise NotFoundError("there is no such target")
    return web.FileResponse(path, headers={**FOR_EVER, "Content-Type": "application/json"})


async def payload(request: web.Request) -> web.StreamResponse:
    """GET /device/v1/payload/<root hash>?base=<root hash or none>: a patch stream, whole or by ranges.

    503 with Retry-After: the patch from that base is being made. A patch from nothing answers every base for which there
    is no other: its header says what it starts from.
    """
    root, base = request.match_info["root"], request.query.get("base", NOTHING)
    core, device = core_of(request), request[DEVICE]
    if base != NOTHING and not ROOT_PATTERN.fullmatch(base):
        raise NotFoundError("base is a root hash of 64 hexadecimal digits, or none")
    if device.product_id is None or not await core.updates.may_have(device, root):
        raise NotFoundError("there is no such payload for this device's product")
    held = request.headers.get("If-Range", "")
    opened = await core.patches.offer(device.product_id, device.id, root, base, held)
    # What an address gives may change from the full payload to a patch: never kept without asking.
    headers = {"Cache-Control": "private, no-cache", "Content-Type": "application/octet-stream"}
    return ContentResponse(opened.stream, opened.etag, headers)


def add_routes(app: web.Application) -> None:
    """Add the downloads to the device door."""
    app.router.add_get("/device/v1/metadata/{name:[A-Za-z0-9._-]{1,100}}", metadata)
    app.router.add_get(
        "/device/v1/targets/{product:[A-Z0-9_-]{1,66}}/{version:[0-9.]{5,13}}/{name:[0-9a-f]{64}\\.manifest\\.json}",
        target,
    )
    app.router.add_get("/device/v1/payload/{root:[0-9a-f]{64}}", payload)
