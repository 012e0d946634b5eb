"""The two applications, wired: `create_app` gives the web door; its clean-up contexts carry all the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog
from aiohttp import web

from dms_server import health
from dms_server.accounts import views as account_views
from dms_server.accounts.guard import authenticate, csrf
from dms_server.bundles import views as bundle_views
from dms_server.commands import views as command_views
from dms_server.core import CORE, open_core
from dms_server.devices import views as device_views
from dms_server.devices.door import device_app
from dms_server.errors import SetupError
from dms_server.faults import views as fault_views
from dms_server.files import write_durably
from dms_server.http import add_security_headers, json_errors, request_log
from dms_server.pages.render import RENDERER, Renderer, page_errors
from dms_server.pages.views import add_routes as add_pages
from dms_server.products import views as product_views
from dms_server.settings import Settings
from dms_server.tls import device_door_context
from dms_server.updates.views import add_routes as add_downloads

log = structlog.get_logger()

DEVICE_PORT = web.AppKey("device_port", int)

KEEPALIVE_S = 75.0
CleanupContext = Callable[[web.Application], AsyncIterator[None]]


def create_app(settings: Settings) -> web.Application:
    """Return the web door. Starting it opens the database and the TUF repository and starts the device door."""
    app = web.Application(
        middlewares=[request_log("web"), json_errors, page_errors, authenticate, csrf],
        client_max_size=settings.json_max_bytes,
    )
    app.on_response_prepare.append(add_security_headers)
    app.cleanup_ctx.append(_core(settings))
    app.cleanup_ctx.append(_device_door(settings))
    for domain in (health, account_views, device_views, product_views, bundle_views, fault_views, command_views):
        domain.add_routes(app)
    add_pages(app)
    return app


def _core(settings: Settings) -> CleanupContext:
    async def context(app: web.Application) -> AsyncIterator[None]:
        async with open_core(settings) as core:
            app[CORE] = core
            app[RENDERER] = await asyncio.to_thread(Renderer)
            yield

    return context


def _device_door(settings: Settings) -> CleanupContext:
    async def context(app: web.Application) -> AsyncIterator[None]:
        tls = await asyncio.to_thread(device_door_context, settings.fleet)
        runner = web.AppRunner(
            device_app(app[CORE], add_downloads),
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=settings.shutdown_s,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, settings.bind, settings.device_port, ssl_context=tls)
            await _listen(site, settings.bind, settings.device_port)
            app[DEVICE_PORT] = port_of(runner)
            yield
        finally:
            await runner.cleanup()

    return context


def port_of(runner: web.AppRunner) -> int:
    """Return the port that a runner listens on (the one chosen by the system, if it was 0)."""
    return int(runner.addresses[0][1])


async def _listen(site: web.TCPSite, bind: str, port: int) -> None:
    try:
        await site.start()
    except OSError as error:
        raise SetupError(f"cannot listen on {bind}:{port}: {error.strerror}; choose another port") from error


async def serve(settings: Settings, until: Coroutine[Any, Any, object]) -> None:
    """Run both doors until `until` is done, then stop: no new requests, a grace for those under way.

    Writes `ports.json` into the data folder once both listen; removes it at the end.
    """
    runner = web.AppRunner(
        create_app(settings), access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=settings.shutdown_s
    )
    ports_file = settings.data / "ports.json"
    await asyncio.to_thread(ports_file.unlink, missing_ok=True)
    try:
        await runner.setup()
        site = web.TCPSite(runner, settings.bind, settings.web_port)
        await _listen(site, settings.bind, settings.web_port)
        ports = {"device": runner.app[DEVICE_PORT], "web": port_of(runner)}
        await asyncio.to_thread(write_durably, ports_file, json.dumps(ports).encode())
        log.info("serving", bind=settings.bind, **ports)
        await until
    finally:
        await asyncio.to_thread(ports_file.unlink, missing_ok=True)
        await runner.cleanup()
