"""Network, GPIOs, updates, health, terminal."""

import asyncio
import re

import pytest
from playwright.async_api import expect

from tests.support.fakes import Device
from tests.unit.webapp.conftest import App
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.events import BootGood, UpdateAdvanced, UpdateChanged
from zentrid.core.network import NetworkError
from zentrid.ports import UpdateProgress

pytestmark = [pytest.mark.asyncio(loop_scope="session")]
HOSTILE = "<b onclick=alert(1)>x</b>"


async def test_an_update_goes_on_without_its_connection(app: App, device: Device):
    app.expected += ["ERR_"]
    await app.open("update")

    async def cut(route):
        if '"ota' in (route.request.post_data or ""):
            device.updates.state, device.updates.percent = "downloading", 40
            await route.abort()
        else:
            await route.continue_()

    await app.page.route("**/command", cut)
    await app.button("Install the newest").click()
    await app.confirm("Install")
    await app.says("An update goes on without it")
    await app.says("Downloading and installing: 40 %")


async def test_an_update_that_found_no_place_has_not_begun(app: App, device: Device):
    app.expected += ["503"]
    await app.open("update")

    async def busy(route):
        if '"ota' in (route.request.post_data or ""):
            error = {"error": "3 commands are running; try again in a moment"}
            await route.fulfill(status=503, headers={"Retry-After": "10"}, json=error)
        else:
            await route.continue_()

    await app.page.route("**/command", busy)
    await app.button("Install the newest").click()
    await app.confirm("Install")
    await app.says("3 commands are running; try again in a moment")
    assert await app.page.get_by_text("An update goes on").count() == 0


# --- network ------------------------------------------------------------------------------------------------------------
async def fixed(app: App, ip: str, gateway: str) -> None:
    card = app.card("Address")
    await card.get_by_label("How it gets its address").select_option("0")
    await card.get_by_role("group", name="Fixed address").get_by_label("Address").fill(ip)
    await card.get_by_label("Gateway").fill(gateway)
    await app.button("Change the network").click()


async def test_the_network_and_how_far_it_reaches(app: App, device: Device):
    await app.open("network")
    await app.card("Now").get_by_text("52:54:00:12:34:56").wait_for()
    await app.button("Check the network").click()
    await app.says("gateway: 10.0.2.2 is there")
    await app.page.get_by_label("Host").fill("example.com")
    await app.button("Ping").click()
    await app.says("Ping reply in 1.5 ms")
    assert device.probes.asked[-1] == "ping example.com 3"
    await app.page.get_by_label("Host").fill("-n")
    await app.button("Ping").click()
    await app.says("'-n' is no name of a host")
    await app.card("Look how far it reaches").get_by_label("Name").fill("example.com")
    await app.button("Look up").click()
    await app.says("192.0.2.7")


async def test_a_change_that_does_not_come_up_is_taken_back(app: App, device: Device):
    await app.open("network")
    device.network.error = NetworkError("The gateway 10.0.2.99 does not answer; the address before is in use again.")
    await fixed(app, "10.0.2.77", "10.0.2.99")
    await app.says("The gateway 10.0.2.99 does not answer")
    values = device.settings.values
    assert (values.flag("network.dhcp"), values.text("network.static.ip")) == (True, "")
    assert await app.page.get_by_role("link", name="/#/network/confirm").count() == 0
    await fixed(app, "999.1.1.1", "")
    await app.card("Address").locator(".result.bad").wait_for()
    assert values.flag("network.dhcp")


async def test_a_change_that_works_is_saved_when_somebody_says_so(app: App, device: Device):
    await app.open("network")
    await app.button("Change the network").click()
    await app.says("The network is up with these settings. They are not saved yet.")
    await app.button("Save for the next start").click()
    await app.says("Saved.")
    assert "restart" in device.network.did


