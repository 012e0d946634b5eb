"""The page in a real browser, in front of a desk in memory: what a person sees, does, and can do without a mouse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from scripts.panel.desk import Look
from scripts.panel.packages import fetched
from tests.support.browser import DEADLINE_MS, PHONE, Complaints, async_page
from tests.unit.panel.conftest import Served, until

expect.set_options(timeout=DEADLINE_MS)

STATUS: dict[str, Any] = {
    "answers": True, "safe_mode": True, "version": "DEMO-1.0.0, 2026, Zentri-1, Board:virt", "good": True,
    "slots": [["a", "1.0.0", "running", "3", "yes", "yes"], ["b", "-", "<b>empty", "0", "no", "no"]],
    "faults": ["0: panic, slot a, <script>alert(1)</script>", "1: watchdog, slot b"],
    "update": {"state": "downloading", "percent": 40, "bytes": 204800, "available": ""},
}  # fmt: skip
IDLE = {"state": "idle", "percent": 0, "bytes": 0, "available": "1.1.0"}


@pytest.fixture
def package_files() -> Path:
    """The real ones: `make` has fetched them."""
    return fetched()


@pytest.fixture(params=[{}, PHONE], ids=["desktop", "phone"])
async def opened(served: Served, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Page, Complaints]]:
    async with async_page(served.url, **request.param) as (page, complaints):
        await page.goto("/")
        await expect(page.locator("#name")).to_have_text("main")
        yield page, complaints
        assert complaints == []


@pytest.fixture
async def page(served: Served) -> AsyncIterator[Page]:
    async with async_page(served.url) as (page, complaints):
        await page.goto("/")
        await expect(page.locator("#name")).to_have_text("main")
        yield page
        assert complaints == []


def text(page: Page, name: str) -> Any:
    return expect(page.locator(f"#{name}"))


async def test_it_shows_the_board(served: Served, opened: tuple[Page, Complaints]) -> None:
    page, _ = opened
    await text(page, "version").to_contain_text("does not answer")
    served.panel.status.latest = STATUS
    served.desk.seen = Look(power=True, led=True, pressed=False)
    await text(page, "version").to_have_text("SAFE MODEDEMO-1.0.0, 2026, Zentri-1, Board:virt, this boot is good")
    await text(page, "led-word").to_have_text("lit")
    await text(page, "power-word").to_have_text("on")
    await expect(page.get_by_role("row", name="b - <b>empty 0 no no")).to_be_visible()
    await expect(page.locator("#slots tr.runs")).to_contain_text("1.0.0")
    await expect(page.get_by_role("listitem").first).to_have_text("panic, slot a, <script>alert(1)</script>")
    await text(page, "fault-count").to_have_text("(2 of 8 until safe mode)")
    await text(page, "update-more").to_have_text("40 %, 200 KiB received")
    assert await page.locator("#update-progress").evaluate("one => one.value") == 40
    served.panel.status.latest = {**STATUS, "faults": [], "update": IDLE, "safe_mode": False}
    await text(page, "no-faults").to_have_text("None.")
    await text(page, "update-more").to_have_text("release 1.1.0 is available")
    await text(page, "version").not_to_contain_text("SAFE MODE")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs over the edge"


async def test_a_board_that_is_off_or_gone_is_told_and_what_was_known_stays(served: Served, page: Page) -> None:
    served.panel.status.latest = STATUS
    await text(page, "version").to_contain_text("DEMO-1.0.0")
    served.panel.status.latest = {"answers": False}  # it restarts, or SSH is not there
    await text(page, "version").to_contain_text("does not answer")
    await expect(page.locator("#slots.stale tr.runs")).to_be_visible()
    served.desk.seen = Look(power=False, led=False, pressed=False)
    await text(page, "version").to_have_text("The power is off.")
    await expect(page.locator("#reset")).to_be_disabled()
    served.panel.complain("board main is down")
    await expect(page.get_by_role("alert")).to_have_text("board main is down")


async def test_the_lamp_says_that_it_blinks(served: Served, page: Page) -> None:
    for led in (True, False, True, False):
        served.desk.seen = Look(power=True, led=led, pressed=True)
        await page.wait_for_function("led => (document.getElementById('led').className === 'on') === led", arg=led)
    await text(page, "led-word").to_have_text("blinks")
    await text(page, "held").to_contain_text("is down for")
    served.desk.seen = Look(power=True, led=True, pressed=False)
    await text(page, "led-word").to_have_text("lit")
    await text(page, "held").to_have_text("The button is up.")


async def test_the_power_switch_and_reset(served: Served, opened: tuple[Page, Complaints]) -> None:
    page, _ = opened
    switch = page.get_by_role("switch", name="Power")
    await expect(switch).to_be_checked()
    await switch.click()
    await until(lambda: served.desk.did == [("power", False)])
    served.desk.seen = Look(power=False, led=False, pressed=False)
    await expect(switch).not_to_be_checked()
    await switch.press("Space")
    await until(lambda: served.desk.did == [("power", False), ("power", True)])
    served.desk.seen = Look(power=True, led=False, pressed=False)
    served.panel.status.latest = STATUS
    await text(page, "version").to_contain_text("DEMO-1.0.0")
    await page.get_by_role("button", name="Reset").click()
    await until(lambda: served.desk.did[-1] == "reset")
    await text(page, "version").to_contain_text("does not answer")


async def hold_with_mouse(page: Page, held: Callable[[], Any]) -> None:
    await page.locator("#button").hover()
    await page.mouse.down()
    await held()
    await page.mouse.move(5, 5)  # a hand that slips does not let go
    await page.mouse.up()


def hold_with_key(key: str) -> Callable[[Page, Callable[[], Any]], Any]:
    async def hold(page: Page, held: Callable[[], Any]) -> None:
        await page.locator("#button").focus()
        await page.keyboard.down(key)
        await page.keyboard.down(key)  # it repeats
        await held()
        await page.keyboard.up(key)

    return hold


async def hold_with_latch(page: Page, held: Callable[[], Any]) -> None:
    await page.get_by_label("keep it down").check()
    await page.locator("#button").click()  # another finger changes nothing
    await held()
    await page.get_by_label("keep it down").uncheck()


async def hold_and_go_away(page: Page, held: Callable[[], Any]) -> None:
    await page.locator("#button").focus()
    await page.keyboard.down("Enter")
    await held()
    await page.locator("#power").focus()


@pytest.mark.parametrize(
    "hold", [hold_with_mouse, hold_with_key(" "), hold_with_key("Enter"), hold_with_latch, hold_and_go_away]
)
async def test_the_button_is_down_as_long_as_it_is_held(served: Served, page: Page, hold: Callable[..., Any]) -> None:
    async def held() -> None:
        await until(lambda: served.desk.did == ["press"])
        await expect(page.locator("#button")).to_have_attribute("aria-pressed", "true")
        await text(page, "held").to_have_text("The button is down for 1 s.")
        assert served.desk.did == ["press"]

    await hold(page, held)
    await until(lambda: served.desk.did == ["press", "release"])
    await text(page, "held").to_have_text("The button is up.")


async def test_a_finger_on_a_phone(served: Served) -> None:
    async with async_page(served.url, **PHONE) as (page, complaints):
        await page.goto("/")
        await text(page, "power-word").to_have_text("on")
        box = await page.locator("#button").bounding_box()
        assert box is not None
        touch = await page.context.new_cdp_session(page)
        point = {"x": box["x"] + 20, "y": box["y"] + 40}
        await touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        await until(lambda: served.desk.did == ["press"])
        # A finger that moves does not scroll the page under the button.
        await touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{**point, "y": 10}]})
        await text(page, "held").to_have_text("The button is down for 1 s.")
        assert served.desk.did == ["press"]
        await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        await until(lambda: served.desk.did == ["press", "release"])
        assert complaints == []


def typed(served: Served) -> bytes:
    return b"".join(one for one in served.desk.did if isinstance(one, bytes))


def screen(page: Page) -> Any:
    return expect(page.locator("#console .xterm-rows"))


async def test_the_console(served: Served, opened: tuple[Page, Complaints]) -> None:
    page, _ = opened
    # The console asks a terminal what it is, now and in what it has printed long ago: nobody types an answer.
    asks = b"\x1b[c\x1b[6n\x1b[>c\x1b]10;?\x07\x1b[5n\x1bP$qm\x1b\\"
    served.log.write_bytes(asks + b"\x1b[31mred\x1b[0m 10%\r\x1b[K<b>&amp; \xc3\xa4\r\n> ")
    await page.locator("#console").scroll_into_view_if_needed()  # it draws only what is to be seen
    await screen(page).to_contain_text("<b>&amp; ä")
    await screen(page).not_to_contain_text("red")
    await page.locator("#console").click()
    await page.keyboard.type("ver")
    await page.keyboard.press("Backspace")
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Control+c")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await until(lambda: typed(served) == b"ver\x7f\x1b[A\x03\t\r")


async def test_long_text_is_pasted_whole(served: Served, page: Page) -> None:
    await page.locator("#console").click()
    pasted = "set system.name " + "x" * 3000
    await page.evaluate("text => terminal.paste(text + '\\nversion\\n')", pasted)
    await until(lambda: typed(served) == pasted.encode() + b"\rversion\r")


async def test_the_keyboard_gets_out_of_the_console(served: Served, page: Page) -> None:
    await page.locator("#console textarea").focus()
    await page.keyboard.press("a")
    await until(lambda: typed(served) == b"a")
    await page.keyboard.press("Shift+Tab")
    assert await page.evaluate("!document.activeElement.closest('#console')")
    await page.locator("#console textarea").focus()
    await page.keyboard.press("Escape")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.tagName !== 'TEXTAREA'")
    assert typed(served) == b"a"


async def test_a_panel_that_comes_back_is_shown_again(served: Served, page: Page) -> None:
    served.log.write_bytes(b"hello\r\n")
    await screen(page).to_contain_text("hello")
    await page.get_by_label("keep it down").check()
    await until(lambda: served.desk.did == ["press"])
    await page.evaluate("socket.close()")
    await text(page, "version").to_contain_text("The panel has ended")
    await until(lambda: served.desk.did == ["press", "release"])
    await expect(page.get_by_label("keep it down")).not_to_be_checked()
    await text(page, "version").to_contain_text("does not answer")
    await screen(page).to_contain_text("hello")
    assert (await page.locator("#console .xterm-rows").inner_text()).count("hello") == 1
