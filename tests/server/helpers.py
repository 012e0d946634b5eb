"""A server's two doors as tests use them: devices with certificates, people with tokens and browsers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from dms_server.accounts.services import SCOPES
from dms_server.core import Core
from dms_server.settings import Settings
from dms_server.testing import device_tls

PRODUCT = "DEMO-VIRT_SENSOR"
PASSWORD = "correct horse battery"


@dataclass
class Answer:
    """What a door answered."""

    status: int
    body: Any
    headers: Any
    raw: bytes


async def ask(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Answer:
    """Send a request, not following redirects, and take the whole answer."""
    options.setdefault("allow_redirects", False)
    async with session.request(method, url, **options) as response:
        raw = await response.read()
        kind = response.content_type
        body = json.loads(raw) if kind.endswith("json") and raw else raw.decode("utf-8", "replace")
        return Answer(response.status, body, response.headers, raw)


@dataclass
class Device:
    """A device that talks to the device door with its certificate."""

    identity: Path
    base: str
    session: aiohttp.ClientSession
    uuid: str = field(init=False)

    def __post_init__(self) -> None:
        self.tls = device_tls(self.identity)
        self.uuid = json.loads((self.identity / "identity.json").read_text())["uuid"]

    async def post(self, path: str, **body: Any) -> Answer:
        """POST JSON with this device's UUID."""
        return await ask(
            self.session, "POST", f"{self.base}/device/v1/{path}", json={"uuid": self.uuid, **body}, ssl=self.tls
        )

    async def get(self, path: str, **options: Any) -> Answer:
        """GET an address of the door."""
        return await ask(self.session, "GET", f"{self.base}/device/v1/{path}", ssl=self.tls, **options)

    async def check(self, version: str = "1.0.0", **more: Any) -> Answer:
        """Ask for an update."""
        return await self.post("check", version=version, product=PRODUCT, board="virt", **more)

    async def report(self, event: str, **more: Any) -> Answer:
        """Report something."""
        body = {"id": str(uuid4()), "time": "2026-01-01T00:00:00Z", "event": event, **more}
        return await self.post("report", **body)


@dataclass
class Person:
    """Somebody with an account and an API token."""

    name: str
    id: int
    token: str
    base: str
    session: aiohttp.ClientSession

    async def api(self, method: str, path: str, **options: Any) -> Answer:
        """Call the API with the token."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return await ask(self.session, method, f"{self.base}/api/v1/{path}", headers=headers, **options)


@dataclass
class Dms:
    """A running server."""

    core: Core
    settings: Settings
    device_url: str
    web_url: str
    session: aiohttp.ClientSession
    identities: list[Path]

    def device(self, number: int = 0) -> Device:
        """Return a device of the fleet."""
        return Device(self.identities[number], self.device_url, self.session)

    async def person(self, name: str = "ann", scopes: tuple[str, ...] = SCOPES) -> Person:
        """Make an account with a token."""
        key = await self.core.accounts.sign_up(name, f"{name}@example.org", PASSWORD, confirmed=True)
        _, token = await self.core.accounts.new_api_token(key, "test", scopes)
        return Person(name, key, token, self.web_url, self.session)

    async def owner(self, name: str = "ann", product: str = PRODUCT) -> Person:
        """Make an account with the product."""
        person = await self.person(name)
        await self.core.products.create(person.id, product, "Sensor")
        return person

    async def ready_device(self, number: int = 0, owner: str = "ann") -> Device:
        """Return a device that `owner` has claimed and activated."""
        device = self.device(number)
        assert (await device.post("claim", user=owner, password=PASSWORD)).status == 200
        assert (await device.post("activate", product=PRODUCT)).status == 200
        return device


class Browser:
    """A browser: keeps cookies, sends forms with the CSRF field of the page it has seen."""

    def __init__(self, dms: Dms) -> None:
        self.base = dms.web_url
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def get(self, path: str) -> Answer:
        """Load a page."""
        return await ask(self.session, "GET", self.base + path)

    async def csrf(self, page: str) -> str:
        """Return the CSRF field of a page."""
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', (await self.get(page)).body)
        assert found is not None
        return found[1]

    async def post(self, page: str, path: str, **fields: Any) -> Answer:
        """Send the form at `path`, as found on `page`."""
        return await ask(self.session, "POST", self.base + path, data={"csrf": await self.csrf(page), **fields})

    async def sign_in(self, name: str = "ann", password: str = PASSWORD) -> Answer:
        """Sign in."""
        return await self.post("/signin", "/signin", name=name, password=password, next="/devices")
