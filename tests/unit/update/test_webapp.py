"""The Web App's files put in place, followed over updates, and restored: from the server, from the device, over power cuts."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.device import Device, PowerCutError
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs
from tests.support.items import Payload, add, device_with, file
from tests.support.webapps import APP, AppHome, make_image
from zentrid.adapters.webappfiles import InterruptedByPersonError, WebAppError
from zentrid.core.webapp import LIST_NAME
from zentrid.errors import ZentriError
from zentrid.update.errors import UpdateBusyError
from zentrid.update.install import ItemJob

ROOT = "http.server.root_filename"
PAGE = b"<h1>The release's app</h1>"
Publish = Callable[..., Release]


@pytest.fixture(scope="session")
def base_release() -> Release:
    return make_release("1.0.0", make_rootfs(5, blocks=240))


@pytest.fixture
async def scene(tmp_path: Path, fleet: Fleet, doorman: Doorman, base_release: Release) -> Device:
    fleet.publish(base_release)
    device = await device_with(base_release, tmp_path / "device", fleet, doorman)
    await device.manager.start()
    return device


@pytest.fixture
def home(tmp_path: Path, scene: Device) -> AppHome:
    return AppHome(tmp_path / "home", scene.manager, items=scene.folder / "data" / "items")


async def brought(scene: Device, fleet: Fleet, doorman: Doorman, version: str, *payloads: Payload) -> Release:
    """Install a release of files."""
    release = add(None, version, payloads)
    fleet.publish(release)
    scene.known[version] = release
    doorman.offer = version
    last = await scene.update()
    assert last.ok, last.message
    return release


def page(data: bytes = PAGE, name: str = "index.html") -> Payload:
    return file(f"webapp/{name}", data)


# --- by itself --------------------------------------------------------------------------------------------------------
async def test_the_first_day_and_what_the_owner_does_after_it(home: AppHome):
    assert home.problems()
    await home.look()
    assert (home.problems(), home.content()) == ((), APP)
    # Nothing is written a second time.
    home.start()
    await home.look()
    assert home.fuse.steps == []
    # What the owner removes stays removed, what he changes stays changed.
    home.store.delete("webapp/index.html")
    home.write("app.js", b"mine")
    home.start()
    await home.look()
    assert (home.content()["app.js"], "index.html" in home.content()) == (b"mine", False)


async def test_the_task_does_it_at_its_start_and_when_something_changed(home: AppHome):
    async with home.running(), asyncio.timeout(20):
        while home.problems() or home.files.last() is None or not home.files.last().done:  # type: ignore[union-attr]
            await asyncio.sleep(0.02)
        make_image(home.image, "1.1.0", {**APP, "app.js": b"new"})
        home.keeper.look_again()
        while home.content()["app.js"] != b"new":
            await asyncio.sleep(0.02)


async def test_a_new_image_replaces_its_own_and_leaves_the_owners(home: AppHome, caplog: pytest.LogCaptureFixture):
    await home.look()
    home.write("mine/extra.html", b"an addition")
    make_image(home.image, "1.1.0", {"index.html": b"new", "app.js": APP["app.js"]})
    home.start()
    await home.look()
    assert home.content() == {"index.html": b"new", "app.js": APP["app.js"], "mine/extra.html": b"an addition"}
    assert "webapp/app.js" not in str(home.fuse.steps), "what is right is not written again"
    assert home.problems() == ()
    home.write("app.js", b"the owner's")
    make_image(home.image, "1.2.0", APP)
    home.start()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            await home.look()
    assert home.content()["app.js"] == b"the owner's"
    assert [record.message for record in caplog.records if "web app" in record.message] == [
        "web app: version 1.2.0 is not put in place: the owner has changed app.js"
    ]


async def test_an_app_of_the_owners_is_left_alone(home: AppHome):
    home.write("index.html", b"mine")
    await home.look()
    assert home.content() == {"index.html": b"mine"}
    home.store.delete("webapp/index.html")
    home.settings.values.set(ROOT, "shop/index.html")
    await home.look()
    assert home.content() == {}


async def test_in_safe_mode_nothing_is_done_by_itself(home: AppHome):
    home.slot = "r"
    home.start()
    await home.look()
    assert (home.content(), home.fuse.steps) == ({}, [])
    assert "restored from the copy in the image" in await home.recover("image")
    assert home.content() == APP


async def test_a_disk_that_takes_nothing_is_a_line_in_the_log(home: AppHome, caplog: pytest.LogCaptureFixture):
    def full(step: str) -> None:
        raise OSError(28, "No space left on device", step)

    home.store.hook = full
    async with home.running(), asyncio.timeout(20):
        while "cannot be put in place" not in caplog.text:
            await asyncio.sleep(0.02)
    with pytest.raises(WebAppError, match="No space left on device"):
        await home.recover("image")
    assert home.problems()
    home.start()
    await home.look()
    assert home.content() == APP


@pytest.mark.parametrize("source", ["", "image"])
@pytest.mark.parametrize("trouble", ["room", "files", "folder", "file"])
async def test_what_could_not_be_gone_through_with_leaves_what_works(
    home: AppHome, trouble: str, source: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    await home.look()
    match trouble:
        case "room":
            monkeypatch.setattr("zentrid.core.files.MAX_TOTAL_BYTES", sum(map(len, APP.values())) + 5000)
        case "files":
            monkeypatch.setattr("zentrid.core.files.MAX_FILES", len(APP) + 2)
        case "folder":
            home.write("new.js/mine.js", b"mine")
        case "file":
            home.write("new", b"mine")
    there = home.content()
    make_image(home.image, "1.1.0", {**APP, "app.js": b"let a = 2;\n" * 20_000, "new.js": b"new", "new/new.js": b"new"})
    home.start()
    if source:
        with pytest.raises(WebAppError, match="delete"):
            await home.recover(source)
    else:
        async with home.running(), asyncio.timeout(20):
            while "it cannot be put in place" not in caplog.text:
                await asyncio.sleep(0.02)
    assert (home.problems(), home.content()) == ((), there)
    # When there is room it goes on.
    monkeypatch.undo()
    for name in ("new.js/mine.js", "new"):
        if name in home.content():
            home.store.delete(f"webapp/{name}")
    await home.look()
    assert home.content()["new/new.js"] == b"new"


async def test_a_file_becomes_a_folder_and_a_folder_a_file(home: AppHome):
    await home.look()
    shutil.rmtree(home.image)
    make_image(home.image, "1.1.0", {"index.html": b"new", "css": b"a file", "app.js/part.js": b"in a folder"})
    await home.look()
    assert home.content() == {"index.html": b"new", "css": b"a file", "app.js/part.js": b"in a folder"}
    assert home.problems() == ()


async def test_a_restore_waits_for_what_is_put_in_place_by_itself(home: AppHome):
    async with home.keeper._lock, asyncio.timeout(20):
        first = asyncio.create_task(home.recover("image"))
        while not home.keeper.status.startswith("restoring: 0 %"):
            await asyncio.sleep(0.01)
        with pytest.raises(WebAppError, match="is being restored already"):
            await home.recover("image")
    assert "restored from the copy in the image" in await first
    assert home.content() == APP


async def test_what_a_release_brings_is_followed_and_goes_back(
    home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman
):
    await home.look()
    await brought(scene, fleet, doorman, "1.0.1", page(b"a logo", "logo.svg"), file("etc/rules", b"no page"))
    await home.look()
    assert home.content() == {**APP, "logo.svg": b"a logo"}, "without a first page: over the image's"
    await brought(scene, fleet, doorman, "1.0.2", page(), page(b"hidden", LIST_NAME))
    await home.look()
    assert home.content() == {"index.html": PAGE, "logo.svg": b"a logo"}, "with a first page: its own"
    assert home.problems() == ()
    before = home.items.held("a")
    assert before is not None
    home.items.make_set("kept", before)
    home.items.switch("b", "kept")
    await brought(scene, fleet, doorman, "1.0.3", page(b"worse"))
    await home.look()
    assert home.content()["index.html"] == b"worse"
    # Whatever made it go back, the set before is in use again.
    home.items.switch("a", "kept")
    await home.look()
    assert home.content() == {"index.html": PAGE, "logo.svg": b"a logo"}
    assert home.problems() == ()


async def test_a_damaged_copy_of_a_release_is_not_put_in_place(
    home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman, caplog: pytest.LogCaptureFixture
):
    await home.look()
    await brought(scene, fleet, doorman, "1.0.1", page())
    [held] = (home.items.top / "store").iterdir()
    held.write_bytes(PAGE.replace(b"release", b"rotten!"))
    async with home.running(), asyncio.timeout(20):
        while "which a release brought, is damaged" not in caplog.text:
            await asyncio.sleep(0.02)
    assert home.content() == APP
    # The server has it whole.
    assert "restored from the DMS" in await home.recover()
    assert home.content() == {"index.html": PAGE}


# --- from the image ---------------------------------------------------------------------------------------------------
async def test_restored_from_the_image(home: AppHome):
    await home.look()
    home.write("mine.html", b"an addition")
    home.write("app.js", b"x" + APP["app.js"][1:])
    home.store.delete("webapp/css/app.css")
    home.settings.values.set("system.name", "not saved")
    assert home.problems() == ("app.js is damaged.", "css/app.css is missing.")
    assert await home.recover("image") == "The Web App 1.0.0 is restored from the copy in the image."
    assert home.content() == {**APP, "mine.html": b"an addition"}
    percents = [percent for percent, _ in home.steps]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert home.keeper.status == "The Web App 1.0.0 is restored from the copy in the image."
    # It stays so, though the release that runs has not changed.
    home.start()
    await home.look()
    assert home.fuse.steps == []


@pytest.mark.parametrize("root", ["", "shop/none.html", "webapp/none.html"])
async def test_a_first_page_that_is_not_there_is_the_default_again(home: AppHome, root: str):
    home.settings.values.set("system.name", "saved")
    await home.settings.save()
    home.settings.values.set("system.name", "only in memory")
    home.settings.values.set(ROOT, root)
    await home.settings.save_only(ROOT)
    assert home.problems()
    assert (await home.recover("image")).endswith(f"{ROOT} is webapp/index.html again.")
    home.start()
    assert home.problems() == ()
    assert home.settings.values.text("system.name") == "saved", "nothing else is saved"


async def test_the_owners_own_first_page_stays(home: AppHome):
    (home.store.top / "shop").mkdir(parents=True)
    (home.store.top / "shop/index.html").write_text("shop")
    home.settings.values.set(ROOT, "shop/index.html")
    assert f"The first page is still shop/index.html ({ROOT})." in await home.recover("image")


async def test_an_image_without_a_copy_and_one_with_a_damaged_list(home: AppHome):
    (home.image / LIST_NAME).write_text("{")
    with pytest.raises(WebAppError, match=r"webapp\.json is damaged"):
        await home.recover("image")
    (home.image / LIST_NAME).unlink()
    with pytest.raises(WebAppError, match="no copy of the Web App"):
        await home.recover("image")
    make_image(home.image)
    (home.image / "app.js").write_bytes(b"rotten")
    with pytest.raises(WebAppError, match=r"app\.js"):
        await home.recover("image")
    assert home.problems(), "half of it is seen as damaged"
    make_image(home.image)
    await home.recover("image")
    assert home.content() == APP


async def test_somebody_stops_it(home: AppHome):
    home.stop.set()
    with pytest.raises(InterruptedByPersonError, match="'webapp_recover' goes on"):
        await home.recover("image")
    assert home.problems()
    home.stop.clear()
    await home.recover("image")
    assert home.content() == APP


async def test_a_power_cut_anywhere_is_seen_and_mended(home: AppHome):
    async def damage() -> None:
        home.start()
        make_image(home.image, "1.0.0", {**APP, "old.js": b"old"})
        await home.recover("image")
        home.write("app.js", b"damaged")
        make_image(home.image, "1.1.0", {**APP, "index.html": b"the new page", "new.js": b"new"})

    whole = {**APP, "index.html": b"the new page", "new.js": b"new"}
    at, cuts = 0, 0
    while True:
        await damage()
        home.fuse.at, home.fuse.steps = at, []
        try:
            await home.recover("image")
            break
        except PowerCutError:
            cuts += 1
        home.fuse.at = None
        home.start()
        found = {name: data for name, data in home.content().items() if name != "old.js"}
        assert home.problems() or found == whole, "half of it is never taken for whole"
        if at % 2:  # the start alone goes on, unless the cut came before the beginning
            record = home.files.last()
            await home.look()
            assert record is None or record.done or (home.problems(), home.content()) == ((), whole), at
        if home.problems() or "new.js" not in home.content() or "old.js" in home.content():
            await home.recover("image")
        assert (home.problems(), home.content()) == ((), whole), at
        at += 1
    assert cuts > 20


# --- from the server --------------------------------------------------------------------------------------------------
async def test_restored_from_the_dms(home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman):
    script = b"s" * 9000
    await brought(scene, fleet, doorman, "1.0.1", page(), page(script, "js/app.js"), page(b"same", "same.js"))
    await home.look()
    home.write("index.html", PAGE.replace(b"release", b"worse.."))
    (home.store.top / "webapp/js/app.js").unlink()
    scene.doorman.requests.clear()
    slots, entry, state = scene.snapshot(), scene.manager._ledger.entry, scene.store.read()
    (scene.folder / "data/ota").mkdir(exist_ok=True)
    (scene.folder / "data/ota/of-an-update").write_bytes(b"goes on")
    answer = await home.recover()
    assert answer == "The Web App 1.0.1 is restored from the DMS (2 of its 3 files fetched)."
    assert home.content() == {"index.html": PAGE, "js/app.js": script, "same.js": b"same"}
    assert home.problems() == ()
    assert len(doorman.asked("payload")) >= 2
    assert len({request[1] for request in doorman.asked("payload")}) == 2, "what is right is not fetched"
    # Nothing else has changed.
    assert (scene.snapshot(), scene.store.read()) == (slots, state)
    assert (scene.manager._ledger.entry, scene.manager.state) == (entry, "idle")
    assert (scene.folder / "data/ota/of-an-update").read_bytes() == b"goes on"
    assert not (scene.folder / "data/webapp.new").exists()
    home.start()
    await home.look()
    assert home.fuse.steps == []


async def test_parts_of_two_releases(home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman):
    await brought(scene, fleet, doorman, "1.0.1", page(), page(b"one", "a.js"))
    await brought(scene, fleet, doorman, "1.0.2", page(b"two", "a.js"))
    answer = await home.recover("dms")
    assert "The Web App 1.0.2 is restored from the DMS (2 of its 2 files fetched)." in answer
    assert home.content() == {"index.html": PAGE, "a.js": b"two"}


async def test_without_a_server_the_device_helps_itself(home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman):
    doorman.habits.refuse = {"check": (503, "the server is being repaired")}
    answer = await home.recover()
    assert answer == (
        "The Web App 1.0.0 is restored from the copy in the image; not from the DMS: the server is being repaired."
    )
    with pytest.raises(WebAppError, match="the DMS does not help: the server is being repaired"):
        await home.recover("dms")
    doorman.habits.refuse = {}
    answer = await home.recover()
    assert answer.endswith("not from the DMS: release 1.0.0 has no Web App.")
    await brought(scene, fleet, doorman, "1.0.1", page())
    doorman.habits.refuse = {"check": (503, "the server is being repaired")}
    assert "from the device's own copies; not from the DMS" in await home.recover()
    assert home.content() == {"index.html": PAGE}
    # The image's, if somebody wants just that, also after the next start.
    await home.recover("image")
    home.start()
    await home.look()
    assert home.content() == APP


async def test_a_payload_that_is_not_what_was_signed(home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman):
    await brought(scene, fleet, doorman, "1.0.1", page())
    await home.look()
    home.write("index.html", b"damaged")
    doorman.habits.tamper = lambda _path, data: data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(WebAppError, match="the DMS does not help"):
        await home.recover("dms")
    assert home.content() == {"index.html": b"damaged"}
    assert not (scene.folder / "data/webapp.new").exists()


async def test_even_a_worker_that_lies_gets_nothing_in(
    home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman, monkeypatch: pytest.MonkeyPatch
):
    await brought(scene, fleet, doorman, "1.0.1", page())
    await home.look()
    home.write("index.html", b"damaged")

    def lie(jobs: tuple[ItemJob, ...], *_more: object, **_named: object) -> None:
        for job in jobs:
            os.pwrite(job.fd, b"evil", 0)

    monkeypatch.setattr("zentrid.update.worker.install", lie)
    with pytest.raises(WebAppError, match="not what the signed manifest says"):
        await home.recover("dms")
    assert home.content() == {"index.html": b"damaged"}


async def test_an_update_and_a_restore_keep_away_from_each_other(
    home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman
):
    async with scene.manager.restoring():
        with pytest.raises(UpdateBusyError, match="the Web App is being restored"):
            await scene.update()
        with pytest.raises(UpdateBusyError, match="the Web App is being restored"):
            await scene.manager.cancel()
        with pytest.raises(ZentriError, match="the Web App is being restored"):
            await home.recover("image")
    release = add(None, "1.0.1", [page()])
    fleet.publish(release)
    doorman.offer = "1.0.1"
    answers: list[str] = []

    async def during() -> None:
        for source in ("", "dms", "image"):
            with pytest.raises(UpdateBusyError, match="an update is running already"):
                await home.recover(source)
            answers.append(source)

    loop = asyncio.get_running_loop()
    doorman.habits.before_payload = lambda: asyncio.run_coroutine_threadsafe(during(), loop).result(20)
    assert (await scene.update()).ok
    assert {*answers} == {"", "dms", "image"}
    assert home.content() == {}


async def test_a_power_cut_while_it_comes_from_the_dms(home: AppHome, scene: Device, fleet: Fleet, doorman: Doorman):
    await brought(scene, fleet, doorman, "1.0.1", page(), page(b"s" * 9000, "a.js"))
    at = 0
    while True:
        home.start()
        for name in ("index.html", "a.js"):
            home.write(name, b"damaged")
        scene.fuse.at, scene.fuse.steps = at, []
        try:
            await home.recover("dms")
            break
        except PowerCutError:
            at += 1
        scene.fuse.at = None
    assert at > 2
    assert home.content() == {"index.html": PAGE, "a.js": b"s" * 9000}
    assert not (scene.folder / "data/webapp.new").exists()
