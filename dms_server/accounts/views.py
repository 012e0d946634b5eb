"""The API of accounts, sessions and API tokens."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from dms_server.accounts.guard import CSRF, SESSION_COOKIE, csrf_of, principal_of, session_of, set_cookie
from dms_server.accounts.models import ApiToken
from dms_server.body import Body
from dms_server.clock import iso
from dms_server.http import core_of, peer_ip, read_body


class SignUp(Body):
    """A new account."""

    name: Annotated[str, Field(max_length=64)]
    email: Annotated[str, Field(max_length=254)]
    password: Annotated[str, Field(max_length=256)]


class SignIn(Body):
    """Name and password."""

    name: Annotated[str, Field(max_length=64)]
    password: Annotated[str, Field(max_length=256)]


class NewToken(Body):
    """A new API token."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    scopes: Annotated[list[str], Field(min_length=1, max_length=8)]
    days: Annotated[int, Field(ge=1, le=3650)] | None = None


def token_json(token: ApiToken) -> dict[str, object]:
    """Return what may be shown of a token: never the token."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes.split(),
        "created_at": iso(token.created_at),
        "expires_at": iso(token.expires_at),
        "last_used_at": iso(token.last_used_at),
    }


async def sign_up(request: web.Request) -> web.Response:
    """POST /api/v1/accounts."""
    core, body = core_of(request), await read_body(request, SignUp)
    await core.accounts.sign_up(body.name, body.email, body.password)
    return web.json_response({"result": "ok", "name": body.name.strip().lower()}, status=201)


async def account(request: web.Request) -> web.Response:
    """GET /api/v1/account: who asks."""
    principal = principal_of(request, "read")
    return web.json_response(
        {"name": principal.name, "scopes": sorted(principal.scopes), "confirmed": principal.confirmed}
    )


async def csrf_token(request: web.Request) -> web.Response:
    """GET /api/v1/csrf: the token that a browser program sends as `X-CSRF-Token` with every change."""
    return web.json_response({"csrf": request.get(CSRF)})


async def sign_in(request: web.Request) -> web.Response:
    """POST /api/v1/sessions: sets the session cookie; the answer holds the session's CSRF token."""
    core, body = core_of(request), await read_body(request, SignIn)
    session = await core.accounts.sign_in(body.name, body.password, peer_ip(request))
    response = web.json_response(
        {"result": "ok", "csrf": csrf_of(session.token), "expires_at": iso(session.expires_at)}, status=201
    )
    set_cookie(request, response, SESSION_COOKIE, session.token, core.settings.session_lifetime_s)
    return response


async def sign_out(request: web.Request) -> web.Response:
    """DELETE /api/v1/sessions: ends this session."""
    principal = session_of(request)
    await core_of(request).accounts.sign_out(principal.session_hash or "")
    response = web.json_response({"result": "ok"})
    response.del_cookie(SESSION_COOKIE, path="/")
    return response


async def tokens(request: web.Request) -> web.Response:
    """GET /api/v1/tokens."""
    principal = session_of(request)
    found = await core_of(request).accounts.api_tokens(principal.user_id)
    return web.json_response({"tokens": [token_json(token) for token in found]})


async def new_token(request: web.Request) -> web.Response:
    """POST /api/v1/tokens: the answer holds the token, this once."""
    principal, body = session_of(request), await read_body(request, NewToken)
    key, token = await core_of(request).accounts.new_api_token(principal.user_id, body.name, body.scopes, body.days)
    return web.json_response({"result": "ok", "id": key, "token": token}, status=201)


async def revoke_token(request: web.Request) -> web.Response:
    """DELETE /api/v1/tokens/<id>."""
    principal = session_of(request)
    await core_of(request).accounts.revoke_api_token(principal.user_id, int(request.match_info["id"]))
    return web.json_response({"result": "ok"})


def add_routes(app: web.Application) -> None:
    """Add this domain's API."""
    app.router.add_post("/api/v1/accounts", sign_up)
    app.router.add_get("/api/v1/account", account)
    app.router.add_get("/api/v1/csrf", csrf_token)
    app.router.add_post("/api/v1/sessions", sign_in)
    app.router.add_delete("/api/v1/sessions", sign_out)
    app.router.add_get("/api/v1/tokens", tokens)
    app.router.add_post("/api/v1/tokens", new_token)
    app.router.add_delete("/api/v1/tokens/{id:[0-9]{1,12}}", revoke_token)
