"""Applications and files of bundles on a device: installed, switched, judged, taken back, removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs
from tests.support.items import CRASHES, STAYS, Household, add, app, device_with, file, tar_app
from zentrid.adapters.items import ItemFolder, find_file, publish_files
from zentrid.core.bootstate import Fault, add_fault
from zentrid.core.health import Policy
from zentrid.core.items import HEALTHY, ItemSet
from zentrid.ports import UpdateOptions
from zentrid.update import itemset
from zentrid.update.attempt import Attempt
from zentrid.update.journal import Entry, Journal

Publish = Callable[..., Release]


@pytest.fixture(scope="session")
def base_release() -> Release:
    return make_release("1.0.0", make_rootfs(5, blocks=240))


@pytest.fixture
async def scene(tmp_path: Path, fleet: Fleet, doorman: Doorman, base_release: Release) -> Device:
    return await device_with(base_release, tmp_path / "device", fleet, doorman)


@pytest.fixture
def publish(fleet: Fleet, doorman: Doorman, scene: Device) -> Publish:
    """Publish and offer a release."""

    def publish(release: Release) -> Release:
        fleet.publish(release)
        scene.known[release.version] = release
        doorman.offer = release.version
        return release

    return publish


@pytest.fixture
async def home(scene: Device) -> AsyncIterator[Household]:
    """A device whose boot application is `one`."""
    household = Household(scene, "one")
    await household.begin()
    yield household
    await household.end()


def items_of(device: Device) -> ItemFolder:
    return ItemFolder(device.folder / "data" / "items")


def held(device: Device) -> list[tuple[str, str, str]]:
    found = items_of(device).held(device.running)
    return [(item.type, item.name, item.version) for item in (found.items if found else ())]


def content(device: Device, path: str) -> bytes:
    return (items_of(device).files(device.running) / path).read_bytes()


def everything(device: Device) -> dict[str, Any]:
    """All of the folder for items, by path; links by where they lead."""
    top = device.folder / "data" / "items"
    return {
        str(path.relative_to(top)): str(path.readlink()) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(top.rglob("*"))
    }


# --- the good way -----------------------------------------------------------------------------------------------------
async def test_an_application_comes_without_a_restart(scene: Device, publish: Publish, home: Household) -> None:
    slots = scene.snapshot()
    publish(add(None, "1.0.1", [app("one", STAYS.format(1), "7.0.0")]))
    last = await scene.update()
    assert (last.ok, last.reboot, last.result, last.message) == (True, False, 1, "Updated to DEMO-VIRT_SENSOR-1.0.1.")
    assert scene.snapshot() == slots, "no slot is touched"
    assert home.runner.problem is None
    assert home.said() == ["up 1"]
    [info] = home.runner.list()
    assert (info.name, info.version, info.state, info.source) == ("one", "7.0.0", "running", "bundle")
    assert scene.manager.state == "idle"
    [report] = await waiting(scene)
    assert (report["event"], report["from"], report["to"], report["version"]) == (
        "installed",
        "1.0.0",
        "1.0.1",
        "1.0.1",
    )
    # It is the floor now, as after every release that was healthy.
    assert scene.store.read().floor == (1, 0, 1)
    last = await scene.update()
    assert (last.result, last.message) == (2, "No update required: DEMO-VIRT_SENSOR-1.0.1 is what should run.")
    assert scene.doorman.checks[-1]["version"] == "1.0.1"
    assert [slot["version"] for slot in scene.doorman.checks[-1]["slots"]] == ["1.0.0", None, "1.0.0"]


async def test_a_new_version_takes_the_place_of_the_old(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1)), file("a/rules", b"old"), file("keep", b"kept")]))
    await scene.update()
    first = home.runner.list()[0].pid
    publish(add(None, "1.0.2", [app("one", STAYS.format(2)), file("a/rules", b"new")]))
    last = await scene.update()
    assert last.ok, last.message
    assert home.said() == ["up 1", "up 2"]
    assert [end.exit_code for end in home.exits] == [127], "being replaced is no exception, as not being there was"
    assert home.runner.list()[0].pid != first
    assert (content(scene, "a/rules"), content(scene, "keep")) == (b"new", b"kept")
    assert held(scene) == [("app", "one", "1.0.2"), ("file", "a_rules", "1.0.2"), ("file", "keep", "1.0.1")]
    store = {name for name in everything(scene) if name.startswith("store/") and name.count("/") == 1}
    assert len(store) == 3, "what nothing leads to is gone"
    assert not (scene.folder / "data" / "items" / "incoming").exists()
    assert not (scene.folder / "data" / "items" / "previous-a").exists()


async def test_an_application_that_did_not_change_goes_on(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1), "1.0.0")]))
    await scene.update()
    pid = home.runner.list()[0].pid
    publish(add(None, "1.0.2", [file("rules", b"new"), app("one", STAYS.format(1), "1.0.0")]))
    scene.doorman.requests.clear()
    assert (await scene.update()).ok
    assert home.runner.list()[0].pid == pid
    assert len({request[1] for request in scene.doorman.asked("payload")}) == 1, "what is there is not fetched again"


async def test_a_tar_becomes_a_folder_that_only_its_owner_can_change(
    scene: Device, publish: Publish, home: Household
) -> None:
    publish(add(None, "1.0.1", [tar_app("one"), tar_app("two"), file("tool.sh", b"#!/bin/sh\n")]))
    assert (await scene.update()).ok
    assert [info.version for info in home.runner.list()] == ["3.2.1", "3.2.1"]
    folder = items_of(scene).apps("a") / "one"
    modes = {
        path.name: path.stat().st_mode & 0o7777
        for path in (folder, folder / "bin", folder / "bin/main", folder / "app.json")
    }
    assert modes == {"one": 0o755, "bin": 0o755, "main": 0o755, "app.json": 0o644}
    assert all(path.stat().st_uid == os.geteuid() for path in folder.rglob("*"))
    for path in (scene.folder / "data" / "items").rglob("*"):
        assert not path.lstat().st_mode & 0o022 or path.is_symlink(), path


async def test_a_folder_that_a_worker_made_endless_is_removed(scene: Device, publish: Publish) -> None:
    incoming = items_of(scene).make_incoming()
    fd = os.open(incoming, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        fd, above = os.open("d", os.O_RDONLY, dir_fd=fd), fd
        os.symlink("/", "up", dir_fd=above)
        os.close(above)
    os.close(fd)
    scene.start()
    await scene.manager.start()
    assert not incoming.exists()
    publish(add(None, "1.0.1", [file("rules", b"new")]))
    assert (await scene.update()).ok


async def test_what_is_installed_is_not_offered_any_more(scene: Device, publish: Publish) -> None:
    publish(add(None, "1.0.1", [file("rules", b"new")]))
    await scene.update(check_only=True)
    assert scene.manager.available == "1.0.1"
    assert (await scene.update()).ok
    assert scene.manager.available == ""


async def test_files_have_a_stable_path(scene: Device, publish: Publish, tmp_path: Path) -> None:
    link = tmp_path / "files"
    publish_files(items_of(scene).files("a"), link)
    assert find_file("a/b", link) is None
    publish(add(None, "1.0.1", [file("a/b", b"one")]))
    assert (await scene.update()).ok
    assert (link / "a/b").read_bytes() == b"one"
    assert find_file("a/b", link) == link / "a/b"
    assert find_file("a", link) is None
    assert find_file("../files/a/b", link) is None
    assert find_file(str(link / "a/b"), link) is None
    publish(add(None, "1.0.2", [file("a/b", b"two")]))
    assert (await scene.update()).ok
    assert (link / "a/b").read_bytes() == b"two"


async def test_from_a_bundle_file(scene: Device, fleet: Fleet, tmp_path: Path) -> None:
    bundle = fleet.bundle(add(None, "1.0.1", [file("rules", b"x" * 10_000)]), tmp_path / "x.zb")
    last = await scene.update(source=str(bundle))
    assert last.ok, last.message
    assert content(scene, "rules") == b"x" * 10_000


async def test_unchanged_blocks_of_a_file_are_not_fetched(scene: Device, publish: Publish) -> None:
    noise = make_rootfs(9, blocks=1024)
    publish(add(None, "1.0.1", [file("big", noise)]))
    assert (await scene.update()).ok
    before = scene.doorman.payload_bytes
    publish(add(None, "1.0.2", [file("big", noise + b"more")]))
    assert (await scene.update()).ok
    assert content(scene, "big") == noise + b"more"
    assert scene.doorman.payload_bytes - before < len(noise) // 2


# --- removal ----------------------------------------------------------------------------------------------------------
async def test_what_a_release_removes_is_gone(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1)), app("two", STAYS), file("a/b", b"1"), file("a/c", b"2")]))
    assert (await scene.update()).ok
    publish(add(None, "1.0.2", [], remove=[("app", "two"), ("file", "a_b"), ("file", "never_there")]))
    last = await scene.update()
    assert last.ok, last.message
    assert held(scene) == [("app", "one", "1.0.1"), ("file", "a_c", "1.0.1")]
    assert find_file("a/b", items_of(scene).files("a")) is None
    assert [info.name for info in home.runner.list()] == ["one"]
    assert scene.manager.version == "1.0.2"
    publish(add(None, "1.0.3", [], remove=[("app", "one"), ("file", "a_c")]))
    last = await scene.update()
    assert not last.ok, "the boot application is not taken away from under the device"
    assert "there is no application called one" in last.message
    assert held(scene) == [("app", "one", "1.0.1"), ("file", "a_c", "1.0.1")]


async def test_the_last_one_may_go(scene: Device, publish: Publish) -> None:
    publish(add(None, "1.0.1", [file("a", b"1")]))
    await scene.update()
    publish(add(None, "1.0.2", [], remove=[("file", "a")]))
    assert (await scene.update()).ok
    assert held(scene) == []
    assert not [name for name in everything(scene) if name.startswith("store/")]
    assert scene.manager.version == "1.0.2"


# --- the way back -----------------------------------------------------------------------------------------------------
async def test_an_application_that_crashes_goes_back(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1)), file("rules", b"old")]))
    await scene.update()
    before = everything(scene)
    publish(add(None, "1.0.2", [app("one", CRASHES.format(2)), file("rules", b"new"), file("more", b"new")]))
    last = await scene.update()
    assert (last.ok, last.result) == (False, 3)
    assert "1.0.2 was taken back: it ended 3 times" in last.message
    assert "it said: bad luck 2" in last.message
    await home.until(
        lambda: home.runner.problem is None and home.said()[-1] == "up 1"
    )  # it has to start before it can say so
    assert everything(scene) == before, "not a byte of it is left"
    reports = await waiting(scene)
    assert [report["event"] for report in reports] == ["installed", "rolled_back"]
    assert (reports[1]["reason"], reports[1]["to"], reports[1]["version"]) == ("app_unhealthy", "1.0.2", "1.0.1")
    assert "bad luck 2" in reports[1]["detail"]
    assert (scene.manager.failed_version, scene.manager.version, scene.manager.state) == ("1.0.2", "1.0.1", "idle")
    assert scene.store.read().floor == (1, 0, 1), "what was no good is no floor"


async def test_the_first_one_that_crashes_leaves_nothing(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", CRASHES)]))
    last = await scene.update()
    assert not last.ok
    assert held(scene) == []
    assert scene.manager.version == "1.0.0"
    assert (await waiting(scene))[0]["version"] == "1.0.0"


async def test_one_that_never_gets_up_goes_back_in_time(scene: Device, publish: Publish) -> None:
    home = Household(scene, "two", policy=Policy(1.0, 2.0, commit_offline=True))
    await home.begin()
    try:
        publish(add(None, "1.0.1", [tar_app("two", source="import time")]))
        last = await scene.update()
    finally:
        await home.end()
    assert not last.ok
    assert "within 2 s" in last.message
    assert held(scene) == []


async def test_a_health_hook_takes_it_back(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1))]))
    await scene.update()
    home._policy = Policy(0.2, 1.0, commit_offline=True)
    home.hooks = ("health hook arm: it does not move",)
    publish(add(None, "1.0.2", [file("rules", b"bad")]))
    last = await scene.update()
    assert not last.ok
    assert "it does not move" in last.message
    assert (await waiting(scene))[-1]["reason"] == "unhealthy"
    assert held(scene) == [("app", "one", "1.0.1")]


async def test_an_application_that_was_down_before_is_not_held_against_a_file(
    scene: Device, publish: Publish, home: Household
) -> None:
    await home.until(lambda: home.exits)
    assert home.runner.problem is not None, "there is no such application"
    publish(add(None, "1.0.1", [file("rules", b"new")]))
    assert (await scene.update()).ok


async def test_an_application_stopped_by_hand_stays_stopped(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1))]))
    await scene.update()
    await home.runner.stop_by_hand()
    publish(add(None, "1.0.2", [app("one", CRASHES)]))
    assert (await scene.update()).ok, "nobody can say that it is bad"
    assert home.runner.stopped_by_hand
    assert len(home.exits) == 1, "it was missed before the first release"


async def test_faults_of_what_is_taken_back_go_with_it(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1))]))
    assert (await scene.update()).ok
    old = Fault("application", "a", "1.0.0", 5, "?", "an old one")
    scene.store.update(lambda state: add_fault(state, old))

    async def ended(end: Any) -> None:
        assert scene.manager.items.on_trial
        fault = Fault("application", "a", scene.manager.version, 5, "?", end.reason)
        scene.store.update(lambda state: add_fault(state, fault, most=7))

    home.runner._on_exit = both(home._ended, ended)  # as `zentrid.app` does
    publish(add(None, "1.0.2", [app("one", CRASHES)]))
    assert not (await scene.update()).ok
    state = scene.store.read()
    assert (state.faults, state.fault_records) == (1, (old,))


def both(*steps: Any) -> Any:
    async def call(end: Any) -> None:
        for step in steps:
            await step(end)

    return call


# --- with firmware ----------------------------------------------------------------------------------------------------
async def test_firmware_brings_its_own_set_and_takes_it_back(
    scene: Device, publish: Publish, base_release: Release
) -> None:
    publish(add(None, "1.0.1", [file("rules", b"old"), file("kept", b"kept")]))
    assert (await scene.update()).ok
    whole = make_release("1.1.0", make_rootfs(5, blocks=240, changed=10))
    publish(add(whole, "1.1.0", [file("rules", b"new"), tar_app("one")]))
    last = await scene.update()
    assert (last.ok, last.reboot) == (True, True), last.message
    assert content(scene, "rules") == b"old", "the running slot keeps its own"
    assert scene.manager.version == "1.0.1"
    scene.boot()
    await scene.manager.start()
    assert scene.running == "b"
    assert (content(scene, "rules"), content(scene, "kept")) == (b"new", b"kept")
    assert scene.manager.version == "1.1.0"
    for _ in range(3):
        await scene.manager.on_unhealthy("no")
        scene.boot()
        await scene.manager.start()
    assert (str(scene.running), content(scene, "rules"), scene.manager.version) == ("a", b"old", "1.0.1")
    assert [(report["event"], report["to"]) for report in await waiting(scene)][-1] == ("rolled_back", "1.1.0")


async def test_firmware_without_items_carries_them_over(scene: Device, publish: Publish) -> None:
    publish(add(None, "1.0.1", [file("rules", b"old")]))
    await scene.update()
    publish(make_release("1.1.0", make_rootfs(5, blocks=240, changed=10)))
    assert (await scene.update()).ok
    scene.boot()
    await scene.manager.start()
    await scene.manager.on_healthy()
    assert (str(scene.running), content(scene, "rules")) == ("b", b"old")
    publish(add(make_release("1.2.0", make_rootfs(5, blocks=240, changed=20)), "1.2.0", [], remove=[("file", "rules")]))
    assert (await scene.update()).ok
    scene.boot()
    await scene.manager.start()
    await scene.manager.on_healthy()
    assert (scene.running, held(scene), scene.manager.version) == ("a", [], "1.2.0")
    assert items_of(scene).current("a") == "", "slot a's own old set is not the new release's"


async def test_from_safe_mode_the_other_slots_items_are_carried_over(scene: Device, publish: Publish) -> None:
    publish(add(None, "1.0.1", [file("rules", b"old")]))
    await scene.update()
    scene.running = "r"
    scene.start()
    await scene.manager.start()
    publish(make_release("1.1.0", make_rootfs(5, blocks=240, changed=10)))
    assert (await scene.update()).ok
    scene.boot()
    assert (str(scene.running), content(scene, "rules")) == ("b", b"old")


async def test_a_set_of_another_firmware_does_not_speak_for_this_one(scene: Device, publish: Publish) -> None:
    """A slot that was written by other means than an update: in a factory, with a disk image."""
    publish(add(None, "1.0.1", [file("rules", b"old")]))
    await scene.update()
    scene.flash("a", make_release("1.0.5", make_rootfs(6, blocks=240)))
    scene.boot()
    assert scene.manager.version == "1.0.5"
    assert content(scene, "rules") == b"old"


async def test_after_a_reset_of_the_data_the_floor_still_stands(
    scene: Device, publish: Publish, fleet: Fleet, tmp_path: Path
) -> None:
    old = add(None, "1.0.1", [file("rules", b"bad")])
    publish(old)
    assert (await scene.update()).ok
    publish(add(None, "1.0.2", [file("rules", b"good")]))
    assert (await scene.update()).ok
    shutil.rmtree(scene.folder / "data")
    scene.boot()
    await scene.manager.start()
    await scene.manager.on_healthy()
    assert (scene.manager.version, held(scene)) == ("1.0.0", [])
    last = await scene.update(source=str(fleet.bundle(old, tmp_path / "old.zb")))
    assert not last.ok
    assert "older than 1.0.2" in last.message
    assert held(scene) == []
    assert (await scene.update()).ok
    assert content(scene, "rules") == b"good"


async def test_a_hook_may_have_something_against_what_came(scene: Device, publish: Publish) -> None:
    seen: list[str] = []

    async def post_install(manifest: Any) -> str | None:
        seen.append(str(manifest.version))
        return "the arm moves" if len(seen) == 1 else None

    scene.parts_changes = {"post_install": post_install}
    scene.start()
    await scene.manager.start()
    publish(add(None, "1.0.1", [file("rules", b"new")]))
    last = await scene.update()
    assert not last.ok
    assert "the arm moves" in last.message
    assert held(scene) == []
    assert (await scene.update()).ok
    assert (seen, content(scene, "rules")) == (["1.0.1", "1.0.1"], b"new")


def test_a_damaged_description_is_no_set(scene: Device) -> None:
    folder = items_of(scene)
    folder.make_set("x", ItemSet("1.0.1", "1.0.0"))
    folder.switch("a", "x")
    assert scene.manager.version == "1.0.1"
    (folder.top / "sets" / "x" / "set.json").write_text("{")
    assert folder.held("a") is None
    assert scene.manager.version == "1.0.0"


async def test_the_trial_goes_on_when_nobody_follows(scene: Device, publish: Publish, home: Household) -> None:
    publish(add(None, "1.0.1", [app("one", STAYS.format(1))]))
    run = scene.manager.run(UpdateOptions())
    async for news in run:
        if news.state == "confirming":
            break
    await run.aclose()  # type: ignore[attr-defined]
    outbox = scene.manager.outbox
    await home.until(lambda: len(outbox))
    assert scene.manager.state == "idle"
    assert [report["event"] for report in await waiting(scene)] == ["installed"]


async def test_a_failure_inside_does_not_end_all_updates(
    scene: Device, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(add(None, "1.0.1", [file("rules", b"new")]))

    async def broken(_attempt: Attempt, _news: Any) -> None:
        raise RuntimeError("never foreseen")

    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "follow", broken)
        with pytest.raises(RuntimeError):
            await scene.update()
    assert scene.manager.state == "downloading"
    last = await scene.update()
    assert last.ok, last.message
    assert content(scene, "rules") == b"new"
    assert [report["event"] for report in await waiting(scene) if report["event"] != "progress"] == [
        "failed",
        "installed",
    ]


def refuse_once(patch: pytest.MonkeyPatch, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Let the disk refuse the first write of the journal that is `wanted`; return what was refused."""
    refused: list[dict[str, Any]] = []
    save = Journal.save

    def full(journal: Journal, **changes: Any) -> Entry:
        if not refused and wanted(changes):
            refused.append(changes)
            raise OSError(28, "No space left on device")
        return save(journal, **changes)

    patch.setattr(Journal, "save", full)
    patch.setattr(itemset, "_AGAIN_S", 0.05)
    return refused


async def test_a_trial_that_the_journal_cannot_end_is_ended_later(
    scene: Device, publish: Publish, home: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = refuse_once(monkeypatch, lambda changes: changes.get("starts") == HEALTHY)
    publish(add(None, "1.0.1", [app("one", STAYS.format(1))]))
    assert not (await scene.update()).ok
    assert refused
    await home.until(lambda: scene.manager.state == "idle" and len(scene.manager.outbox))
    assert scene.manager.version == "1.0.1"
    assert [report["event"] for report in await waiting(scene)] == ["installed"]


async def test_what_was_taken_back_is_not_judged_again(
    scene: Device, publish: Publish, home: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old set is in place again, and healthy; that says nothing about the new one."""
    refused = refuse_once(monkeypatch, lambda changes: "failed_version" in changes)
    publish(add(None, "1.0.1", [app("one", CRASHES)]))
    assert not (await scene.update()).ok
    assert refused
    await home.until(lambda: scene.manager.state == "idle" and len(scene.manager.outbox))
    assert (scene.manager.version, scene.manager.failed_version) == ("1.0.0", "1.0.1")
    assert [report["event"] for report in await waiting(scene)] == ["rolled_back"]