async def test_the_device_moves_to_another_address(app: App, device: Device):
    await app.open("network")
    app.expected += ["ERR_FAILED"]
    asked = asyncio.Event()

    async def cut(route):
        if "network_restart" in (route.request.post_data or ""):
            asked.set()
            await route.abort()
        else:
            await route.continue_()

    await app.page.route("**/command", cut)
    await fixed(app, "10.0.2.77", "")
    await asked.wait()
    link = app.page.get_by_role("link", name="10.0.2.77")
    assert await link.get_attribute("href") == f"http://10.0.2.77:{app.door.port}/#/network/confirm"
    await app.says("it is taken back unless it is confirmed within 60 seconds")
    # It comes back without having moved: what was typed is not left for a later `save`.
    await app.page.unroute("**/command", cut)
    await app.says("The device is back at the address before: the change was taken back.")
    assert device.settings.values.flag("network.dhcp")
    # And there:
    device.settings.values.set("network.static.ip", "10.0.2.77")
    await app.open("network/confirm")
    device.network.unconfirmed = True
    await app.button("Confirm and save").click()
    await app.says("Confirmed and saved.")
    assert not device.network.unconfirmed
    assert device.settings.values.text("network.static.ip") == "10.0.2.77"


async def test_the_radio(app: App, device: Device):
    await app.open("network")
    card = app.card("Radio network (WLAN)")
    await card.get_by_label("Name of the network").fill('caf\u00e9 "1" \\')
    await card.get_by_label("Password", exact=True).fill("short")
    await card.get_by_role("button", name="Save").click()
    await card.locator(".result.bad").wait_for()
    await card.get_by_label("Password", exact=True).fill("long enough")
    await card.get_by_role("button", name="Save").click()
    await card.get_by_text("Saved.").wait_for()
    values = device.settings.values
    assert (values.text("wlan.ssid"), values.text("wlan.password")) == ('caf\u00e9 "1" \\', "long enough")


async def test_a_change_that_was_taken_back_is_not_left_for_a_later_save(app: App, device: Device):
    await app.open("network")
    app.expected += ["ERR_INTERNET_DISCONNECTED", "ERR_FAILED", "WebSocket"]
    values = device.settings.values

    async def cut(route):
        if "network_restart" in (route.request.post_data or ""):
            await app.page.context.set_offline(True)
            await route.abort()
        else:
            await route.continue_()

    await app.page.route("**/command", cut)
    await fixed(app, "10.0.2.77", "10.0.2.2")
    await app.says("The device is not reachable")
    await app.go_offline("settings")  # looking elsewhere meanwhile
    assert values.text("network.static.ip") == "10.0.2.77"
    await app.page.context.set_offline(False)
    async with asyncio.timeout(20):
        while not values.flag("network.dhcp") or values.text("network.static.ip"):
            await asyncio.sleep(0.02)


# --- GPIOs --------------------------------------------------------------------------------------------------------------
async def test_gpios(app: App, device: Device):
    await app.open("gpio")
    await app.button("Set GPIO 3 high").click()
    await app.says("GPIO 3 is high now.")
    assert device.gpios.levels[3]
    await app.button("Set GPIO 3 low").wait_for()
    device.gpios.levels[4] = True  # from outside: seen without a reload
    await app.page.get_by_role("row", name="4 free").get_by_text("high", exact=True).wait_for()
    await app.page.get_by_label("Direction of GPIO 5").select_option("out")
    await app.says("GPIO 5 is an output now.")
    assert device.gpios.did == [(5, "out")]
    await app.button("Set GPIO 5 high").wait_for()
    device.gpios.foreign[6] = "another driver"
    await app.page.get_by_label("Direction of GPIO 6").select_option("out")
    await app.says("GPIO 6 cannot be used (Device or resource busy).")
    for number in (0, 1, 7):
        await expect(app.page.get_by_label(f"Direction of GPIO {number}")).to_be_disabled()
    assert await app.button("Set GPIO 0 high").count() == 0


# --- updates ------------------------------------------------------------------------------------------------------------
async def test_an_update_is_followed_to_its_restart(app: App, device: Device):
    updates, tell = device.updates, device.ctx.events.tell
    updates.gate = asyncio.Event()
    done = UpdateProgress("rebooting", 100, "Updated to DEMO-VIRT_SENSOR-1.5.0.", done=True, reboot=True)
    updates.script = [UpdateProgress("downloading", 12, "", 1000), done]
    await app.open("update")
    await app.live()
    await app.button("Install the newest").click()
    await app.confirm("Install")
    await app.says("Downloading and installing: 12 %")
    bar = app.page.get_by_role("progressbar")
    tell(UpdateAdvanced("downloading", "1.5.0", 57, 2_000_000))
    await app.says("Downloading and installing: 57 %, 1.9 MiB received")
    await expect(bar).to_have_js_property("value", 57)
    updates.percent = 57
    await app.go("status")
    await app.says("An update is running.")
    await app.go("update")
    updates.gate.set()
    await device.power.rebooted.wait()
    assert device.power.reboots == ["update installed"]
    await app.button("Restart now").wait_for()


