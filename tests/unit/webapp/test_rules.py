"""What holds for the files of the Web App as they are, and for every view: names, contrast, keyboard, phone."""

import gzip
import itertools
import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.browser import PHONE
from tests.support.fakes import Device
from tests.unit.webapp.conftest import APP, VIEWS, App
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.files import check_name
from zentrid.core.webapp import LIST_NAME, MAX_APP_BYTES, MAX_FILES, checked_name

FILES = sorted(path for path in APP.rglob("*") if path.is_file())
MOST_BYTES = 118_000
"""Uncompressed; it lies on the device and travels over slow links."""

# Everything that a page must not do: markup from texts, code or style within the page, anything from elsewhere.
FORBIDDEN = {
    "markup from a text": r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc",
    "code from a text": r"\beval\(|new Function|setTimeout\(\s*[\"'`]|javascript:",
    "code within the page": r"<[a-z][^>]*\son[a-z]+\s*=|<script(?![^>]*\bsrc=)",
    "style within the page": r"<style|<[a-z][^>]*\sstyle\s*=|\bstyle:\s*[\"'`]",
    "something from elsewhere": r"(?:src|href|from|import|url)\s*[=(]?\s*[\"'(]?\s*(?:https?:)?//[a-z]",
}


def test_the_files_are_few_small_and_have_names_that_the_device_takes():
    names = [path.relative_to(APP).as_posix() for path in FILES]
    assert "index.html" in names
    assert LIST_NAME not in names  # it is made with the image
    for name in names:
        assert checked_name(name) == name
        check_name(f"webapp/{name}")
    sizes = [path.stat().st_size for path in FILES]
    assert len(FILES) <= min(40, MAX_FILES)
    assert sum(sizes) <= min(MOST_BYTES, MAX_APP_BYTES), sum(sizes)
    packed = sum(len(gzip.compress(path.read_bytes())) for path in FILES)
    print(f"{len(FILES)} files, {sum(sizes)} bytes, {packed} bytes packed")


@pytest.mark.parametrize("why", FORBIDDEN)
def test_no_file_does_what_the_policy_forbids(why: str):
    found = [(path.name, match[0]) for path in FILES for match in re.finditer(FORBIDDEN[why], path.read_text())]
    assert found == []


def test_the_rules_find_what_they_are_for():
    examples = (
        "x.innerHTML = y",
        'eval("x")',
        '<a onclick="x()">',
        '<p style="color: red">',
        'import "https://cdn.example/x.js"',
    )
    for pattern, example in zip(FORBIDDEN.values(), examples, strict=True):
        assert re.search(pattern, example), example


