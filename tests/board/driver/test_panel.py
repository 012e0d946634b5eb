"""The panel on a real QEMU: the desk with the stand-in firmware, and the page in a browser with the real board."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from scripts.board_driver.serial import SerialLink
from scripts.board_driver.watched import WatchedBoard
from scripts.panel.__main__ import make_panel
from scripts.panel.app import create_app
from scripts.panel.desk import Desk
from scripts.panel.packages import fetched
from tests.support.browser import async_page

BOOT_MS = 240_000


def until(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


def test_a_board_under_a_persons_hands(stand_in: WatchedBoard) -> None:
    stand_in.up()
    desk = Desk(stand_in, lambda: SerialLink(stand_in.run))
    said: list[str] = []
    desk.complain = said.append
    stand_in.wait_for_console("button=0", 20)
    assert desk.look().power
    stand_in.mark()
    desk.type(b"version\r")
    stand_in.wait_for_console("TEST-BARE_FIRMWARE", 20)
    assert not desk.look().led
    desk.press()
    until(lambda: desk.look().led)  # the firmware's lamp shows the button
    desk.release()
    until(lambda: not desk.look().led)
    # A finger on the button through a power cut: the firmware sees it before anything else.
    desk.press()
    desk.power(on=False)
    assert not desk.look().power
    stand_in.mark()
    desk.power(on=True)
    stand_in.wait_for_console("button=1", 20)
    until(lambda: desk.look().power)
    desk.release()
    assert not desk.look().pressed
    stand_in.mark()
    desk.reset()
    stand_in.wait_for_console("button=0", 20)
    assert said == []


@pytest.fixture
async def address(cold: WatchedBoard) -> AsyncIterator[str]:
    """The panel of a board whose power is off, as `make panel` serves it."""
    runner = web.AppRunner(create_app(lambda: make_panel(cold), fetched()))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.board
@pytest.mark.timeout(900)
async def test_a_person_at_the_page_of_the_real_board(address: str) -> None:
    async with async_page(address) as (page, complaints):
        await page.goto("/")
        version, screen = expect(page.locator("#version")), expect(page.locator("#console .xterm-rows"))
        lamp, switch = expect(page.locator("#led-word")), page.get_by_role("switch", name="Power")
        await version.to_have_text("The power is off.")
        await start(page)
        await expect(page.locator("#slots tr.runs")).to_contain_text("running")
        await page.locator("#console").click()
        await page.keyboard.type("get system.bot")
        await page.keyboard.press("Backspace")
        await page.keyboard.type("ot.slot")
        await page.keyboard.press("Enter")
        await screen.to_contain_text(re.compile(r"get system\.boot\.slot\s*a\s*>"), timeout=20_000)
        # The board sees the button; let go before ten seconds nothing is erased.
        await page.locator("#button").hover()
        await page.mouse.down()
        await lamp.to_have_text("blinks", timeout=20_000)
        await expect(page.locator("#held")).to_have_text("The button is down for 3 s.", timeout=20_000)
        await page.mouse.up()
        await lamp.to_have_text("dark", timeout=20_000)
        await switch.click()
        await version.to_have_text("The power is off.")
        await start(page)
        await screen.not_to_contain_text("factory reset")
        await expect(page.locator("#no-faults")).to_have_text("None.")
        await expect(page.get_by_role("alert")).to_be_hidden()
        assert complaints == []


async def start(page: Page) -> None:
    """Switch the power on; the console shows the start, and the board answers."""
    await page.get_by_role("switch", name="Power").click()
    await expect(page.locator("#console .xterm-rows")).to_contain_text("Starting kernel", timeout=BOOT_MS)
    await expect(page.locator("#version")).to_contain_text("this boot is good", timeout=BOOT_MS)
