"""All pages' addresses, and the pages of accounts and tokens."""

from __future__ import annotations

import re

from aiohttp import web

from dms_server.accounts.guard import PRINCIPAL, SESSION_COOKIE, session_of, set_cookie
from dms_server.accounts.services import SCOPES
from dms_server.errors import DmsError
from dms_server.http import core_of, peer_ip
from dms_server.pages import devices, products
from dms_server.pages.forms import field, local_path
from dms_server.pages.render import RENDERER, render

STATIC_TYPES = {"style.css": "text/css", "icon.svg": "image/svg+xml"}


async def home(request: web.Request) -> web.Response:
    """GET /: the devices, or sign-in."""
    raise web.HTTPSeeOther("/devices" if PRINCIPAL in request else "/signin")


async def static(request: web.Request) -> web.Response:
    """GET /static/<name>."""
    name = request.match_info["name"]
    return web.Response(
        body=request.config_dict[RENDERER].static[name],
        content_type=STATIC_TYPES[name],
        headers={"Cache-Control": "max-age=300"},
    )


async def sign_up_page(request: web.Request) -> web.Response:
    """GET /signup."""
    return render(request, "signup.html", message="", name="", email="")


async def sign_up(request: web.Request) -> web.Response:
    """POST /signup."""
    core, name, email = core_of(request), await field(request, "name"), await field(request, "email")
    try:
        await core.accounts.sign_up(name, email, await field(request, "password"))
    except DmsError as error:
        return render(request, "signup.html", status=error.status, message=str(error), name=name, email=email)
    return render(request, "signin.html", message="", name=name, next="/", welcome=True)


async def confirm(request: web.Request) -> web.Response:
    """GET /confirm?token=: the link of the confirmation message."""
    name = await core_of(request).accounts.confirm(request.query.get("token", "")[:256])
    message = f"Thank you, {name}: all is open to you now."
    return render(request, "notice.html", title="Address confirmed", message=message)


async def sign_in_page(request: web.Request) -> web.Response:
    """GET /signin."""
    target = local_path(request.query.get("next", "/"))
    return render(request, "signin.html", message="", name="", next=target, welcome=False)


async def sign_in(request: web.Request) -> web.Response:
    """POST /signin."""
    core, name = core_of(request), await field(request, "name")
    target = local_path(await field(request, "next"))
    try:
        session = await core.accounts.sign_in(name, await field(request, "password"), peer_ip(request))
    except DmsError as error:
        return render(
            request, "signin.html", status=error.status, message=str(error), name=name, next=target, welcome=False
        )
    response = web.HTTPSeeOther(target)
    set_cookie(request, response, SESSION_COOKIE, session.token, core.settings.session_lifetime_s)
    raise response


async def sign_out(request: web.Request) -> web.Response:
    """POST /signout."""
    await core_of(request).accounts.sign_out(session_of(request).session_hash or "")
    response = web.HTTPSeeOther("/signin")
    response.del_cookie(SESSION_COOKIE, path="/")
    raise response


async def tokens_page(request: web.Request, *, token: str = "", message: str = "", status: int = 200) -> web.Response:
    """GET /tokens."""
    principal = session_of(request)
    found = await core_of(request).accounts.api_tokens(principal.user_id)
    return render(request, "tokens.html", status=status, tokens=found, scopes=SCOPES, token=token, message=message)


async def new_token(request: web.Request) -> web.Response:
    """POST /tokens: shows the token once."""
    principal, form = session_of(request), await request.post()
    scopes = [str(scope) for scope in form.getall("scope", [])]
    name = await field(request, "name")
    try:
        _, token = await core_of(request).accounts.new_api_token(principal.user_id, name, scopes)
    except DmsError as error:
        return await tokens_page(request, message=str(error), status=error.status)
    return await tokens_page(request, token=token)


async def revoke_token(request: web.Request) -> web.Response:
    """POST /tokens/<id>/revoke."""
    principal = session_of(request)
    await core_of(request).accounts.revoke_api_token(principal.user_id, int(request.match_info["id"]))
    raise web.HTTPSeeOther("/tokens")


def add_routes(app: web.Application) -> None:
    """Add all pages."""
    app.router.add_get("/", home)
    app.router.add_get(f"/static/{{name:{'|'.join(map(re.escape, STATIC_TYPES))}}}", static)
    app.router.add_get("/signup", sign_up_page)
    app.router.add_post("/signup", sign_up)
    app.router.add_get("/confirm", confirm)
    app.router.add_get("/signin", sign_in_page)
    app.router.add_post("/signin", sign_in)
    app.router.add_post("/signout", sign_out)
    app.router.add_get("/tokens", tokens_page)
    app.router.add_post("/tokens", new_token)
    app.router.add_post("/tokens/{id:[0-9]{1,12}}/revoke", revoke_token)
    devices.add_routes(app)
    products.add_routes(app)
