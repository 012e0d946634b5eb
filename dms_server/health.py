"""Whether the process lives (`/healthz`) and whether it can do its work (`/readyz`)."""

from __future__ import annotations

from aiohttp import web
from sqlalchemy import literal, select

from dms_server.http import core_of


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz."""
    return web.json_response({"result": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: 503 when the database does not answer or the signed metadata that devices need is not fresh.

    `problems` says what is wrong; `warnings` what soon will be, which does not make it fail.
    """
    core = core_of(request)
    async with core.db.read() as session:
        await session.scalar(select(literal(1)))
    fresh = await core.bundles.ready()
    body = {
        "result": "ok" if fresh else "fail",
        "timestamp_fresh": fresh,
        "problems": core.bundles.problems,
        "warnings": core.bundles.warnings,
    }
    return web.json_response(body, status=200 if fresh else 503)


def add_routes(app: web.Application) -> None:
    """Add the two addresses."""
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
