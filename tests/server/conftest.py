"""A fleet (once), its devices, and a server on both doors with the loop watched for blocking calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from blockbuster import BlockBuster, blockbuster_ctx

from dms_server.app import DEVICE_PORT, create_app, port_of
from dms_server.core import CORE
from dms_server.settings import Settings
from dms_server.testing import RunningDms
from scripts.provision_tool.device import DeviceOptions, make_device
from scripts.provision_tool.fleet import delegate_product, make_fleet
from tests.server.helpers import PRODUCT, Dms


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Fail a test whose event loop the server blocks."""
    with blockbuster_ctx("dms_server") as watcher:
        yield watcher


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet with one delegated product."""
    made = make_fleet(tmp_path_factory.mktemp("fleet") / "fleet")
    delegate_product(made, PRODUCT)
    return made


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory, fleet: Path) -> list[Path]:
    """Identity folders of three devices."""
    base = tmp_path_factory.mktemp("devices")
    return [make_device(fleet, base / str(number), DeviceOptions()).folder for number in range(3)]


@pytest.fixture
def running(tmp_path: Path, fleet: Path) -> Iterator[RunningDms]:
    """A server in its own process."""
    dms = RunningDms(tmp_path / "data", fleet)
    try:
        yield dms.start()
    finally:
        dms.kill()


StartDms = Callable[..., Awaitable[Dms]]


@pytest.fixture
async def start_dms(tmp_path: Path, fleet: Path, identities: list[Path]) -> AsyncIterator[StartDms]:
    """Start servers on ports of their own; they stop at the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Dms:
            settings = {
                "data": tmp_path / "data",
                "fleet": fleet,
                "guess_delay_s": 0,
                "sighting_flush_s": 60,
            } | settings
            made = Settings.model_validate({"device_port": 0, "web_port": 0, "shutdown_s": 1, **settings})
            runner = web.AppRunner(create_app(made), access_log=None, shutdown_timeout=1)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            jar = aiohttp.DummyCookieJar()
            session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
            return Dms(
                core=runner.app[CORE],
                settings=made,
                device_url=f"https://127.0.0.1:{runner.app[DEVICE_PORT]}",
                web_url=f"http://127.0.0.1:{port_of(runner)}",
                session=session,
                identities=identities,
            )

        yield start
    # Transports of closed TLS connections go in the next rounds of the loop.
    await asyncio.sleep(0.05)


@pytest.fixture
async def dms(start_dms: StartDms) -> Dms:
    """A running server with nothing in it."""
    return await start_dms()
