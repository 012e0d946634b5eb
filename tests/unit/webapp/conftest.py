"""What the Web App's tests share: one browser, and for each test a device in memory with the app's files in it."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Request, async_playwright
from playwright.async_api import Error as PlaywrightError

from tests.support.browser import DEADLINE_MS, LAUNCH, Complaints
from tests.support.commandline import console
from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process
from zentrid.http.config import Config

APP: Final = Path(__file__).parents[3] / "rootfs_overlay/usr/share/zentri/webapp"
DOOR: Final = "tests.unit.webapp.door"
ROOT_FILENAME: Final = "webapp/index.html"
VIEWS: Final = ("status", "network", "files", "gpio", "update", "health", "terminal", "settings")


@dataclass
class App:
    """The Web App in a browser, and the device that it shows."""

    device: Device
    door: DoorProcess
    files: Path
    page: Page
    complaints: Complaints
    expected: list[str] = field(default_factory=list)
    """Patterns of complaints that the test provokes."""

    async def open(self, view: str = "status") -> None:
        """Load the page, with this view."""
        await self.page.goto(f"/#/{view}")
        await self.ready()

    async def go(self, view: str) -> None:
        """Choose a view in the page."""
        await self.page.evaluate("view => { location.hash = `#/${view}` }", view)
        await self.ready()

    async def ready(self) -> None:
        """Wait until the view has heard of the device."""
        await self.page.locator("#device-version", has_text="DEMO-VIRT_SENSOR").wait_for()
        await self.page.locator("#view .card, #view .notice").first.wait_for()

    async def go_offline(self, view: str) -> None:
        """Choose a view while the device is not there."""
        await self.page.evaluate("view => { location.hash = `#/${view}` }", view)
        await self.page.locator("#view .notice").wait_for()

    async def live(self) -> None:
        """Wait until the page follows the device's events."""
        async with asyncio.timeout(20):
            while not self.device.ctx.events._followers:
                await asyncio.sleep(0.02)

    def card(self, title: str) -> Locator:
        """Return the part of the view with this heading."""
        return self.page.get_by_role("region", name=title, exact=True)

    def button(self, name: str) -> Locator:
        """Return a button by its whole name."""
        return self.page.get_by_role("button", name=name, exact=True)

    async def says(self, text: str) -> None:
        """Wait until something in the view or above it says this."""
        await self.page.locator("main", has_text=text).wait_for()

    async def confirm(self, label: str) -> None:
        """Answer the question that is open."""
        await self.page.get_by_role("dialog").get_by_role("button", name=label, exact=True).click()

    @property
    def unexpected(self) -> list[str]:
        """What the browser complained of, and the test did not provoke."""
        return [one for one in self.complaints if not any(re.search(pattern, one) for pattern in self.expected)]


async def why_refused(request: Request, refusals: list[str]) -> None:
    """Note what the device said to a request that it did not carry out."""
    with suppress(PlaywrightError):
        response = await request.response()
        if response is not None and response.status >= 400:
            refusals.append(f"{response.status} {request.post_data}: {await response.text()}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as play:
        one = await play.chromium.launch(**LAUNCH)
        yield one
        await one.close()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@pytest.fixture
def context() -> dict[str, Any]:
    """How the browser's window is; tests choose another one by overriding this."""
    return {}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[DoorProcess, Path]]:
    """The door's process, which costs most to start: one for all tests. Its device is what lies behind two names in a folder."""
    folder = tmp_path_factory.mktemp("door")
    config = Config(
        console=str(folder / "console.sock"), files=str(folder / "files"), root_filename=ROOT_FILENAME, idle_s=3600.0
    )
    async with door_process(config, DOOR) as door:
        yield door, folder


@pytest_asyncio.fixture(loop_scope="session")
async def app(
    browser: Browser, shared_door: tuple[DoorProcess, Path], device: Device, tmp_path: Path, context: dict[str, Any]
) -> AsyncIterator[App]:
    door, folder = shared_door
    before = door.config
    files = tmp_path / "zentri" / "files"
    shutil.copytree(APP, files / "webapp")
    (folder / "files").unlink(missing_ok=True)
    (folder / "files").symlink_to(files)
    async with console(device, folder / "console.sock"):
        window = await browser.new_context(base_url=door.url, accept_downloads=True, **context)
        page = await window.new_page()
        page.set_default_timeout(DEADLINE_MS)
        complaints = Complaints()
        refusals: list[str] = []
        complaints.watch(page, door.url)
        page.on("requestfinished", lambda request: asyncio.ensure_future(why_refused(request, refusals)))
        one = App(device, door, files, page, complaints)
        yield one
        await window.close()
        if door.config != before:
            await door.tell(**asdict(before))
        assert one.unexpected == [], refusals