async def test_restart_by_a_person_and_taking_it_back(app: App, device: Device):
    device.settings.values.set("ota.reboot", "manual")
    device.updates.script = [UpdateProgress("rebooting", 100, "Updated.", done=True, reboot=True)]
    await app.open("update")
    await app.button("Install the newest").click()
    await app.confirm("Install")
    await app.says("Use 'reboot' to start it.")
    device.updates.installed = True
    await app.button("Take it back").click()
    await app.confirm("Take it back")
    await app.says("The installed release was taken back")
    device.updates.state = "rebooting"
    device.updates.installed = True
    await app.go("status")
    await app.go("update")
    await app.button("Restart now").click()
    await app.confirm("Restart")
    await asyncio.wait_for(device.power.rebooted.wait(), 10)


async def test_looking_failing_and_cancelling(app: App, device: Device):
    updates = device.updates
    await app.open("update")
    updates.script = [UpdateProgress("idle", 0, "Update available: 1.5.0", done=True)]
    updates.available = "1.5.0"
    await app.button("Look for an update").click()
    await app.says("Update available: 1.5.0")
    assert updates.asked[-1].check_only
    await app.card("Now").get_by_text("1.5.0", exact=True).wait_for()
    updates.script = [UpdateProgress("idle", 0, f"The disk is broken {HOSTILE}.", done=True, ok=False)]
    await app.page.get_by_label("Address or path").fill("http://user:secret@10.0.2.2/new.zb")
    await app.button("Install from there").click()
    assert "secret" not in await app.page.get_by_role("dialog").inner_text()
    await app.confirm("Install")
    await app.says(f"The disk is broken {HOSTILE}.")
    assert updates.asked[-1].source == "http://user:secret@10.0.2.2/new.zb"
    updates.gate = asyncio.Event()
    updates.script = [UpdateProgress("downloading", 1, ""), UpdateProgress("idle", 0, "", done=True)]
    await app.page.get_by_text("A certain version").click()
    await app.page.get_by_label("Version", exact=True).fill("1.4.0")
    await app.page.get_by_label("install it even if it runs already").check()
    await app.button("Install this version").click()
    await app.button("Cancel the update").click()
    await app.says("The update was cancelled.")
    assert (updates.asked[-1].force, updates.asked[-1].version) == (True, "1.4.0")


async def test_an_update_of_somebody_else_is_followed_without_events(app: App, device: Device):
    await app.page.route_web_socket("**/terminal*", lambda socket: socket.close())
    device.updates.state, device.updates.percent = "downloading", 10
    await app.open("update")
    await app.says("Downloading and installing: 10 %")
    device.updates.percent = 60
    await app.says("Downloading and installing: 60 %")
    device.updates.state = "idle"
    await app.says("No update is running.")


async def test_an_update_that_fails_by_itself_is_told(app: App, device: Device):
    await app.open("update")
    await app.live()
    device.ctx.events.tell(UpdateChanged("downloading", "idle", "1.5.0", "failed", "budget"))
    await app.says("Release 1.5.0: failed (budget).")


async def test_when_updates_come_by_themselves(app: App, device: Device):
    await app.open("update")
    card = app.card("By itself")
    await card.get_by_label("Updates from the server").select_option("install")
    await card.get_by_label("When").fill("never")
    await card.get_by_role("button", name="Save").click()
    await card.locator(".result.bad").wait_for()
    assert device.settings.values.text("dms.auto") == "off"
    await card.get_by_label("When").fill("mon-fri 22:00-04:00")
    await card.get_by_label("Restart into a new release").select_option("manual")
    await card.get_by_role("button", name="Save").click()
    await card.get_by_text("Saved.").wait_for()
    values = device.settings.values
    assert [values.text(n) for n in ("dms.auto", "dms.window", "ota.reboot")] == [
        "install",
        "mon-fri 22:00-04:00",
        "manual",
    ]


