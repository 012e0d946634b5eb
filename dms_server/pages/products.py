"""The pages of products and bundles."""

from __future__ import annotations

from aiohttp import BodyPartReader, MultipartReader, web

from dms_server.accounts.guard import CSRF_FIELD, check_csrf, principal_of
from dms_server.bundles.views import received
from dms_server.devices.services import TAGS
from dms_server.errors import BadRequestError, DmsError
from dms_server.http import core_of
from dms_server.pages.forms import field
from dms_server.pages.render import render
from dms_server.products.services import STATES

CSRF_FIELD_MAX_BYTES = 256


async def products(
    request: web.Request, *, message: str = "", status: int = 200, code: str = "", title: str = ""
) -> web.Response:
    """GET /products."""
    principal = principal_of(request, "read")
    found = await core_of(request).products.summaries(principal.user_id)
    return render(request, "products.html", status=status, products=found, message=message, code=code, title=title)


async def new_product(request: web.Request) -> web.Response:
    """POST /products."""
    principal = principal_of(request, "products")
    code, title = await field(request, "code"), await field(request, "title")
    try:
        product = await core_of(request).products.create(principal.user_id, code, title)
    except DmsError as error:
        return await products(request, message=str(error), status=error.status, code=code, title=title)
    raise web.HTTPSeeOther(f"/products/{product.code}")


async def product(request: web.Request, *, message: str = "", token: str = "", status: int = 200) -> web.Response:
    """GET /products/<code>: its bundles, and what can be done with it."""
    principal, core, code = principal_of(request, "read"), core_of(request), request.match_info["code"]
    found = await core.products.get(principal.user_id, code)
    bundles = await core.bundles.of_product(principal.user_id, code)
    limit = core.settings.bundle_max_bytes
    return render(
        request,
        "product.html",
        status=status,
        product=found,
        bundles=bundles,
        states=STATES,
        message=message,
        token=token,
        limit=limit,
    )


async def change_product(request: web.Request) -> web.Response:
    """POST /products/<code>: title and state."""
    principal, code = principal_of(request, "products"), request.match_info["code"]
    title, state = await field(request, "title"), await field(request, "state")
    try:
        await core_of(request).products.change(principal.user_id, code, title=title, state=state)
    except DmsError as error:
        return await product(request, message=str(error), status=error.status)
    raise web.HTTPSeeOther(f"/products/{code}")


async def claim_token(request: web.Request) -> web.Response:
    """POST /products/<code>/claim-token: shows the token once."""
    principal = principal_of(request, "devices")
    token, _ = await core_of(request).products.new_claim_token(principal.user_id, request.match_info["code"])
    return await product(request, token=token)


async def upload(request: web.Request) -> web.Response:
    """POST /products/<code>/upload: a multipart form, the CSRF field first and then the file."""
    principal, core, code = principal_of(request, "publish"), core_of(request), request.match_info["code"]
    parts = await request.multipart()
    await _check_first_part(request, parts)
    part = await parts.next()
    if not isinstance(part, BodyPartReader) or part.name != "bundle":
        raise BadRequestError("choose a .zb file")
    try:
        async with received(core, part) as path:
            view = await core.bundles.upload(principal.user_id, path)
    except DmsError as error:
        return await product(request, message=str(error), status=error.status)
    raise web.HTTPSeeOther(f"/bundles/{view.product}/{view.bundle.version}" if view.product else f"/products/{code}")


async def _check_first_part(request: web.Request, parts: MultipartReader) -> None:
    part = await parts.next()
    given = b""
    if isinstance(part, BodyPartReader) and part.name == CSRF_FIELD:
        given = bytes(await part.read_chunk(CSRF_FIELD_MAX_BYTES))
        while chunk := await part.read_chunk(CSRF_FIELD_MAX_BYTES):
            if len(given) + len(chunk) > CSRF_FIELD_MAX_BYTES:
                raise BadRequestError("the form is not from this page; load it again")
            given += bytes(chunk)
    check_csrf(request, given.decode("ascii", "replace"))


async def bundle(request: web.Request, *, message: str = "", status: int = 200) -> web.Response:
    """GET /bundles/<product>/<version>."""
    principal, match = principal_of(request, "read"), request.match_info
    core = core_of(request)
    view = await core.bundles.get(principal.user_id, match["code"], match["version"])
    patches = await core.patches.of_bundle(view.bundle, view.items)
    return render(
        request,
        "bundle.html",
        status=status,
        view=view,
        bundle=view.bundle,
        patches=patches,
        tags=TAGS,
        message=message,
    )


async def change_bundle(request: web.Request) -> web.Response:
    """POST /bundles/<product>/<version>/<tag|untag|publish|archive>."""
    principal, match = principal_of(request, "publish"), request.match_info
    bundles, key = core_of(request).bundles, (principal.user_id, match["code"], match["version"])
    try:
        if match["what"] == "tag":
            await bundles.tag(*key, await field(request, "tag"))
        elif match["what"] == "untag":
            await bundles.untag(*key, await field(request, "tag"))
        elif match["what"] == "publish":
            await bundles.publish(*key)
        else:
            await bundles.archive(*key)
    except DmsError as error:
        return await bundle(request, message=str(error), status=error.status)
    raise web.HTTPSeeOther(f"/bundles/{match['code']}/{match['version']}")


def add_routes(app: web.Application) -> None:
    """Add these pages."""
    one = "/products/{code:[A-Z0-9_-]{1,66}}"
    version = "/bundles/{code:[A-Z0-9_-]{1,66}}/{version:[0-9.]{5,13}}"
    app.router.add_get("/products", products)
    app.router.add_post("/products", new_product)
    app.router.add_get(one, product)
    app.router.add_post(one, change_product)
    app.router.add_post(one + "/claim-token", claim_token)
    app.router.add_post(one + "/upload", upload)
    app.router.add_get(version, bundle)
    app.router.add_post(version + "/{what:tag|untag|publish|archive}", change_bundle)
