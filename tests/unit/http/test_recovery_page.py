"""The page of the image in a real browser, against the door's own process: restore, account, set-up, a phone, the keyboard."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.browser import PHONE, Complaints, async_page
from tests.support.commandline import console
from tests.support.fakes import Device, MemorySetup
from tests.support.httpdoor import DoorProcess, door_process
from tests.support.webapps import APP, AppHome, NoServer
from zentrid.core.network import NetworkError
from zentrid.http.config import Config
from zentrid.http.site import PAGES

pytestmark = [pytest.mark.timeout(180)]

ROOT = "http.server.root_filename"


@dataclass
class Scene:
    """A device in memory whose files and settings are real, its door, and a page in a browser."""

    device: Device
    home: AppHome
    door: DoorProcess

    @asynccontextmanager
    async def page(self, path: str = "/", **context: object) -> AsyncIterator[tuple[Page, Complaints]]:
        async with async_page(self.door.url, **context) as (page, complaints):
            await page.goto(path)
            yield page, complaints


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    device = Device(tmp_path / "zentri")
    home = AppHome(tmp_path / "zentri", NoServer(), settings=device.settings)
    device.ctx.web_app = home.keeper
    await home.recover("image")
    async with console(device, tmp_path / "console.sock") as path:
        config = Config(console=str(path), files=str(home.store.top), root_filename="webapp/index.html")
        async with door_process(config) as door:
            yield Scene(device, home, door)


def setup_of(device: Device) -> MemorySetup:
    assert isinstance(device.ctx.setup, MemorySetup)
    return device.ctx.setup


async def test_a_damaged_app_is_restored_on_the_page(scene: Scene) -> None:
    (scene.home.store.top / "webapp/css/app.css").unlink()
    scene.home.write("app.js", b"x" + APP["app.js"][1:])
    async with scene.page() as (page, complaints):
        await expect(page).to_have_url(re.compile(r"/\.recovery\.html$"))
        await expect(page.get_by_role("heading", level=1)).to_have_text("Recovery")
        await expect(page.locator("#version")).to_contain_text("DEMO-VIRT_SENSOR-1.4.0")
        await expect(page.locator("#problems li")).to_have_text(["app.js is damaged.", "css/app.css is missing."])
        await expect(page.get_by_role("heading", name="safe mode")).to_be_hidden()
        await expect(page.get_by_role("heading", name="Network")).to_be_hidden()
        await page.get_by_role("button", name="Restore").click()
        result = page.locator("#restore .status")
        await expect(result).to_contain_text(
            "is restored from the copy in the image; not from the DMS: the server does"
        )
        await expect(result).to_have_class(re.compile("done"))
        await expect(page.locator("#problems li")).to_have_count(0)
        await expect(page.locator("#progress")).to_be_hidden()
        await page.get_by_role("link", name="Open the Web App").click()
        await expect(page.get_by_role("heading")).to_have_text("The image's app")
        assert complaints == []
    assert scene.home.content() == APP


async def test_why_it_could_not_be_restored_is_told(scene: Scene) -> None:
    scene.home.write("app.js", b"damaged")
    async with scene.page() as (page, complaints):
        await page.get_by_label("Only the server").check()
        await page.get_by_role("button", name="Restore").click()
        result = page.locator("#restore .status")
        await expect(result).to_contain_text("the DMS does not help: the server does not answer")
        await expect(result).to_have_class(re.compile("failed"))
        await expect(page.locator("#problems li")).to_have_count(1)
        await expect(page.get_by_role("button", name="Restore")).to_be_focused()
        assert complaints == []


async def test_progress_is_shown_while_it_lasts(scene: Scene) -> None:
    app = scene.device.web_app
    app.gate, app.status = asyncio.Event(), "restoring: 42 % app.js"
    scene.device.ctx.web_app = app
    scene.home.write("app.js", b"damaged")
    async with scene.page() as (page, complaints):
        await page.get_by_role("button", name="Restore").click()
        await expect(page.get_by_role("progressbar")).to_have_js_property("value", 42)
        await expect(page.locator("#restore .status")).to_have_text("restoring: 42 % app.js")
        await expect(page.get_by_role("button", name="Restore")).to_be_disabled()
        scene.home.write("app.js", APP["app.js"])
        app.gate.set()
        await expect(page.locator("#restore .status")).to_have_text("The Web App 1.0.0 is restored from somewhere.")
        assert complaints == []


async def test_an_unset_first_page_safe_mode_and_the_command_line(scene: Scene) -> None:
    await scene.door.tell(root_filename="", safe_mode=True)
    async with scene.page() as (page, complaints):
        await expect(page.locator("#problems li")).to_have_text("No first page is set (http.server.root_filename).")
        await expect(page.get_by_role("heading", name="The device is in safe mode")).to_be_visible()
        line = page.get_by_label("Command line")
        await line.fill("get system.uuid")
        await line.press("Enter")
        await expect(page.locator("#send .status")).to_have_text(scene.device.ctx.identity.uuid)
        await line.fill("nonsense")
        await line.press("Enter")
        await expect(page.locator("#send .status")).to_contain_text("help commands")
        assert complaints == []


async def test_an_account_is_set_and_saved(scene: Scene) -> None:
    async with scene.page("/.recovery.html") as (page, complaints):
        await expect(page.get_by_text("It is whole.")).to_be_visible()
        await page.get_by_label("User name").fill("ad min")
        await page.get_by_label("Password, at least").fill('a "long" \\one')
        await page.get_by_role("button", name="Set and save").click()
        await expect(page.locator("#set-account .status")).to_contain_text("Set and saved.")
        assert complaints == []
    values = scene.device.settings.values
    assert (values.text("http.server.username"), values.text("http.server.password")) == ("ad min", 'a "long" \\one')
    assert b"ad min" in scene.device.settings.path.read_bytes()


async def test_set_up_with_a_fixed_address(scene: Scene) -> None:
    scene.device.ctx.setup.start()  # type: ignore[union-attr]
    scene.device.network.unconfirmed = True
    await scene.door.tell(setup=True)
    async with scene.page() as (page, complaints):
        await expect(page.get_by_role("heading", level=1)).to_have_text("Set-up")
        await expect(page.get_by_role("heading", name="Nobody has set a password")).to_be_visible()
        await expect(page.get_by_label("Address", exact=True)).to_be_hidden()
        await page.get_by_label("Fixed").check()
        # What is in use is there already.
        await expect(page.get_by_label("Address", exact=True)).to_have_value("10.0.2.15")
        await expect(page.get_by_label("Network mask")).to_have_value("255.255.255.0")
        await page.get_by_label("Address", exact=True).fill("10.0.2.99")
        await page.get_by_label("Name server").fill("")
        await page.get_by_role("button", name="Try it").click()
        result = page.locator("#set-network .status")
        await expect(result).to_contain_text("Network up: 10.0.2.15")
        await expect(result).to_contain_text("within 60 s keeps it")
        await expect(page.locator("#new-address")).to_have_attribute("href", re.compile(r"//10\.0\.2\.15:"))
        assert not scene.device.settings.path.exists(), "nothing is saved before it was tried"
        scene.device.network.unconfirmed = False
        await page.get_by_role("button", name="Keep it").click()
        await expect(page.locator("#keep .status")).to_have_text("Saved. Network up: 10.0.2.15")
        stopping = asyncio.create_task(follow_setup(scene))
        await page.get_by_role("button", name="End set-up").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("The device is running")
        await expect(page.get_by_role("heading", level=1)).to_be_focused()
        await expect(page.get_by_role("link", name="Open the Web App")).to_be_visible()
        await stopping
        assert complaints == []
    values = scene.device.settings.values
    names = ("network.dhcp", "network.static.ip", "network.static.gateway", "network.static.dns")
    assert [values.text(name) for name in names] == ["0", "10.0.2.99", "10.0.2.2", ""]
    assert scene.device.network.did == ["restart", "up"]
    assert b"10.0.2.99" in scene.device.settings.path.read_bytes()


async def follow_setup(scene: Scene) -> None:
    """Be the supervisor that tells its door of the end of set-up."""
    async with asyncio.timeout(20):
        while setup_of(scene.device).on:
            await asyncio.sleep(0.05)
    await scene.door.tell(setup=False)


async def test_a_network_that_does_not_come_up(scene: Scene) -> None:
    await scene.door.tell(setup=True)
    scene.device.network.error = NetworkError("No DHCP server answers.")
    async with scene.page() as (page, complaints):
        await page.get_by_label("Wireless").check()
        await page.get_by_role("button", name="Try it").click()
        await expect(page.get_by_label("Name of the network")).to_be_focused()  # it is needed
        await page.get_by_label("Name of the network").fill('my "net"')
        await page.get_by_label("Its password").fill("a long password")
        await page.get_by_role("button", name="Try it").click()
        result = page.locator("#set-network .status")
        await expect(result).to_contain_text("taken back; nothing is saved")
        await expect(result).to_contain_text("No DHCP server answers.")
        assert complaints == []
    values = scene.device.settings.values
    assert values.text("wlan.ssid") == 'my "net"'
    # Saving the account, say, must not keep what did not come up.
    assert values.text("network.default_interface") == "ethernet"
    assert not scene.device.settings.path.exists()


async def test_who_types_elsewhere_meanwhile_keeps_the_focus(scene: Scene) -> None:
    app = scene.device.web_app
    app.gate = asyncio.Event()
    scene.device.ctx.web_app = app
    async with scene.page("/.recovery.html") as (page, complaints):
        await page.get_by_role("button", name="Restore").click()
        await expect(page.get_by_role("button", name="Restore")).to_be_disabled()
        line = page.get_by_label("Command line")
        await line.press_sequentially("get ")
        app.gate.set()
        await expect(page.locator("#restore .status")).to_contain_text("is restored from somewhere")
        await expect(page.get_by_role("button", name="Restore")).to_be_enabled()
        await expect(line).to_be_focused()
        assert complaints == []


async def test_an_address_that_is_wrong_is_told_before_anything_is_tried(scene: Scene) -> None:
    await scene.door.tell(setup=True)
    async with scene.page() as (page, complaints):
        await page.get_by_label("Fixed").check()
        await page.get_by_label("Gateway").fill("10.0.2.999")
        await page.get_by_role("button", name="Try it").click()
        await expect(page.locator("#set-network .status")).to_have_class(re.compile("failed"))
        assert complaints == []
    assert scene.device.network.did == []


async def test_a_device_that_falls_silent_says_where_it_will_be(scene: Scene) -> None:
    await scene.door.tell(setup=True)
    async with scene.page() as (page, complaints):
        await page.get_by_label("Fixed").check()
        await page.get_by_label("Address", exact=True).fill("10.0.2.99")
        await page.route("**/command", silent_at_a_restart)
        await page.get_by_role("button", name="Try it").click()
        await expect(page.locator("#set-network .status")).to_contain_text("within a minute, it has taken this back")
        await expect(page.locator("#new-address")).to_have_attribute("href", re.compile(r"//10\.0\.2\.99:"))
        # It is here again: what it has taken back does not stay set.
        values = scene.device.settings.values
        async with asyncio.timeout(20):
            while values.text("network.dhcp") != "1" or values.text("network.static.ip"):
                await asyncio.sleep(0.02)
        assert [complaint for complaint in complaints if "ERR_FAILED" not in complaint] == []


async def silent_at_a_restart(route: Route) -> None:
    if "network_restart" in (route.request.post_data or ""):
        await route.abort()
    else:
        await route.continue_()


async def test_commands_switched_off(scene: Scene) -> None:
    await scene.door.tell(api_enabled=False)
    async with scene.page("/.recovery.html") as (page, complaints):
        await expect(page.get_by_role("heading", name="Commands are off here")).to_be_visible()
        for name in ("Restore", "Send", "Try it", "Set and save"):
            await expect(page.get_by_role("button", name=name)).to_be_hidden()
        assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_by_the_keyboard_and_readable(scene: Scene, scheme: str) -> None:
    scene.home.write("app.js", b"damaged")
    await scene.door.tell(setup=True, safe_mode=True)
    async with scene.page("/.recovery.html", **PHONE, color_scheme=scheme) as (page, complaints):
        await expect(page.locator("#problems li")).to_have_count(1)
        await page.get_by_label("Fixed").check()
        await page.get_by_label("Wireless").check()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            "nothing is wider than the phone"
        )
        assert await page.evaluate(SMALL) == []
        assert await page.evaluate(UNNAMED) == []
        assert await page.evaluate(CONTRAST) == []
        # Everything can be reached and used without a pointer.
        await page.locator("#restore input").first.focus()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Restore")).to_be_focused()
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        await page.keyboard.press("Enter")
        await expect(page.locator("#restore .status")).to_contain_text("restored from the copy in the image.")
        assert complaints == []


SMALL = """[...document.querySelectorAll('button, label.choice')]
  .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 40).map((one) => one.textContent)"""
UNNAMED = """[...document.querySelectorAll('input, progress')]
  .filter((one) => !one.labels.length && !one.ariaLabel).map((one) => one.name)"""
CONTRAST = """(() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const one of document.querySelectorAll('h1, h2, p, li, legend, label, button, a, input, .status')) {
    if (!one.offsetParent) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${one.tagName} ${one.id} ${ratio.toFixed(2)}`);
  }
  return bad;
})()"""


def test_the_page_and_its_script_fit_together():
    page, script = ((PAGES / f"recovery.{kind}").read_text() for kind in ("html", "js"))
    wanted = set(re.findall(r'(?:part|on)\("([\w-]+)"', script))
    assert len(wanted) > 20
    assert wanted <= set(re.findall(r'id="([\w-]+)"', page))
    assert set(re.findall(r'form\.get\("(\w+)"\)', script)) <= set(re.findall(r'name="(\w+)"', page))
    # The page's own policy allows no script or style inside of it.
    assert not re.search(r"<script(?! src=)|<style| style=| on\w+=", page)
