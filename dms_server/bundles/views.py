"""The API of bundles and of the signed metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from aiohttp import BodyPartReader, StreamReader, web
from pydantic import Field

from dms_server.accounts.guard import principal_of
from dms_server.body import Body
from dms_server.bundles.services import BundleView
from dms_server.clock import iso
from dms_server.core import Core
from dms_server.errors import BadRequestError, TooLargeError
from dms_server.http import core_of, read_body
from dms_server.patches.services import PatchView
from zentrid.bundle.zbfile import MAX_METADATA_BYTES

CHUNK_BYTES = 256 * 1024


class Tag(Body):
    """A tag to give or take."""

    tag: Annotated[str, Field(max_length=16)]


def patch_json(patch: PatchView) -> dict[str, object]:
    """Return a patch to an item as the API shows it."""
    return {
        "from": list(patch.versions),
        "base_root": patch.base_root,
        "state": patch.state,
        "size": patch.size_bytes,
        "percent": patch.percent,
        "reason": patch.reason or None,
    }


def bundle_json(view: BundleView, patches: Mapping[str, Sequence[PatchView]] | None = None) -> dict[str, object]:
    """Return a bundle as the API shows it; with `patches`, by root hash, these too."""
    bundle = view.bundle
    return {
        "product": view.product,
        "version": bundle.version,
        "state": bundle.state,
        "tags": list(view.tags),
        "compatible": bundle.compatible,
        "min_version": bundle.min_version,
        "boot_floor": bundle.boot_floor,
        "notes": bundle.notes,
        "manifest_sha256": bundle.manifest_sha256,
        "size": bundle.size_bytes,
        "created_at": iso(bundle.created_at),
        "items": [
            {
                "type": item.type,
                "name": item.name,
                "size": item.size_bytes,
                "root_hash": item.root_hash,
                "payload_size": item.payload_bytes,
                **({} if patches is None else {"patches": [patch_json(one) for one in patches[item.root_hash]]}),
            }
            for item in view.items
        ],
    }


@asynccontextmanager
async def received(
    core: Core, source: StreamReader | BodyPartReader, what: str = "bundle", setting: str = "bundle_max_bytes"
) -> AsyncIterator[Path]:
    """Give the bytes of an upload as a file that is gone afterwards. Raises TooLargeError at the limit.

    `what` it is and the `setting` that limits it are for the sentences.
    """
    limit: int = getattr(core.settings, setting)
    path = await asyncio.to_thread(core.bundles.payloads.temporary)
    try:
        stream = await asyncio.to_thread(path.open, "wb")
        try:
            size = 0
            while chunk := await _next_chunk(source):
                size += len(chunk)
                if size > limit:
                    raise TooLargeError(f"a {what} has at most {limit} bytes; the operator can raise {setting}")
                await asyncio.to_thread(stream.write, chunk)
        finally:
            await asyncio.to_thread(stream.close)
        if not size:
            wanted = "choose a .zb file" if what == "bundle" else "the body is the file"
            raise BadRequestError(f"no {what} was sent; {wanted}")
        yield path
    finally:
        await asyncio.to_thread(path.unlink, True)


async def _next_chunk(source: StreamReader | BodyPartReader) -> bytes:
    """Return the next bytes, empty at the end."""
    if isinstance(source, StreamReader):
        return await source.read(CHUNK_BYTES)
    return bytes(await source.read_chunk(CHUNK_BYTES))


async def upload(request: web.Request) -> web.Response:
    """POST /api/v1/bundles[?draft=1]: the body is a `.zb`; the answer is the bundle, checked and kept."""
    principal, core = principal_of(request, "publish"), core_of(request)
    if request.content_length is not None and request.content_length > core.settings.bundle_max_bytes:
        raise TooLargeError(f"a bundle has at most {core.settings.bundle_max_bytes} bytes")
    async with received(core, request.content) as path:
        view = await core.bundles.upload(principal.user_id, path, draft=request.query.get("draft") == "1")
    return web.json_response({"result": "ok", **bundle_json(view)}, status=201)


async def bundles(request: web.Request) -> web.Response:
    """GET /api/v1/bundles/<product>: newest version first."""
    principal = principal_of(request, "read")
    found = await core_of(request).bundles.of_product(principal.user_id, request.match_info["product"])
    return web.json_response({"bundles": [bundle_json(view) for view in found]})


async def bundle(request: web.Request) -> web.Response:
    """GET /api/v1/bundles/<product>/<version>."""
    principal, match = principal_of(request, "read"), request.match_info
    core = core_of(request)
    view = await core.bundles.get(principal.user_id, match["product"], match["version"])
    return web.json_response(bundle_json(view, await core.patches.of_bundle(view.bundle, view.items)))


async def tag(request: web.Request) -> web.Response:
    """POST /api/v1/bundles/<product>/<version>/tag."""
    principal, body, match = principal_of(request, "publish"), await read_body(request, Tag), request.match_info
    await core_of(request).bundles.tag(principal.user_id, match["product"], match["version"], body.tag)
    return await bundle(request)


async def untag(request: web.Request) -> web.Response:
    """DELETE /api/v1/bundles/<product>/<version>/tag/<tag>."""
    principal, match = principal_of(request, "publish"), request.match_info
    await core_of(request).bundles.untag(principal.user_id, match["product"], match["version"], match["tag"])
    return await bundle(request)


async def publish(request: web.Request) -> web.Response:
    """POST /api/v1/bundles/<product>/<version>/publish: a draft becomes published."""
    principal, match = principal_of(request, "publish"), request.match_info
    await core_of(request).bundles.publish(principal.user_id, match["product"], match["version"])
    return await bundle(request)


async def archive(request: web.Request) -> web.Response:
    """POST /api/v1/bundles/<product>/<version>/archive."""
    principal, match = principal_of(request, "publish"), request.match_info
    await core_of(request).bundles.archive(principal.user_id, match["product"], match["version"])
    return await bundle(request)


async def adopt_targets(request: web.Request) -> web.Response:
    """POST /api/v1/metadata/targets: newer `targets.json` as the body, or none to read the fleet folder's again."""
    principal_of(request, "publish")
    data = b""
    while chunk := await request.content.read(CHUNK_BYTES):
        data += chunk
        if len(data) > MAX_METADATA_BYTES:
            raise TooLargeError(f"metadata has at most {MAX_METADATA_BYTES} bytes")
    newer = await core_of(request).bundles.adopt_targets(data or None)
    return web.json_response({"result": "ok", "newer": newer})


def add_routes(app: web.Application) -> None:
    """Add this domain's API."""
    one = "/api/v1/bundles/{product:[A-Z0-9_-]{1,66}}/{version:[0-9.]{5,13}}"
    app.router.add_post("/api/v1/bundles", upload)
    app.router.add_get("/api/v1/bundles/{product:[A-Z0-9_-]{1,66}}", bundles)
    app.router.add_get(one, bundle)
    app.router.add_post(one + "/tag", tag)
    app.router.add_delete(one + "/tag/{tag:[a-z]{1,16}}", untag)
    app.router.add_post(one + "/publish", publish)
    app.router.add_post(one + "/archive", archive)
    app.router.add_post("/api/v1/metadata/targets", adopt_targets)
