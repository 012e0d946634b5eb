"""The Web App on the real board: there on the first day, seen damaged, restored by page and command, from server and image."""

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scripts.board_driver.board import BoardOptions
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.dms import LabDms
from scripts.lab.places import PRODUCT
from scripts.lab.tools import call
from scripts.lab.world import World
from tests.support.browser import page

pytestmark = [pytest.mark.board, pytest.mark.timeout(1500)]

VERSION = "1.0.1"
FILES = "/data/zentri/files/webapp"
PLACED = "grep -q '\"done\": true' /data/zentri/webapp-placed.json"
DAMAGE = f"printf X | dd of={FILES}/index.html bs=1 seek=20 conv=notrunc 2> /dev/null"
RELEASED = "<!DOCTYPE html><link rel='icon' href='data:,'><title>released</title><h1>The release's app</h1>\n"
WAIT_S = 60.0
RESTORE_S = 180.0
BROWSER_MS = 90_000


@dataclass
class Home:
    """A board, its server, and what a browser sees of it."""

    board: WatchedBoard
    dms: LabDms
    world: World
    folder: Path

    @property
    def port(self) -> int:
        return self.board.up().http_port

    def get(self, path: str = "/") -> tuple[int, str]:
        """Return status and body, or where a redirect leads."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, answer.headers.get("Location") or body
        finally:
            connection.close()

    def facts(self) -> dict[str, object]:
        """Return what the page of the image shows."""
        facts = json.loads(self.get("/.recovery.json")[1])
        assert isinstance(facts, dict)
        return facts

    def wait_for(self, status: int, part: str) -> None:
        """Wait until `/` is answered like this."""
        deadline = Deadline(WAIT_S, f"{status} and {part!r} at /")
        while True:
            try:
                found: object = self.get()
            except (OSError, http.client.HTTPException) as error:
                found = error
            if isinstance(found, tuple) and found[0] == status and part in found[1]:
                return
            deadline.check(str(found))
            time.sleep(0.5)

    def damage(self, command: str = DAMAGE) -> None:
        """Damage the Web App, and see that the device has seen it."""
        self.board.succeed(command)
        self.wait_for(302, "/.recovery.html")

    def recover(self, source: str = "") -> str:
        return self.board.send(f"webapp_recover {source}".strip(), RESTORE_S).expect_ok()


@pytest.fixture
def home(world: World, tmp_path: Path) -> Iterator[Home]:
    """A fresh board that its owner has claimed, at a running server."""
    dms = LabDms(tmp_path / "dms", world.fleet())
    dms.set_up()
    identity = world.identity(dms.device_port, tmp_path / "identity")
    options = BoardOptions(image=world.places.image, identity=identity, key=world.ssh_key())
    dms.start()
    try:
        with WatchedBoard("t-webapp", options, tmp_path / "board") as board:
            board.up()
            board.wait_for_healthy(400)
            yield Home(board, dms, world, tmp_path)
        board.remove_run_folder()
    finally:
        dms.stop()


def test_in_one_life(home: Home) -> None:
    board = home.board
    # The first day: it is there without a command.
    board.wait_until_succeeds(PLACED)
    app = home.get()
    assert (app[0], "Zentri" in app[1]) == (200, True)
    board.send("set system.boot.healthy_after 1").expect_ok()
    board.send("save").expect_ok()

    # Damaged, and restored on the page.
    home.damage()
    assert home.facts()["problems"] == ["index.html is damaged."]
    restore_on_the_page(home, "copy in the image")
    assert home.get() == app

    # A file that is gone and no first page; restored by the command.
    board.succeed(f"rm {FILES}/index.html")
    board.send('set http.server.root_filename ""').expect_ok()
    home.wait_for(302, "/.recovery.html")
    answer = home.recover("image")
    assert "from the copy in the image. http.server.root_filename is webapp/index.html again." in answer
    home.wait_for(200, "Zentri")

    # A release brings another one; it comes back from the server, and without one from the device.
    publish(home)
    assert VERSION in board.send("ota", RESTORE_S).expect_ok()
    home.wait_for(200, "The release's app")
    home.damage()
    assert f"The Web App {VERSION} is restored from the DMS (1 of its 1 files fetched)." in home.recover()
    home.wait_for(200, "The release's app")
    boot = board.send("slots").expect_ok()
    home.dms.stop()
    home.damage()
    assert "from the device's own copies; not from the DMS" in home.recover()
    home.wait_for(200, "The release's app")
    assert board.send("slots").expect_ok() == boot
    assert not board.send("webapp_recover dms", RESTORE_S).ok

    # The power goes in the middle.
    for delay_s in (0.2, 0.6):
        home.damage()
        cut_while_restoring(board, delay_s)
        board.power_on()
        board.wait_for_answer()
        home.recover("image")
        home.wait_for(200, "Zentri")

    # In safe mode the page and the command work, and nothing happens by itself.
    mac = board.send("get network.mac").expect_ok().strip()
    with board.expecting("reset"):
        board.mark()
        board.send(f"force_safemode {mac}").expect_ok()
        board.wait_for_console("SAFEMODE> ", 180)
    board.succeed(f"rm -r {FILES}")
    home.wait_for(302, "/.recovery.html")
    assert home.facts()["safe_mode"] is True
    restore_on_the_page(home, "copy in the image")
    home.damage()
    assert "restored from the copy in the image" in home.recover("image")
    home.wait_for(200, "Zentri")


def restore_on_the_page(home: Home, origin: str) -> None:
    """Be a person who comes to `/` with a browser."""
    origin_of_page = f"http://127.0.0.1:{home.port}"
    with page(origin_of_page) as (browser, complaints):
        browser.set_default_timeout(BROWSER_MS)
        browser.goto("/")
        expect(browser).to_have_url(re.compile(r"/\.recovery\.html$"), timeout=BROWSER_MS)
        expect(browser.locator("#problems li").first).to_be_visible(timeout=BROWSER_MS)
        browser.get_by_label("Only the copy in this device's image").check()
        browser.get_by_role("button", name="Restore").click()
        expect(browser.locator("#restore .status")).to_contain_text(origin, timeout=BROWSER_MS)
        assert complaints == []
        browser.get_by_role("link", name="Open the Web App").click()
        expect(browser).to_have_url(f"{origin_of_page}/", timeout=BROWSER_MS)


def publish(home: Home) -> None:
    """Claim the device, and give it a release that brings nothing but a first page."""
    account = home.dms.account
    for line in (f"dms claim {account['user']} {account['password']}", f"dms activate {PRODUCT}"):
        home.board.send(line, 60).expect_ok()
    (home.folder / "index.html").write_text(RELEASED)
    bundle = home.folder / f"{VERSION}.zb"
    call(
        "scripts.bundle_tool", "build", "--product", PRODUCT, "--version", VERSION, "--out", bundle,
        "--file", f"webapp/index.html={home.folder / 'index.html'}",
    )  # fmt: skip
    home.world.sign(bundle, home.folder / "metadata")  # other tests sign this version with other content
    call(
        "scripts.bundle_tool", "publish", bundle, "--server", home.dms.web_url, "--token", account["token"],
        "--tag", "release", "--no-symbols",
    )  # fmt: skip


def cut_while_restoring(board: WatchedBoard, delay_s: float) -> None:
    """Begin a restore by HTTP, and take the power away a moment later."""
    port = board.up().http_port

    def restore() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        try:
            connection.request("GET", "/command/webapp_recover%20image")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass  # that is what a power cut looks like from here
        finally:
            connection.close()

    thread = threading.Thread(target=restore, daemon=True)
    thread.start()
    thread.join(delay_s)
    board.power_cut()
    thread.join(WAIT_S)
