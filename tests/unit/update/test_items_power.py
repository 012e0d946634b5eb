"""The power goes at each durable step of installing, switching, going back and removing applications and files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.device import Device, Fuse, PowerCutError, factory_state
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs
from tests.support.items import add, file, tar_app
from zentrid.adapters.items import ItemFolder
from zentrid.core.health import Policy
from zentrid.core.version import Version
from zentrid.update.itemtrial import Checks
from zentrid.update.spool import unfinished

Story = Callable[[Device], Awaitable[None]]
Make = Callable[[str], Device]

OLD = {"kept": b"kept", "rules": b"old", "gone": b"gone", "apps": b"two"}
NEW = {"kept": b"kept", "rules": b"new", "more/new": b"new", "apps": b"one,two"}


@pytest.fixture(scope="module")
def base_release() -> Release:
    return make_release("1.0.0", make_rootfs(5, blocks=210))


@pytest.fixture(scope="module")
def whole_release() -> Release:
    return make_release("1.1.0", make_rootfs(5, blocks=210, changed=10))


@pytest.fixture
async def make(tmp_path: Path, fleet: Fleet, doorman: Doorman, base_release: Release, whole_release: Release) -> Make:
    """Return a maker of devices that have the files and applications of release 1.0.1."""
    old = add(None, "1.0.1", [file("kept", b"kept"), file("rules", b"old"), file("gone", b"gone"), tar_app("two")])
    changes = [file("rules", b"new"), file("more/new", b"new"), tar_app("one")]
    gone = [("file", "gone")]
    fleet.publish(base_release, old, add(None, "1.0.2", changes, remove=gone))
    fleet.publish(add(whole_release, "1.1.0", changes, remove=gone))

    def bare(name: str) -> Device:
        device = Device(tmp_path / name, fleet, doorman)
        device.flash("a", base_release)
        device.flash("r", base_release)
        device.known["1.1.0"] = whole_release
        device.store.write(factory_state())
        device.boot()
        return device

    template = bare("template")
    await template.manager.start()
    doorman.offer = "1.0.1"
    assert (await template.update()).ok

    def make(name: str) -> Device:
        device = bare(name)
        shutil.copytree(template.folder / "data", device.folder / "data", symlinks=True)
        shutil.rmtree(device.folder / "data" / "outbox")
        device.store.write(replace(factory_state(), floor=Version(1, 0, 1)))
        device.boot()
        doorman.reports.clear()
        return device

    return make


def has(device: Device) -> dict[str, bytes]:
    """All files of the running slot's set, each read through its links, and the names of its whole applications."""
    folder = ItemFolder(device.folder / "data" / "items")
    top = folder.files(device.running)
    found = {
        os.path.relpath(Path(at, name), top): Path(at, name).read_bytes()
        for at, _, names in os.walk(top)
        for name in names
    }
    apps = [path.name for path in folder.apps(device.running).iterdir() if (path / "bin/main").stat().st_size]
    return found | {"apps": ",".join(sorted(apps)).encode()}


async def recover(device: Device) -> None:
    device.boot()
    await device.manager.start()
    await device.manager.items.resume()
    await device.manager.on_healthy()
    while await device.manager.dms.deliver():
        pass


def nothing_is_left_over(device: Device) -> None:
    top = device.folder / "data" / "items"
    folder = ItemFolder(top)
    sets = {folder.current(slot) for slot in ("a", "b")} - {""}
    assert {path.name for path in (top / "sets").iterdir()} == sets
    used = {held.store for slot in ("a", "b") if (found := folder.held(slot)) for held in found.items}
    assert {path.name for path in (top / "store").iterdir()} == used
    # What has arrived stays as long as the update can go on with it.
    going_on = {"incoming"} if unfinished(device.folder / "data" / "ota") else set()
    assert {path.name for path in top.iterdir()} - {"slot-a", "slot-b"} - going_on == {"sets", "store"}


async def cut_everywhere(
    story: Story, make: Make, check: Callable[[str, Device], Awaitable[None]], at_least: int, *, every: int = 1
) -> None:
    whole = make("whole")
    whole.fuse.steps = []
    await story(whole)
    steps = list(whole.fuse.steps)
    assert len(steps) > at_least, steps
    for at in range(0, len(steps), every):
        where = f"{at}: {steps[at]}"
        device = make(str(at))
        device.fuse.at, device.fuse.steps = at, []
        with pytest.raises(PowerCutError):
            await story(device)
        await recover(device)
        assert device.manager.state == "idle", where
        nothing_is_left_over(device)
        await check(where, device)
        shutil.rmtree(device.folder)


async def install(device: Device) -> None:
    device.doorman.offer = "1.0.2"
    await device.manager.start()
    last = await device.update()
    assert last.ok, last.message


async def test_an_installation_that_is_cut_anywhere(make: Make, doorman: Doorman) -> None:
    seen = set()

    async def check(where: str, device: Device) -> None:
        assert device.running == "a", where
        events = [(report["event"], report["to"]) for report in doorman.reports]
        assert len(events) <= 1, where
        seen.update(events)
        if device.manager.version == "1.0.2":
            assert has(device) == NEW, where
            assert events == [("installed", "1.0.2")], where
            assert device.store.read().floor == (1, 0, 2), where
        else:
            assert (has(device), device.manager.version) == (OLD, "1.0.1"), where
            assert events in ([], [("failed", "1.0.2")]), where
            assert device.store.read().floor == (1, 0, 1), where
            last = await device.update()
            assert last.ok, f"{where}: {last.message}"
            assert has(device) == NEW, where

    await cut_everywhere(install, make, check, 40)
    assert seen == {("installed", "1.0.2"), ("failed", "1.0.2")}


