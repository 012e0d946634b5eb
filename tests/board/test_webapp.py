"""The Web App on the real board, in Chromium: what it shows is true, what it does is done, an update is followed to its end."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, TimeoutError, expect

from scripts.board_driver.machine import HOST_SEEN_BY_BOARD
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from, set_and_save
from tests.support.browser import page
from tests.support.webhost import WebHost

pytestmark = [pytest.mark.board, pytest.mark.timeout(1200)]

BINARY = random.Random(6).randbytes(200_000)
STEP_MS = 90_000
"""For one answer of the board, which may share its processor with other boards."""
INSTALL_MS = 600_000
# Notes each text of the update's state that the page shows.
WATCH = """() => { const shown = window.shown = []; const one = document.getElementById("update-state");
new MutationObserver(() => shown.push(one.textContent)).observe(one, { childList: true, subtree: true }); }"""


def says(shown: Page, text: str, timeout_ms: float = STEP_MS) -> None:
    """Wait until the page says this."""
    try:
        shown.locator("main", has_text=text).wait_for(timeout=timeout_ms)
    except TimeoutError as error:
        raise AssertionError(f"the page does not say {text!r} but: {shown.locator('main').inner_text()}") from error


def confirm(shown: Page, label: str) -> None:
    shown.get_by_role("dialog").get_by_role("button", name=label, exact=True).click()


def button(shown: Page, name: str) -> None:
    shown.get_by_role("button", name=name, exact=True).click()


def test_in_one_boot_and_an_update(board: BoardFactory, prepared: Path, world: World, tmp_path: Path) -> None:
    bundle = world.bundle("1.1.0")
    one = board_from(board, world, prepared)
    one.wait_for_healthy()
    set_and_save(one, "ota.commit.offline 1")
    url = f"http://127.0.0.1:{one.up().http_port}"
    with page(url, accept_downloads=True) as (shown, complaints):
        shown.set_default_timeout(STEP_MS)
        shown.goto("/")
        says(shown, one.send("get system.uuid").expect_ok().strip())
        says(shown, "Nobody has set a password.")
        files(one, shown, tmp_path)
        gpios(one, shown)
        terminal(one, shown)
        shown.goto("/#/health")
        says(shown, "No faults.")
        expect(shown.get_by_role("row", name=re.compile("^a 1.0.0"))).to_contain_text("yes")
        assert complaints == []
        with one.expecting("reset"):
            update(shown, bundle)
        # While the device was away the browser had something to say, and nothing else.
        away = re.compile(r"ERR_CONNECTION|ERR_EMPTY_RESPONSE|WebSocket|ERR_SOCKET|status of 503")
        assert [text for text in complaints if not away.search(text)] == []
    assert "1.1.0" in one.send("version").expect_ok()


def files(one: WatchedBoard, shown: Page, tmp_path: Path) -> None:
    """There and back, edited and deleted."""
    shown.goto("/#/files")
    picker = shown.get_by_label("Choose files")
    picker.set_input_files({"name": "big.bin", "mimeType": "application/octet-stream", "buffer": BINARY})
    says(shown, "big.bin: 195.3 KiB sent, checksum right.")
    picker.set_input_files({"name": "note.txt", "mimeType": "text/plain", "buffer": b"one\n"})
    says(shown, "note.txt: 4 bytes sent, checksum right.")
    with shown.expect_download() as waiting:
        button(shown, "Download big.bin")
    waiting.value.save_as(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == BINARY
    button(shown, "Edit note.txt")
    shown.get_by_label("Text", exact=True).fill("zwei\u00fc\n")
    button(shown, "Save")
    says(shown, "Saved. note.txt is on the device as you see it.")
    assert one.succeed("cat /data/zentri/files/note.txt") == "zwei\u00fc\n"
    button(shown, "Close")
    button(shown, "Delete big.bin")
    confirm(shown, "Delete")
    says(shown, "big.bin is deleted.")
    one.succeed("[ ! -e /data/zentri/files/big.bin ]")


def gpios(one: WatchedBoard, shown: Page) -> None:
    """The lamp is lit by the page, and the level of a GPIO that another door sets is seen."""
    shown.goto("/#/gpio")
    button(shown, "Set GPIO 1 high")
    says(shown, "GPIO 1 is high now.")
    one.wait_for_led(on=True)
    shown.get_by_label("Direction of GPIO 3").select_option("out")
    says(shown, "GPIO 3 is an output now.")
    one.send("gpio_set 3 1").expect_ok()
    shown.get_by_role("button", name="Set GPIO 3 low").wait_for()
    button(shown, "Set GPIO 1 low")
    one.wait_for_led(on=False)


def terminal(one: WatchedBoard, shown: Page) -> None:
    """The device's own echo and completion."""
    shown.goto("/#/terminal")
    screen = shown.locator(".screen")
    expect(screen).to_contain_text("> ", timeout=STEP_MS)
    screen.click()
    shown.keyboard.type("get system.uui")
    shown.keyboard.press("Tab")
    expect(screen).to_contain_text("get system.uuid ", timeout=STEP_MS)
    shown.keyboard.press("Enter")
    expect(screen).to_contain_text(one.send("get system.uuid").expect_ok().strip(), timeout=STEP_MS)


def update(shown: Page, bundle: Path) -> None:
    """From a web server, with progress, across the restart, until the new release is good."""
    with WebHost(bundle.read_bytes()).running() as web:
        shown.goto("/#/update")
        shown.get_by_label("Address or path").wait_for()
        shown.evaluate(WATCH)
        shown.get_by_label("Address or path").fill(f"http://{HOST_SEEN_BY_BOARD}:{web.port}/new.zb")
        button(shown, "Install from there")
        confirm(shown, "Install")
        says(shown, "The device is restarting.", INSTALL_MS)
    seen = shown.evaluate("window.shown")
    percents = [int(found[1]) for text in seen if (found := re.search(r": (\d+) %", text))]
    print(f"steps of progress that the page showed: {sorted(set(percents))}")
    assert len(set(percents)) >= 3
    says(shown, "The device runs 1.1.0 (before: 1.0.0). The new release is good and stays.", INSTALL_MS)
    shown.goto("/#/health")
    expect(shown.get_by_role("row", name=re.compile("1.1.0"))).to_contain_text("yes", timeout=STEP_MS)
