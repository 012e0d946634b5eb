"""What both doors share: request ids and the log, errors as JSON, bodies read with limits and types."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import BaseModel

from dms_server.body import parse_body
from dms_server.core import CORE, Core
from dms_server.errors import DmsError, TooLargeError

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REQUEST_ID = web.RequestKey("request_id", str)
M = TypeVar("M", bound=BaseModel)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def core_of(request: web.Request) -> Core:
    """Return the services."""
    return request.config_dict[CORE]


def peer_ip(request: web.Request) -> str:
    """Return the address of the other end."""
    return (request.remote or "unknown")[:64]


async def read_body(request: web.Request, model: type[M]) -> M:
    """Return the JSON body as `model`. Raises TooLargeError or BadRequestError that names the field."""
    try:
        data = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        limit = core_of(request).settings.json_max_bytes
        raise TooLargeError(f"the body is larger than {limit} bytes; send less") from error
    return parse_body(data, model)


def fail(status: int, message: str, reason: str, request_id: str, retry_after_s: int | None = None) -> web.Response:
    """Return an error as both doors' programs read it: problem details, and the older `result` and `message`."""
    body = {
        "result": "fail",
        "message": message,
        "type": "about:blank",
        "title": reason,
        "status": status,
        "detail": message,
        "request_id": request_id,
    }
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    return web.Response(
        status=status, body=json.dumps(body).encode(), content_type="application/problem+json", headers=headers
    )


def request_log(door: str) -> Middleware:
    """Return the outermost middleware: gives the request an id, logs it, adds security headers."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = secrets.token_hex(8)
        started = time.monotonic()
        status = 500
        try:
            response = await handler(request)
            status = response.status
            if not response.prepared:
                response.headers["X-Request-Id"] = request[REQUEST_ID]
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            log.info(
                "request",
                door=door,
                id=request[REQUEST_ID],
                method=request.method,
                path=request.path,
                status=status,
                ms=round((time.monotonic() - started) * 1000, 1),
                ip=peer_ip(request),
            )

    return middleware


async def add_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler: every answer of the web door says what a browser may do with it."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into JSON; an unforeseen one says nothing about the inside."""
    try:
        return await handler(request)
    except DmsError as error:
        return fail(error.status, str(error), error.reason, request[REQUEST_ID], error.retry_after_s)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        text = {404: "there is nothing at this address", 405: "this address does not take that method"}
        message = text.get(error.status, error.reason)
        return fail(error.status, message, error.reason.lower().replace(" ", "_"), request[REQUEST_ID])
    except Exception:
        log.exception("request_failed", id=request[REQUEST_ID], path=request.path)
        message = f"the server failed; its log says why under {request[REQUEST_ID]}"
        return fail(500, message, "internal", request[REQUEST_ID])