# --- health -------------------------------------------------------------------------------------------------------------
async def test_slots_faults_and_log(app: App, device: Device):
    fault = Fault("panic", "a", "1.4.0", 1832, "2026-11-25T01:16:15Z", HOSTILE)
    device.boot_state.state = BootState(faults=1, fault_records=(fault,))
    device.log.write_text(f"2026-11-02T12:00:00Z first {HOSTILE}\n")
    await app.open("health")
    await app.live()
    await expect(app.page.get_by_role("row")).to_have_count(4)
    await app.says(f"panic, slot a, version 1.4.0, up 1832 s, 2026-11-25T01:16:15Z, {HOSTILE}")
    await app.says(f"first {HOSTILE}")
    with device.log.open("a") as log:
        log.write("2026-11-02T12:00:01Z second\n")
    await app.button("Read again").click()
    await app.says("Z second")
    await app.page.get_by_label("follow it").check()
    with device.log.open("a") as log:
        log.write("2026-11-02T12:00:02Z third\n")
    await app.says("Z third")
    await app.button("Forget all faults").click()
    await app.confirm("Forget them")
    await app.says("No faults.")
    assert device.boot_state.state.faults == 0
    device.boot_state.state = BootState(faults=1, fault_records=(fault,))
    device.ctx.events.tell(BootGood("a", "1.4.0"))
    await app.says("panic, slot a")
    device.boot_state.broken = True
    await app.button("Forget all faults").click()
    await app.confirm("Forget them")
    await app.card("Faults").locator(".result.bad").wait_for()


# --- terminal -----------------------------------------------------------------------------------------------------------
async def screen(app: App, text: str) -> None:
    await app.page.locator(".screen", has_text=text).wait_for()


async def test_the_terminal(app: App, device: Device):
    await app.open("terminal")
    await screen(app, "> ")
    keys = app.page.get_by_role("textbox", name="Terminal keyboard")
    await app.page.locator(".screen").click()
    await expect(keys).to_be_focused()
    press, write = app.page.keyboard.press, app.page.keyboard.type
    await write("get system.uui")
    await press("Tab")
    await screen(app, "get system.uuid ")
    await press("Enter")
    await screen(app, "6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11")
    await press("ArrowUp")
    for _ in "uuid ":
        await press("Backspace")
    await app.page.keyboard.insert_text("versio")
    await press("Home")
    await press("End")
    await write("nX")
    await press("Backspace")
    await press("Enter")
    await screen(app, "> get system.version")
    await write("set system.name gr\u00fcn\u6f22")
    await press("Enter")
    await screen(app, "Set OK")
    assert device.settings.values.text("system.name") == "gr\u00fcn\u6f22"
    await write("events")
    await press("Enter")
    device.ctx.events.tell(BootGood("a", HOSTILE))
    await screen(app, f"release {HOSTILE}")
    await press("Control+c")
    await write("ver")
    await press("Control+u")
    await press("Control+l")
    await expect(app.page.get_by_role("log")).to_be_empty()
    # Out of it by the keyboard alone, and the field for whole lines.
    await press("Escape")
    await press("Tab")
    await expect(app.page.get_by_label("Or a whole line")).to_be_focused()
    await write("get network.mac")
    await press("Enter")
    await screen(app, "52:54:00:12:34:56")


async def test_many_lines_are_pasted_and_the_end_is_told(app: App, device: Device):
    await app.open("terminal")
    await screen(app, "> ")
    await app.page.locator(".screen").click()
    await app.page.keyboard.insert_text("set system.name one\nset system.name two\n")
    # Not `wait_for_function` with a text: what must be asked twice is evaluated by the page, which the policy forbids.
    await expect(app.page.locator(".screen")).to_have_text(re.compile(r"Set OK[\s\S]*Set OK"))
    assert device.settings.values.text("system.name") == "two"
    app.expected += ["401", "WebSocket"]
    await app.door.tell(username="u", password="p")  # closes what is open
    await app.says("The connection has ended.")
    await app.door.tell(username="", password="")
    await app.button("Connect again").click()
    await app.says("Connected.")


async def test_a_terminal_takes_the_place_of_the_events(app: App, device: Device):
    other = await app.page.context.new_page()
    await app.open("terminal")
    await app.says("Connected.")
    app.expected += ["503", "WebSocket"]
    await other.goto("/#/terminal")
    await other.locator("main", has_text="The terminal could not be opened: the device has two at most.").wait_for()
    await app.go("status")  # its place is free again
    await other.get_by_role("button", name="Connect again").click()
    await other.locator("main", has_text="Connected.").wait_for()
    await other.close()