async def says_no() -> tuple[str, ...]:
    return ("health hook arm: it does not move",)


def with_bad_hook(make: Make) -> Make:
    checks = Checks(hooks=says_no, policy=lambda: Policy(0, 0.01, commit_offline=True), step_s=0.01)

    def bad(name: str) -> Device:
        device = make(name)
        device.parts_changes = {"checks": checks}
        device.start()
        return device

    return bad


async def goes_back(device: Device) -> None:
    device.doorman.offer = "1.0.2"
    await device.manager.start()
    last = await device.update()
    assert "it does not move" in last.message


async def test_a_way_back_that_is_cut_anywhere(make: Make, doorman: Doorman) -> None:
    seen = set()

    async def check(where: str, device: Device) -> None:
        assert (has(device), device.manager.version) == (OLD, "1.0.1"), where
        events = [(report["event"], report["reason"]) for report in doorman.reports]
        assert len(events) <= 1, where
        seen.update(events)
        assert device.store.read().floor == (1, 0, 1), where
        if events == [("rolled_back", "unhealthy")]:
            assert device.manager.failed_version == "1.0.2", where

    await cut_everywhere(goes_back, with_bad_hook(make), check, 45)
    assert seen == {("rolled_back", "unhealthy"), ("failed", "interrupted")}


async def whole_story(device: Device) -> None:
    device.doorman.offer = "1.1.0"
    await device.manager.start()
    last = await device.update()
    assert last.ok, last.message
    boot_keeping_fuse(device)
    await device.manager.start()
    await device.manager.on_healthy()


def boot_keeping_fuse(device: Device) -> None:
    at, steps = device.fuse.at, device.fuse.steps
    device.boot()
    device.fuse.at, device.fuse.steps = at, steps


async def test_firmware_and_its_items_are_never_mixed(make: Make) -> None:
    async def check(where: str, device: Device) -> None:
        assert has(device) == (NEW if device.version == "1.1.0" else OLD), where
        assert device.manager.version == ("1.1.0" if device.version == "1.1.0" else "1.0.1"), where

    await cut_everywhere(whole_story, make, check, 50, every=2)


async def given_up_story(device: Device) -> None:
    device.doorman.offer = "1.1.0"
    await device.manager.start()
    last = await device.update()
    assert last.ok, last.message
    for _ in range(3):
        boot_keeping_fuse(device)
        await device.manager.start()
        await device.manager.on_unhealthy("the application keeps crashing")
    boot_keeping_fuse(device)
    await device.manager.start()
    await device.manager.on_healthy()


async def test_firmware_that_is_given_up_leaves_the_old_items(make: Make) -> None:
    device = make("x")
    await given_up_story(device)
    assert (device.version, device.manager.version, has(device)) == ("1.0.0", "1.0.1", OLD)


# --- restarts during a trial ------------------------------------------------------------------------------------------
async def on_trial(device: Device) -> None:
    """Cut the power right after the switch."""
    fuse = device.fuse

    class AfterTheSwitch(Fuse):
        def __call__(self, step: str) -> None:
            if device.manager.state == "confirming":
                raise PowerCutError(step)

    device.fuse = device.store.fuse = AfterTheSwitch()
    device.start()
    device.doorman.offer = "1.0.2"
    await device.manager.start()
    with suppress(PowerCutError):
        await device.update()
    device.fuse = device.store.fuse = fuse
    assert has(device) == NEW


async def test_a_trial_is_taken_up_again_and_not_for_ever(make: Make, doorman: Doorman) -> None:
    device = make("x")
    await on_trial(device)
    for _ in range(2):
        device.boot()
        await device.manager.start()
        assert (device.manager.state, has(device)) == ("confirming", NEW)
        await device.manager.on_healthy()
        assert device.manager.state == "confirming", "a healthy boot says nothing about what is on trial"
        assert device.store.read().floor == (1, 0, 1)
    device.boot()
    await device.manager.start()
    assert (device.manager.state, has(device)) == ("idle", OLD)
    await device.manager.dms.deliver()
    assert [(report["event"], report["reason"]) for report in doorman.reports] == [("rolled_back", "app_unhealthy")]


@pytest.mark.parametrize("slot", ["b", "r"])
async def test_a_device_that_comes_up_elsewhere_takes_them_back(make: Make, slot: str, whole_release: Release) -> None:
    """The board may have left the slot because of what is on trial."""
    device = make("x")
    device.flash("b", whole_release)
    await on_trial(device)
    device.running = slot  # type: ignore[assignment]
    device.start()
    await device.manager.start()
    assert device.manager.state == "idle"
    device.running = "a"
    device.start()
    assert has(device) == OLD


async def test_no_other_update_begins_during_a_trial(make: Make) -> None:
    device = make("x")
    await on_trial(device)
    device.boot()
    await device.manager.start()
    last = await device.update(force=True)
    assert not last.ok
    assert "yet to become healthy" in last.message
    await device.manager.items.resume()
    assert device.manager.state == "idle"
