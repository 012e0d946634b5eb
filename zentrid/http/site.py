"""The web server's addresses: commands, log, WebSockets, the Web App's files, and the page for when those are damaged."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from zentrid.core.httpapi import (
    MAX_REQUEST_BYTES,
    BadRequestError,
    CommandRequest,
    answer_json,
    request_from_body,
    request_from_target,
)
from zentrid.http.access import Access, Refused
from zentrid.http.config import Config
from zentrid.http.files import WebApp
from zentrid.http.gate import TOO_LARGE, Gate, HttpGates
from zentrid.http.link import BusyError, LinkError, Links
from zentrid.http.terminal import Sockets

PAGES: Final = Path(__file__).parent / "pages"
BODY_S: Final = 15.0
LOG_LINE: Final = b"log -n 200"
KEEPALIVE_S: Final = 30.0
_RECOVERY: Final = "/.recovery.html"
_PAGE_TYPES: Final = {
    "/.recovery.html": "text/html",
    "/.recovery.js": "text/javascript",
    "/.recovery.css": "text/css",
    "/.openapi.json": "application/json",
}
_API: Final = ("/command", "/log", "/stream", "/terminal")
_HEADERS: Final = {
    "Server": "Zentri",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
"""What a page may do: use what this device gives, and nothing else."""
INLINE_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; object-src 'none'"
)
"""For an owner's own Web App, if the owner allows it: scripts and styles inside of a page, still nothing from elsewhere."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_api(path: str) -> bool:
    """Tell whether a path belongs to the command interface."""
    return any(path == name or path.startswith(name + "/") for name in _API)


def refuse(refused: Refused) -> web.Response:
    """Return a refusal as every refusal looks."""
    return web.json_response({"error": refused.sentence}, status=refused.status, headers=dict(refused.headers))


