"""Status, settings and account; what is told above every view; the connection."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.support.fakes import Device
from tests.unit.webapp.conftest import App
from zentrid.errors import ZentriError

pytestmark = [pytest.mark.asyncio(loop_scope="session")]
HOSTILE = '<img src=x onerror="document.title=`owned`">'


async def test_what_the_device_is(app: App, device: Device):
    device.settings.values.set("system.name", HOSTILE)
    device.dms.product = HOSTILE
    await app.open()
    card = app.card("Device")
    for text in ("DEMO-VIRT_SENSOR", "1.4.0", "6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11", "64.0 MiB", "1 min", HOSTILE):
        await card.get_by_text(text, exact=True).first.wait_for()
    await app.button("Ask the server now").click()
    await app.says(f"product: {HOSTILE}")
    assert await app.page.title() == f"Status – {HOSTILE}"
    assert await app.page.locator("img").count() == 0
    assert await app.page.locator("h1").all_inner_texts() == ["Status"]


async def test_claiming_and_activating(app: App, device: Device):
    await app.open()
    await app.page.get_by_text("Claim this device").click()
    await app.page.get_by_label("User name or product").fill("demo")
    await app.page.get_by_label("Password or token").fill('wrong "one" \\')
    await app.button("Claim").click()
    await app.says("wrong user name or password")
    await app.page.get_by_label("Password or token").fill("let me in")
    await app.button("Claim").click()
    await app.says("device claimed")
    assert device.dms.claimed_by == "demo"
    await app.page.get_by_text("Activate: bind it to a product").click()
    await app.page.get_by_label("Product code").fill("nonsense")
    await app.button("Activate").click()
    await app.says("'nonsense' is no product code")
    await app.page.get_by_label("Product code").fill("ACME-VIRT_SENSOR")
    await app.button("Activate").click()
    await app.card("Device management").get_by_text("ACME-VIRT_SENSOR", exact=True).wait_for()
    device.dms.error = ZentriError("The server does not answer.")
    await app.button("Ask the server now").click()
    await app.says("The server does not answer.")


async def test_restart_is_asked_for_and_waited_for(app: App, device: Device):
    await app.open()
    await app.button("Restart").click()
    await app.confirm("Cancel")
    assert device.power.reboots == []
    await app.button("Restart").click()
    await app.confirm("Restart")
    await app.says("Rebooting. The page waits for the device.")
    assert device.power.reboots == ["command"]
    app.expected += ["ERR_INTERNET_DISCONNECTED", "WebSocket"]
    await app.page.context.set_offline(True)
    await app.says("The device is restarting.")
    device.clock.up_s = 3.0
    await app.page.context.set_offline(False)
    await app.says("The device has restarted and runs 1.4.0.")
    await expect(app.page.locator("#banners")).to_be_empty()


async def test_factory_reset_wants_the_address(app: App, device: Device):
    await app.open()
    await app.page.get_by_label("MAC address of this device").fill("52:54:00:00:00:00")
    await app.button("Reset to factory settings").click()
    await app.page.get_by_role("dialog").get_by_text("are lost for good").wait_for()
    await app.confirm("Reset now")
    await app.says("That is not this device's MAC address, so nothing was changed")
    assert device.power.reboots == []
    await app.page.get_by_label("What is forgotten").select_option("settings")
    await app.page.get_by_label("MAC address of this device").fill("52-54-00-12-34-56")
    await app.button("Reset to factory settings").click()
    await app.confirm("Reset now")
    await app.says("Look for the device in the network")
    assert device.power.reboots == ["factory reset: command"]


async def test_setup_mode(app: App, device: Device):
    await app.open()
    await app.button("Begin set-up mode").click()
    await app.says("on for 900 s more")
    await app.button("End set-up mode").click()
    await app.says("Set-up mode is off.")


class TestAccount:
    @pytest.fixture
    def context(self) -> dict[str, Any]:
        return {"http_credentials": {"username": "admin", "password": "wrong"}}

    async def test_the_account_and_a_password_that_is_wrong(self, app: App, device: Device):
        await app.open()
        await app.says("Nobody has set a password.")
        name, one, two = (
            app.page.get_by_label(label, exact=True) for label in ("User name", "Password", "Password again")
        )
        await name.fill("admin")
        await one.fill("geheim geheim")
        await two.fill("anders anders")
        await app.button("Set and save").click()
        await app.says("The two passwords differ")
        assert device.settings.values.text("http.server.username") == ""
        await two.fill("geheim geheim")
        await app.button("Set and save").click()
        await app.says("Set and saved.")
        values = device.settings.values
        assert (values.text("http.server.username"), values.text("http.server.password")) == ("admin", "geheim geheim")
        app.expected += ["401", "WebSocket"]
        await app.door.tell(username="admin", password="geheim geheim")
        await app.page.get_by_text("Activate: bind it to a product").click()
        await app.button("Ask the server now").click()
        await app.says("The device wants a user name and a password.")
        await app.button("Sign in").wait_for()
        # Nothing goes on asking: each request would be one more try.
        asked: list[str] = []
        app.page.on("request", lambda request: asked.append(request.url))
        await app.page.evaluate("dispatchEvent(new Event('online'))")
        await app.button("Ask the server now").click()
        await app.page.wait_for_timeout(600)
        assert asked == []
        # Signing in takes nothing with it that was typed.
        await app.page.get_by_label("Product code").fill("typed")
        await app.door.tell(username="", password="")
        await app.button("Sign in").click()
        await expect(app.page.locator("#banners")).to_be_empty()
        assert await app.page.get_by_label("Product code").input_value() == "typed"


class TestPassword:
    @pytest.fixture
    def context(self) -> dict[str, Any]:
        return {"http_credentials": {"username": "admin", "password": "geheim geheim"}}

    async def test_with_the_right_one_all_doors_are_open(self, app: App, device: Device):
        device.settings.values.set("http.server.username", "admin")
        device.settings.values.set("http.server.password", "geheim geheim")
        await app.door.tell(username="admin", password="geheim geheim")
        await app.open()
        await app.says("Set: only “admin” may command this device here.")
        await app.live()
        await app.go("terminal")
        await app.says("Connected.")


async def test_a_lost_device_comes_back(app: App, device: Device):
    await app.open()
    app.expected += ["ERR_INTERNET_DISCONNECTED", "WebSocket"]
    await app.page.context.set_offline(True)
    await app.says("The device is not reachable; trying again.")
    await app.button("Ask the server now").click()
    await app.says("The device did not answer; whether it did this is not known.")
    await app.go_offline("network")
    await app.page.context.set_offline(False)
    await expect(app.page.locator("#banners")).to_be_empty()
    await app.card("Now").get_by_text("10.0.2.15").wait_for()  # the view that could not be shown is shown
    await expect(app.page.locator("#live")).to_have_text("The device is reachable again.")


async def test_the_device_s_refusal_is_told(app: App, device: Device):
    await app.open()
    app.expected += ["403"]
    await app.door.tell(api_enabled=False)
    await app.page.evaluate("dispatchEvent(new Event('online'))")
    await app.says("The device refuses: the command interface is off (http.server.api_enabled)")
    await app.door.tell(api_enabled=True)
    await expect(app.page.locator("#banners")).to_be_empty()


async def test_a_full_queue_is_waited_for(app: App, device: Device):
    await app.open()
    app.expected += ["503"]
    refused = [0]

    async def busy(route):
        refused[0] += 1
        if refused[0] > 2:
            await route.continue_()
        else:
            await route.fulfill(
                status=503,
                headers={"Retry-After": "0"},
                json={"error": "3 commands are running; try again in a moment"},
            )

    await app.page.route("**/command", busy)
    await app.button("Ask the server now").click()
    await app.says("server: dms.zentri.local:8443")
    await app.page.unroute("**/command", busy)

    async def unsure(route):
        refused[0] += 1
        await route.fulfill(
            status=503, json={"error": "the command line broke off; the command may have been carried out"}
        )

    refused[0] = 0
    await app.page.route("**/command", unsure)
    await app.button("End set-up mode").click()
    await app.says("the command may have been carried out")
    assert refused[0] <= 2  # this command, and perhaps the pulse: not sent again


class TestSafeMode:
    @pytest.fixture
    def device(self, tmp_path: Path) -> Device:
        return Device(tmp_path / "zentri", safe_mode=True)

    async def test_it_is_explained_and_what_is_not_there_is_said(self, app: App, device: Device):
        await app.open()
        await app.says("Safe mode. The device has restarted with errors too often")
        await app.go("gpio")
        await app.says("Not available in safe mode")
        await app.go("update")
        await app.button("Install the newest").wait_for()
        await app.go("health")
        await app.says("To leave safe mode")
        device.ctx.safe_mode = False
        await app.go("gpio")
        await app.page.evaluate("dispatchEvent(new Event('online'))")
        await app.page.get_by_label("Direction of GPIO 2").wait_for()
        await expect(app.page.locator("#banners")).to_be_empty()


async def test_settings(app: App, device: Device):
    await app.open("settings")
    await app.page.get_by_label("Name of this device").fill(HOSTILE)
    await app.card("Name").get_by_role("button", name="Save").click()
    await app.card("Name").get_by_text("Saved.").wait_for()
    assert device.settings.values.text("system.name") == HOSTILE
    await app.page.get_by_label("Names of the device").fill("no_name!")
    await app.card("Web server").get_by_role("button", name="Save").click()
    await app.card("Web server").locator(".result.bad").wait_for()
    await app.page.get_by_label("Names of the device").fill("boiler.example")
    await app.card("Web server").get_by_role("button", name="Save").click()
    await app.card("Web server").get_by_text("Saved.").wait_for()
    assert device.settings.values.text("http.server.hostname") == "boiler.example"
    await app.page.get_by_label("Variable", exact=True).select_option("system.boot.deadline")
    await app.says("20 to 3600")
    await app.page.get_by_label("Value", exact=True).fill("5")
    await app.button("Set").click()
    await app.card("All variables").locator(".result.bad").wait_for()
    await app.page.get_by_label("Value", exact=True).fill("200")
    await app.button("Set").click()
    await app.says("system.boot.deadline is set; it is not saved yet.")
    await app.button("Save all for the next start").click()
    await app.page.get_by_text("Show all").click()
    await app.page.get_by_label("Only names with").fill("boot.deadline")
    assert (await app.card("All variables").locator("dl").inner_text()).split() == ["system.boot.deadline", "200"]


async def test_another_release_after_a_restart(app: App, device: Device):
    await app.open()
    device.clock.up_s = 2.0
    device.ctx.release = replace(device.ctx.release, version="1.5.0")
    await app.page.evaluate("dispatchEvent(new Event('online'))")
    await app.says("The device runs 1.5.0 on trial (before: 1.4.0).")
    device.ctx.boot_health = lambda: (True, "good")
    await app.page.evaluate("dispatchEvent(new Event('online'))")
    await app.says("The device runs 1.5.0 (before: 1.4.0). The new release is good and stays.")
    await app.button("Dismiss").click()
    await expect(app.page.locator(".notice.good")).to_have_count(0)


async def test_a_release_that_was_taken_back(app: App, device: Device):
    device.log.write_text(
        "2026-11-02T12:00:00Z update: confirming -> idle, release 1.5.0, rolled back (health)\nother\n"
    )
    await app.open()
    device.clock.up_s = 2.0
    device.ctx.release = replace(device.ctx.release, version="1.5.0")
    await app.page.evaluate("dispatchEvent(new Event('online'))")
    await app.says("on trial")
    device.clock.up_s = 1.0
    device.ctx.release = replace(device.ctx.release, version="1.4.0")
    await app.page.reload()  # also a page that was loaded again knows what was before
    await app.says("The new release 1.5.0 was taken back; the device runs 1.4.0.")
    await app.says("release 1.5.0, rolled back (health)")


async def test_a_release_that_was_taken_back_is_never_called_good(app: App, device: Device):
    device.clock.up_s = 20.0
    await app.open()
    pulse = "dispatchEvent(new Event('online'))"
    device.ctx.release, device.ctx.running_slot = replace(device.ctx.release, version="1.5.0"), "b"
    device.clock.up_s = 30.0  # more than when it was seen last
    await app.page.evaluate(pulse)
    await app.says("The device runs 1.5.0 on trial (before: 1.4.0).")
    device.clock.up_s = 4.0  # its second try
    await app.page.evaluate(pulse)
    await app.says("The device has restarted, and still runs 1.5.0 on trial (before: 1.4.0).")
    device.ctx.release, device.ctx.running_slot = replace(device.ctx.release, version="1.4.0"), "a"
    device.ctx.boot_health = lambda: (True, "good")
    device.clock.up_s = 40.0
    await app.page.evaluate(pulse)
    await app.says("The new release 1.5.0 was taken back; the device runs 1.4.0.")
    device.ctx.running_slot, device.clock.up_s = "r", 50.0
    await app.page.evaluate(pulse)
    await app.says("The device has restarted in safe mode.")


async def test_a_look_at_the_device_takes_no_focus(app: App, device: Device):
    await app.open()
    link = app.page.get_by_role("link", name="Show faults")
    await link.focus()
    device.ctx.safe_mode = True
    device.clock.up_s = 7261.0
    await app.page.evaluate("dispatchEvent(new Event('online'))")
    await app.card("Device").get_by_text("2 h 1 min").wait_for()
    await expect(link).to_be_focused()
    banner = app.page.locator("#banners .notice")
    await banner.evaluate("one => { window.told = one }")
    device.clock.up_s = 10861.0
    await app.page.evaluate("dispatchEvent(new Event('online'))")
    await app.card("Device").get_by_text("3 h 1 min").wait_for()
    assert await banner.evaluate("one => one === window.told")  # a new one would be read out again


async def test_a_secret_is_not_replaced_by_what_stands_for_it(app: App, device: Device):
    device.settings.values.set("wlan.password", "a long password")
    await app.open("settings")
    card = app.card("All variables")
    first = await card.get_by_label("Variable", exact=True).input_value()
    values = device.settings.values
    assert await card.get_by_label("Value", exact=True).input_value() == values.text(first)
    await card.get_by_label("Variable", exact=True).select_option("wlan.password")
    await expect(card.get_by_label("Value", exact=True)).to_have_value("")
    await app.button("Set").click()
    await app.says("wlan.password is set, and never shown; type the new value.")
    assert values.text("wlan.password") == "a long password"
    await card.get_by_label("Value", exact=True).fill("another one")
    await app.button("Set").click()
    await app.says("wlan.password is set; it is not saved yet.")
    assert values.text("wlan.password") == "another one"


async def test_a_page_that_nobody_looks_at_leaves_its_place_to_others(app: App, device: Device):
    await app.open()
    await app.live()
    hide = """one => { Object.defineProperty(document, "hidden", { value: one, configurable: true });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    await app.page.evaluate(hide, True)
    async with asyncio.timeout(20):
        while device.ctx.events._followers:
            await asyncio.sleep(0.02)
    await app.page.evaluate(hide, False)
    await app.live()


async def test_giving_up_does_not_close_the_browser_s_question(app: App, device: Device):
    await app.page.clock.install()
    await app.open()
    reached = asyncio.Event()
    app.expected += ["Failed to load resource"]

    async def hold(route):
        if "get system" in (route.request.post_data or ""):
            reached.set()  # and no answer comes while the browser asks for the password
        else:
            await route.continue_()

    await app.page.route("**/command", hold)
    await app.page.evaluate("document.hasFocus = () => false; dispatchEvent(new Event('online'))")
    await reached.wait()
    await app.page.clock.fast_forward(20_000)
    await expect(app.page.locator("#banners")).to_be_empty()
    await app.page.clock.fast_forward(70_000)
    await app.says("The device is not reachable; trying again.")