def test_modules_are_all_used_and_named_in_full():
    for path in FILES:
        for name in re.findall(r'from "\./([^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), (path.name, name)
    used = set(re.findall(r'from "\./([^"]+)"', "".join(path.read_text() for path in FILES)))
    assert {path.name for path in APP.glob("js/*.js")} - used == {"app.js"}


# --- in the browser -----------------------------------------------------------------------------------------------------
# The colours of every text, and of what lies behind it; ratio as WCAG 2 computes it.
CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor); if (c[3] > .5) return c;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0, 1] : [255, 255, 255, 1];
  };
  const bad = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  for (let node; (node = walker.nextNode());) {
    const one = node.parentElement;
    if (!node.data.trim() || !one.checkVisibility({ visibilityProperty: true })) continue;
    if (one.closest("select:disabled, noscript, script, textarea")) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    count++;
    if ((a + .05) / (b + .05) < 4.5) bad.push(`${((a + .05) / (b + .05)).toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
  }
  return [count, bad];
}"""
# Every control, and whether assistive technology could name it.
NAMELESS = """() => [...document.querySelectorAll("input, select, textarea, button, a, summary, progress, dialog, [role=log]")]
  .filter((one) => one.checkVisibility() && !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()
    || (one.getAttribute("aria-labelledby") && document.getElementById(one.getAttribute("aria-labelledby"))?.textContent.trim())))
  .map((one) => one.outerHTML)"""
DOUBLE = """() => { const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  return ids.filter((id, at) => ids.indexOf(id) !== at); }"""


LAST_CARD = {"status": 5, "network": 3, "files": 1, "gpio": 0, "update": 4, "health": 2, "terminal": 0, "settings": 3}
"""What is there when all of a view is there."""


async def look_after(page: Page, view: str) -> None:
    count, bad = await page.evaluate(CONTRAST)
    assert count > 10, view
    assert bad == [], view
    assert await page.evaluate(NAMELESS) == [], view
    assert await page.evaluate(DOUBLE) == [], view
    wide = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], view
    levels = [int(await one.evaluate("e => e.tagName[1]")) for one in await page.get_by_role("heading").all()]
    assert levels.count(1) == 1, view
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), view


def furnish(app: App, device: Device) -> None:
    """Let every view have something to show."""
    fault = Fault("panic", "a", "1.4.0", 1832, "2026-11-25T01:16:15Z", "x" * 120)
    device.boot_state.state = BootState(faults=1, fault_records=(fault,))
    device.log.write_text("2026-11-02T12:00:00Z " + "y" * 300 + "\n")
    (app.files / ("long-name-" * 10)).write_text("x")
    device.settings.values.set("system.name", "N" * 64)


@pytest.mark.asyncio(loop_scope="session")
class TestEveryView:
    @pytest.fixture(params=["desk, light", "phone, dark"])
    def context(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        if request.param == "phone, dark":
            return {**PHONE, "color_scheme": "dark"}
        # What is left of a window of 1280 pixels at 200 %.
        return {"color_scheme": "light", "viewport": {"width": 640, "height": 400}}

    async def test_it_can_be_read_named_and_fits(self, app: App, device: Device):
        furnish(app, device)
        await app.open()
        for view in VIEWS:
            if view != "status":
                await app.go(view)
                await expect(app.page.locator("h1")).to_be_focused()
            await app.page.locator("#view .card").nth(LAST_CARD[view]).wait_for()
            if view == "files":
                await expect(app.page.get_by_text("long-name-").first).to_be_visible()  # its list comes later
            await app.page.evaluate("for (const one of document.querySelectorAll('#view details')) one.open = true")
            await look_after(app.page, view)


@pytest.mark.asyncio(loop_scope="session")
async def test_by_keyboard_alone(app: App, device: Device):
    await app.open()
    press = app.page.keyboard.press
    await app.page.locator("body").press("Tab")
    await expect(app.page.locator("#skip")).to_be_focused()
    await press("Enter")
    await expect(app.page.locator("h1")).to_be_focused()
    # Every control of every view is reached by Tab, shows that it has the focus, and the page's end is reached: no trap.
    for view in VIEWS:
        await app.go(view)
        await app.page.locator("#view .card").nth(LAST_CARD[view]).wait_for()
        await app.page.locator("main :is(button, input, select, textarea, summary, a):visible").first.wait_for()
        reached = set()
        await app.page.locator("h1").focus()
        for _ in range(100):
            if await app.page.evaluate("document.activeElement.matches('.terminal textarea')"):
                await press("Escape")
            await press("Tab")
            at = await app.page.evaluate(
                """() => { const one = document.activeElement; if (!one.closest("main")) return "";
                window.marks ??= new WeakMap(); if (!window.marks.has(one)) window.marks.set(one, String(Math.random()));
                const shown = one.closest(".terminal") ?? one;
                const bare = getComputedStyle(shown).outlineStyle === "none";
                return bare ? `no outline: ${one.outerHTML}` : window.marks.get(one); }"""
            )
            assert not at.startswith("no outline"), at
            if not at:
                break
            reached.add(at)
        wanted = await app.page.evaluate(
            """() => [...document.querySelectorAll("main input, main select, main textarea, main button, main a, main summary")]
            .filter((one) => one.checkVisibility() && !one.disabled && !(one.type === "radio")).length"""
        )
        assert len(reached) >= wanted > 0, view
        assert not at, view
    # A question takes the focus, Escape answers no, and the focus returns.
    await app.go("status")
    button = app.button("Restart")
    await button.focus()
    await press("Enter")
    await expect(app.page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    await press("Escape")
    await expect(app.page.get_by_role("dialog")).to_have_count(0)
    await expect(button).to_be_focused()
    assert device.power.reboots == []


@pytest.mark.asyncio(loop_scope="session")
class TestPhone:
    @pytest.fixture
    def context(self) -> dict[str, Any]:
        return PHONE

    async def test_the_menu(self, app: App):
        await app.open()
        menu = app.button("Menu")
        await expect(app.page.get_by_role("navigation", name="Main")).to_be_hidden()
        await menu.tap()
        await expect(menu).to_have_attribute("aria-expanded", "true")
        await app.page.get_by_role("link", name="GPIO").tap()
        await app.page.get_by_label("Direction of GPIO 2").wait_for()
        await expect(app.page.get_by_role("navigation", name="Main")).to_be_hidden()
        await app.page.get_by_role("button", name="Set GPIO 3 high").tap()
        await app.says("GPIO 3 is high now.")

    async def test_landmarks(self, app: App):
        await app.open()
        await app.button("Menu").tap()
        await expect(app.page.locator("body")).to_match_aria_snapshot(
            """
            - link "Skip to content"
            - banner:
              - paragraph
              - button "Menu" [expanded]
            - navigation "Main":
              - list:
                - listitem:
                  - link "Status"
            - main:
              - heading "Status" [level=1]
            """
        )
