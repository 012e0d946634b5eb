"""The API of products."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from dms_server.accounts.guard import principal_of
from dms_server.body import Body
from dms_server.clock import iso
from dms_server.errors import NotFoundError
from dms_server.http import core_of, read_body
from dms_server.products.services import ProductSummary


class NewProduct(Body):
    """A new product."""

    code: Annotated[str, Field(max_length=66)]
    title: Annotated[str, Field(max_length=120)]


class ProductChange(Body):
    """What may be set; what is absent stays."""

    title: Annotated[str, Field(max_length=120)] | None = None
    state: Annotated[str, Field(max_length=16)] | None = None


def product_json(product: ProductSummary) -> dict[str, object]:
    """Return a product as the API shows it."""
    return {
        "code": product.code,
        "title": product.title,
        "state": product.state,
        "created_at": iso(product.created_at),
        "bundles": product.bundles,
        "devices": product.devices,
        "release": product.release,
    }


async def products(request: web.Request) -> web.Response:
    """GET /api/v1/products."""
    principal = principal_of(request, "read")
    found = await core_of(request).products.summaries(principal.user_id)
    return web.json_response({"products": [product_json(product) for product in found]})


async def product(request: web.Request) -> web.Response:
    """GET /api/v1/products/<code>."""
    principal, code = principal_of(request, "read"), request.match_info["code"]
    for found in await core_of(request).products.summaries(principal.user_id):
        if found.code == code:
            return web.json_response(product_json(found))
    raise NotFoundError(f"you have no product {code}")


async def new_product(request: web.Request) -> web.Response:
    """POST /api/v1/products."""
    principal, body = principal_of(request, "products"), await read_body(request, NewProduct)
    made = await core_of(request).products.create(principal.user_id, body.code, body.title)
    return web.json_response({"result": "ok", "code": made.code, "state": made.state}, status=201)


async def change(request: web.Request) -> web.Response:
    """PATCH /api/v1/products/<code>."""
    principal, body = principal_of(request, "products"), await read_body(request, ProductChange)
    await core_of(request).products.change(
        principal.user_id, request.match_info["code"], title=body.title, state=body.state
    )
    return await product(request)


async def claim_token(request: web.Request) -> web.Response:
    """POST /api/v1/products/<code>/claim-tokens: the answer holds the token, this once."""
    principal = principal_of(request, "devices")
    token, expires = await core_of(request).products.new_claim_token(principal.user_id, request.match_info["code"])
    return web.json_response({"result": "ok", "token": token, "expires_at": iso(expires)}, status=201)


def add_routes(app: web.Application) -> None:
    """Add this domain's API."""
    one = "/api/v1/products/{code:[A-Za-z0-9_-]{1,66}}"
    app.router.add_get("/api/v1/products", products)
    app.router.add_post("/api/v1/products", new_product)
    app.router.add_get(one, product)
    app.router.add_patch(one, change)
    app.router.add_post(one + "/claim-tokens", claim_token)
