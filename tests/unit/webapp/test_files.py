"""Files: lists, sending, fetching, editing, deleting, and everything that goes wrong with it."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from playwright.async_api import FilePayload, Route, expect

from tests.support.fakes import Device
from tests.unit.webapp.conftest import App
from zentrid.core.files import FileMeta

pytestmark = [pytest.mark.asyncio(loop_scope="session")]
PLAIN = FileMeta()
BINARY = random.Random(4).randbytes(200_001)


def put(device: Device, name: str, content: bytes, meta: FileMeta = PLAIN) -> None:
    file = device.store.create(name, len(content), meta)
    if content:
        file.write(content)
    file.finish()


async def choose(app: App, *files: tuple[str, bytes]) -> None:
    await app.page.get_by_label("Choose files").set_input_files(
        [FilePayload(name=name, mimeType="text/plain", buffer=content) for name, content in files]
    )


async def test_there_and_back(app: App, device: Device, tmp_path: Path):
    await app.open("files")
    await app.page.get_by_label("Folder on the device").fill("data/")
    await choose(app, ("big.bin", BINARY), ("empty.txt", b""))
    await app.says("data/big.bin: 195.3 KiB sent, checksum right.")
    await app.says("data/empty.txt: 0 bytes sent, checksum right.")
    assert (app.files / "data/big.bin").read_bytes() == BINARY
    assert device.store.stat("data/big.bin").meta.crc is not None
    async with app.page.expect_download() as waiting:
        await app.button("Download data/big.bin").click()
    await (await waiting.value).save_as(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == BINARY
    assert (await waiting.value).suggested_filename == "big.bin"
    assert not list(device.ctx.streams.entries())  # nothing is left open


async def test_sending_that_is_interrupted_leaves_the_old_file(app: App, device: Device):
    put(device, "a.bin", b"old", FileMeta(version="2.1", type=0x17, flags=0x20))
    await app.open("files")
    app.expected.append("ERR_CONNECTION_RESET")
    pieces = [0]

    async def third_fails(route: Route) -> None:
        if "stream_write" in (route.request.post_data or ""):
            pieces[0] += 1
            if pieces[0] == 3:
                await route.abort("connectionreset")
                return
        await route.continue_()

    await app.page.route("**/command", third_fails)
    await choose(app, ("a.bin", BINARY))
    await app.confirm("Replace")
    await app.says("a.bin: The device did not answer")
    assert (app.files / "a.bin").read_bytes() == b"old"
    await choose(app, ("a.bin", BINARY))
    await app.confirm("Replace")
    await app.says("a.bin: 195.3 KiB sent, checksum right.")
    assert (app.files / "a.bin").read_bytes() == BINARY
    meta = device.store.stat("a.bin").meta
    assert (meta.version, meta.type, meta.flags) == ("2.1", 0x17, 0x20)


async def test_sending_is_cancelled(app: App, device: Device):
    await app.open("files")
    reached = asyncio.Event()

    async def hold(route: Route) -> None:
        if "stream_write" in (route.request.post_data or ""):
            reached.set()  # and no answer ever comes
        else:
            await route.continue_()

    await app.page.route("**/command", hold)
    app.expected.append("Failed to load resource")
    await choose(app, ("a.bin", BINARY))
    await reached.wait()
    await app.button("Cancel sending a.bin").click()
    await app.says("a.bin: cancelled; nothing on the device has changed.")
    assert not (app.files / "a.bin").exists()


async def test_what_arrives_damaged_is_no_file(app: App, device: Device):
    put(device, "a.bin", BINARY)
    await app.open("files")

    async def flip(route: Route) -> None:
        if "stream_write" in (route.request.post_data or ""):
            body = json.loads(route.request.post_data or "")
            body["data"] = "AAAA" + body["data"][4:]
            await route.continue_(post_data=json.dumps(body))
        elif "stream_read" in (route.request.post_data or ""):
            response = await route.fetch()
            answer = await response.json()
            answer["response"] = "AAAA" + answer["response"][4:]
            await route.fulfill(response=response, json=answer)
        else:
            await route.continue_()

    await app.page.route("**/command", flip)
    await choose(app, ("b.bin", BINARY[::-1]))
    await app.page.locator(".result.bad", has_text="b.bin").wait_for()
    assert not (app.files / "b.bin").exists()
    await app.button("Download a.bin").click()
    await app.says("What arrived is damaged: checksum")


async def test_files_that_the_device_does_not_take(app: App, device: Device):
    await app.open("files")
    await choose(app, ("<img src=x onerror=alert(1)>.txt", b"x"))
    await app.page.locator(".result.bad", has_text="<img src=x onerror=alert(1)>.txt").wait_for()
    await app.page.evaluate(
        """() => { const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(32 * 1024 * 1024 + 1)], "huge.bin"));
        document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true })); }"""
    )
    await app.says("huge.bin: it is larger than 32 MiB")
    assert await app.page.locator("img").count() == 0


async def test_editing(app: App, device: Device):
    put(device, "web/a.txt", b"one\r\ntwo\r\n", FileMeta(version="3.0"))
    put(device, "a.bin", b"\0\1")
    await app.open("files")
    await app.button("Edit a.bin").click()
    await app.says("This file is binary")
    await app.button("Edit web/a.txt").click()
    area = app.page.get_by_label("Text", exact=True)
    await expect(area).to_be_focused()
    await area.fill("one\nthree\n<script>")
    await app.page.get_by_role("link", name="Status").click()
    await app.confirm("Cancel")
    assert app.page.url.endswith("#/files")
    await app.button("Save").click()
    await app.says("Saved. web/a.txt is on the device as you see it.")
    assert (app.files / "web/a.txt").read_bytes() == b"one\r\nthree\r\n<script>"
    assert device.store.stat("web/a.txt").meta.version == "3.0"
    # Another one that cannot be edited leaves none open that nobody asks about.
    await app.button("Edit a.bin").click()
    await app.says("This file is binary")
    assert await area.count() == 0
    await app.button("Edit web/a.txt").click()
    await expect(area).to_be_focused()
    # Somebody else changes it meanwhile.
    put(device, "web/a.txt", b"theirs")
    await area.fill("mine")
    await app.button("Save").click()
    await app.page.get_by_role("dialog").get_by_text("has changed, or is gone").wait_for()
    await app.confirm("Cancel")
    assert (app.files / "web/a.txt").read_bytes() == b"theirs"
    await app.page.get_by_role("link", name="Status").click()
    await app.confirm("Leave")
    await app.card("Device").wait_for()


async def test_deleting(app: App, device: Device):
    put(device, "a.txt", b"x")
    put(device, "must.txt", b"x", FileMeta(flags=0x10))
    await app.open("files")
    await app.button("Delete a.txt").click()
    await app.confirm("Cancel")
    assert (app.files / "a.txt").exists()
    await app.button("Delete a.txt").click()
    await app.confirm("Delete")
    await app.says("a.txt is deleted.")
    await app.button("Delete must.txt").click()
    await app.page.get_by_role("dialog").get_by_text("It is marked as essential").wait_for()
    await app.confirm("Delete")
    await app.says("must.txt is deleted.")
    assert [info.name for info in device.store.list() if not info.name.startswith("webapp/")] == []
    put(device, "gone.txt", b"x")
    await app.go("status")
    await app.go("files")
    device.store.delete("gone.txt")
    await app.button("Download gone.txt").click()
    await app.page.locator(".result.bad", has_text="gone.txt").wait_for()


async def test_what_came_meanwhile_is_not_overwritten_unasked(app: App, device: Device):
    await app.open("files")
    put(device, "a.txt", b"theirs", FileMeta(version="2.0"))  # after the list was read
    await choose(app, ("a.txt", b"mine"))
    await app.confirm("Cancel")
    await app.says("a.txt: not sent.")
    assert (app.files / "a.txt").read_bytes() == b"theirs"
    # One that was not put there by the device, of which it knows no checksum.
    (app.files / "b.txt").write_bytes(b"one")
    await app.go("status")
    await app.go("files")
    await app.button("Edit b.txt").click()
    await app.page.get_by_label("Text", exact=True).fill("mine")
    (app.files / "b.txt").write_bytes(b"two")
    await app.button("Save").click()
    await app.page.get_by_role("dialog").get_by_text("has changed, or is gone").wait_for()
    await app.confirm("Save over it")
    await app.says("Saved. b.txt is on the device as you see it.")
    assert (app.files / "b.txt").read_bytes() == b"mine"


async def test_sending_goes_on_while_another_page_is_shown(app: App, device: Device):
    await app.open("files")
    reached, on = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        if "stream_write" in (route.request.post_data or ""):
            reached.set()
            await on.wait()
        await route.continue_()

    await app.page.route("**/command", hold)
    await choose(app, ("a.bin", BINARY), ("-e bad name.txt", b"x"))
    await reached.wait()
    await app.go("status")
    assert await app.page.evaluate(
        "!dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    )  # who leaves is asked
    on.set()
    await expect(app.page.locator("#live")).to_contain_text("-e bad name.txt:")
    await app.go("files")
    await app.says("a.bin: 195.3 KiB sent, checksum right.")
    await app.page.locator(".result.bad", has_text="-e bad name.txt").wait_for()
    assert (app.files / "a.bin").read_bytes() == BINARY
    assert await app.page.evaluate("dispatchEvent(new Event('beforeunload', { cancelable: true }))")


async def test_a_cancel_that_came_too_late_says_so(app: App, device: Device):
    await app.open("files")
    arrived = asyncio.Event()
    app.expected.append("Failed to load resource")

    async def keep_the_answer(route: Route) -> None:
        if "stream_write" in (route.request.post_data or ""):
            await route.fetch()  # carried out, and no answer ever comes
            arrived.set()
        else:
            await route.continue_()

    await app.page.route("**/command", keep_the_answer)
    await choose(app, ("a.txt", b"all of it"))
    await arrived.wait()
    await app.button("Cancel sending a.txt").click()
    await app.says("a.txt: cancelled too late; the whole file is on the device.")
    assert (app.files / "a.txt").read_bytes() == b"all of it"
