"""Who makes a request on the web door: session cookie or API token; and CSRF, checked before every handler."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from aiohttp import web

from dms_server.accounts.services import Principal
from dms_server.errors import ForbiddenError, UnauthenticatedError
from dms_server.http import Handler, core_of

SESSION_COOKIE = "zentri_session"
VISITOR_COOKIE = "zentri_visitor"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"
UPLOAD_SUFFIX = "/upload"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

PRINCIPAL = web.RequestKey("principal", Principal)
CSRF = web.RequestKey("csrf", str)
NEW_VISITOR = web.RequestKey("new_visitor", str)
BY_TOKEN = web.RequestKey("by_token", bool)


def csrf_of(secret: str) -> str:
    """Return the CSRF token that belongs to a cookie: a page of another origin can send the cookie, not read it."""
    return hashlib.sha256(b"csrf:" + secret.encode()).hexdigest()


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks. A bad API token is refused; a bad session is nobody."""
    core = core_of(request)
    authorization = request.headers.get("Authorization", "")
    request[BY_TOKEN] = False
    if authorization:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("send `Authorization: Bearer <API token>`")
        request[PRINCIPAL] = await core.accounts.by_token(token.strip()[:256])
        request[BY_TOKEN] = True
        return await handler(request)
    cookie = request.cookies.get(SESSION_COOKIE, "")[:256]
    principal = await core.accounts.by_session(cookie) if cookie else None
    if principal is not None:
        request[PRINCIPAL] = principal
        request[CSRF] = csrf_of(cookie)
        return await handler(request)
    # Sign-in and sign-up need protection too, or a stranger could sign a visitor in as himself.
    visitor = request.cookies.get(VISITOR_COOKIE, "")[:256]
    if len(visitor) < 32:
        visitor = secrets.token_urlsafe(32)
        request[NEW_VISITOR] = visitor
    request[CSRF] = csrf_of(visitor)
    response = await handler(request)
    if NEW_VISITOR in request and not response.prepared and request.method == "GET":
        set_cookie(request, response, VISITOR_COOKIE, visitor, None)
    return response


@web.middleware
async def csrf(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a change that a page of another site may have caused. Programs with an API token need no CSRF token.

    JSON clients send the token as a header; forms send it as a field.
    """
    if request.method in SAFE_METHODS or request[BY_TOKEN]:
        return await handler(request)
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise ForbiddenError("this request came from another site; open the page here and try again")
    form = request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data")
    if form and request.path.startswith("/api/"):
        raise ForbiddenError("the API takes JSON or bundles, not forms")
    if request.content_type == "multipart/form-data":
        # A file may be larger than memory, so its handler reads the form and checks the field itself.
        if not request.path.endswith(UPLOAD_SUFFIX):
            raise ForbiddenError("this address takes no files")
    elif form:
        given = (await request.post()).get(CSRF_FIELD, "")
        check_csrf(request, given if isinstance(given, str) else "")
    else:
        check_csrf(request, request.headers.get(CSRF_HEADER, ""))
    return await handler(request)


def check_csrf(request: web.Request, given: str) -> None:
    """Raise ForbiddenError unless `given` is the CSRF token of this browser."""
    if not hmac.compare_digest(given.encode(), request[CSRF].encode()):
        raise ForbiddenError("this page is too old; load it again and try once more")


def principal_of(request: web.Request, scope: str) -> Principal:
    """Return who asks; raises UnauthenticatedError for nobody, ForbiddenError without the scope."""
    principal: Principal | None = request.get(PRINCIPAL)
    if principal is None:
        raise UnauthenticatedError("sign in first, or send an API token")
    if scope not in principal.scopes:
        raise ForbiddenError(f"this API token lacks the scope `{scope}`; make one that has it")
    if scope != "read" and not principal.confirmed:
        raise ForbiddenError("confirm your e-mail address first; the link was sent to you")
    return principal


def session_of(request: web.Request) -> Principal:
    """Return who asks, signed in by a session and not by a token: tokens cannot make tokens."""
    principal = principal_of(request, "read")
    if principal.session_hash is None:
        raise ForbiddenError("an API token cannot do this; sign in")
    return principal


def set_cookie(
    request: web.Request, response: web.StreamResponse, name: str, value: str, max_age_s: int | None
) -> None:
    """Set a cookie that scripts cannot read and that other sites' forms do not send."""
    secure = core_of(request).settings.secure_cookies
    response.set_cookie(name, value, max_age=max_age_s, httponly=True, samesite="Lax", secure=secure, path="/")