def _is_text(values: Iterable[str]) -> bool:
    """Tell whether header values can be written again: what was no UTF-8 breaks every answer that repeats it."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


class Site:
    """The application behind the gates."""

    def __init__(self, config: Config, *, secure: bool, tell: Callable[[str], None] = lambda _sentence: None) -> None:
        """Take the settings, whether TLS is spoken, and who hears what the device's log should know."""
        self.access = Access(config, secure, tell=tell)
        self.links = Links(config.console)
        self.sockets = Sockets(self.links, self._opened)
        self.gates: HttpGates | None = None
        self._web_app = WebApp(Path(config.files), config.root_filename)
        self._numbers = itertools.count(1)

    def set(self, config: Config) -> None:
        """Take other settings; whoever came in under another account has to come again."""
        before, self.access.config = self.access.config, config
        self._web_app = WebApp(Path(config.files), config.root_filename)
        if (before.account, before.api_enabled) != (config.account, config.api_enabled):
            self.sockets.close_all()

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._around], client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/command/{line:(?s:.*)}", self._get_command, allow_head=False)
        app.router.add_post("/command", self._post_command)
        app.router.add_get("/command", self._no_line, allow_head=False)
        app.router.add_get("/log", self._log, allow_head=False)
        app.router.add_get("/terminal", self.sockets.terminal)
        app.router.add_get("/stream", self.sockets.stream)
        for path in _PAGE_TYPES:
            app.router.add_get(path, self._own_page)
        app.router.add_get("/.recovery.json", self._recovery_facts)
        app.router.add_get("/{path:(?s:.*)}", self._file)
        return app

    def _gate(self, request: web.Request) -> Gate | None:
        return None if self.gates is None else self.gates.of(request.transport)

    def _opened(self, request: web.Request) -> None:
        """The connection is a WebSocket now, whose messages are limited instead."""
        gate = self._gate(request)
        if gate is not None:
            gate.set_free()

    # --- around every request -----------------------------------------------------------------------------------------
    @web.middleware
    async def _around(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        gate = self._gate(request)
        if gate is not None:
            gate.handling()
        try:
            response = await self._answer(request, handler)
        finally:
            if gate is not None:
                gate.answered()
        if response.status == web.HTTPRequestEntityTooLarge.status_code:
            response.force_close()
            if gate is not None:
                gate.refused()
        return response

    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Judge, handle, and turn what is raised into an answer."""
        try:
            refused = await self._judged(request)
            if refused is not None:
                response: web.StreamResponse = refuse(refused)
            elif request.method == "OPTIONS":
                response = web.Response(status=204)
            else:
                response = await handler(request)
        except web.HTTPException as error:
            response = self._from_exception(error)
        except (LinkError, BusyError) as error:
            response = refuse(Refused(503, str(error), {"Retry-After": "2"}))
        if not response.prepared:
            response.headers.update(_HEADERS)
            self._allow_page(request, response)
        return response

    async def _judged(self, request: web.Request) -> Refused | None:
        acts = is_api(request.path) or request.method not in ("GET", "HEAD")
        length = request.content_length
        if length is not None and length > MAX_REQUEST_BYTES:
            return Refused(413, TOO_LARGE)
        if not _is_text(request.headers.values()):
            return Refused(400, "a header is not valid UTF-8")
        if request.method == "OPTIONS" and is_api(request.path) and self._allowed_origin(request):
            return None  # a browser asks without the password whether it may ask with it
        if request.transport is None:
            return Refused(408, "the connection is gone")
        local = str((request.transport.get_extra_info("sockname") or ("",))[0])
        refused = await self.access.judge(request.remote or "", request.headers, local=local, acts=acts)
        if (gate := self._gate(request)) is not None:
            admitted = refused is None
            gate.judged(admitted=admitted, proven=admitted and self.access.config.account.complete)
        if refused is None and is_api(request.path) and not self.access.config.api_enabled:
            return Refused(403, "the command interface is off (http.server.api_enabled)")
        return refused

    def _from_exception(self, error: web.HTTPException) -> web.StreamResponse:
        if error.status < 400:
            return web.Response(status=error.status, headers={"Location": error.headers["Location"]})
        sentences = {404: "there is nothing here", 405: "this address takes other requests", 413: TOO_LARGE}
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return refuse(Refused(error.status, sentences.get(error.status, error.reason.lower()), headers))

    def _allowed_origin(self, request: web.Request) -> str:
        origin = request.headers.get("Origin", "")
        return origin if origin in self.access.config.origins else ""

    def _allow_page(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let a page of another site read the answer, if the owner has named that site."""
        if not is_api(request.path) or not self.access.config.origins:
            return
        response.headers["Vary"] = "Origin"
        origin = self._allowed_origin(request)
        if origin:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Accept"
            del response.headers["Cross-Origin-Resource-Policy"]

    # --- commands -----------------------------------------------------------------------------------------------------
    async def _get_command(self, request: web.Request) -> web.StreamResponse:
        return await self._carry_out(request_from_target(request.raw_path))

    async def _post_command(self, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
            return await self._carry_out(request_from_body(body))
        except TimeoutError:
            return refuse(Refused(408, f"the request did not come within {BODY_S:g} s"))
        except BadRequestError as error:
            return refuse(Refused(400, str(error)))

    async def _no_line(self, _request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed("GET", ["POST"])

    async def _carry_out(self, wanted: CommandRequest) -> web.Response:
        found = await self.links.run(wanted)
        return _json(answer_json(next(self._numbers), found.code, wanted.flags, found.body, found.log))

    async def _log(self, _request: web.Request) -> web.StreamResponse:
        """The last lines of the device's log, as the command `log` shows them."""
        found = await self.links.run(CommandRequest(LOG_LINE))
        if found.code:
            return refuse(Refused(501, "this device has no log to show"))
        return _json({"logs": found.body.decode("utf-8", "replace").splitlines()})

    # --- files --------------------------------------------------------------------------------------------------------
    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if not path:
            if self.access.config.setup:
                return web.Response(status=302, headers={"Location": self._setup_page()})
            if await asyncio.to_thread(self._web_app.problems):
                return web.Response(status=302, headers={"Location": _RECOVERY, "Cache-Control": "no-store"})
        found = await asyncio.to_thread(self._web_app.find, path)
        if found is None:
            raise web.HTTPNotFound
        policy = INLINE_POLICY if self.access.config.inline_enabled else POLICY
        return web.FileResponse(found, headers={"Cache-Control": "no-cache", "Content-Security-Policy": policy})

    def _setup_page(self) -> str:
        return "/" + self.access.config.setup_root if self.access.config.setup_root else _RECOVERY

    async def _own_page(self, request: web.Request) -> web.StreamResponse:
        """A page of the image: it is there whatever has become of the data."""
        body = await asyncio.to_thread((PAGES / request.path.removeprefix("/.")).read_bytes)
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return web.Response(body=body, content_type=_PAGE_TYPES[request.path], charset="utf-8", headers=headers)

    async def _recovery_facts(self, _request: web.Request) -> web.StreamResponse:
        config = self.access.config
        return _json(
            {
                "problems": list(await asyncio.to_thread(self._web_app.problems)),
                "safe_mode": config.safe_mode,
                "setup": config.setup,
                "account": config.account.complete,
                "api": config.api_enabled,
            }
        )


def _json(value: Any) -> web.Response:  # noqa: ANN401 - what JSON can hold
    return web.Response(
        text=json.dumps(value, separators=(",", ":")),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
