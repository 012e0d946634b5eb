"""The power goes at each durable step of an update, one after the other; after every one of them the promises hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.device import Device, PowerCutError, factory_state, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs

Story = Callable[[Device], Awaitable[None]]

SMALL = 140
"""Blocks: more than one level of tree, little to write."""


@pytest.fixture(scope="module")
def small_old() -> Release:
    return make_release("1.0.0", make_rootfs(3, blocks=SMALL + 100))


@pytest.fixture(scope="module")
def small_new() -> Release:
    return make_release("1.1.0", make_rootfs(3, blocks=SMALL + 100, changed=20))


@pytest.fixture
def scene(
    tmp_path: Path, small_old: Release, small_new: Release, doorman: Doorman, fleet: Fleet
) -> Callable[[int], Device]:
    fleet.publish(small_old, small_new)
    doorman.offer = "1.1.0"

    def make(number: int) -> Device:
        device = Device(tmp_path / str(number), fleet, doorman)
        device.flash("a", small_old)
        device.flash("r", small_old)
        device.known[small_new.version] = small_new
        device.store.write(factory_state())
        device.boot()
        doorman.reports.clear()
        return device

    return make


async def install_boot_confirm(device: Device) -> None:
    """The whole story: update, restart, healthy."""
    await device.manager.start()
    last = await device.update()
    assert last.ok, last.message
    await first_boot(device)


async def first_boot(device: Device) -> None:
    boot_keeping_fuse(device)
    await device.manager.start()
    await device.manager.on_healthy()


async def install_boot_give_up(device: Device) -> None:
    """The new release never gets healthy: three tries, then the old one."""
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


def boot_keeping_fuse(device: Device) -> None:
    """Restart within a story: the fuse goes on counting, but never cuts inside the boot script."""
    at, steps = device.fuse.at, device.fuse.steps
    device.boot()
    device.fuse.at, device.fuse.steps = at, steps


async def recover(device: Device) -> None:
    """Restart until something is healthy, as the board does by itself; then let the reports go."""
    device.boot()
    await device.manager.start()
    await device.manager.on_healthy()
    while await device.manager.dms.deliver():
        pass


def check_promises(device: Device) -> None:
    assert device.running in ("a", "b"), "fell into safe mode"
    assert device.slot_holds(device.running, device.known[device.version])
    state = device.store.read()
    for slot in ("a", "b"):
        if state.left(slot):
            holds = [release for release in device.known.values() if device.slot_holds(slot, release)]
            assert holds or not device.part(f"kernel_{slot}").read_bytes().strip(b"\0"), f"{slot} may boot a mixture"
    assert device.manager.state == "idle"


async def cut_everywhere(story: Story, make: Callable[[int], Device]) -> AsyncIterator[tuple[str, Device]]:
    whole = make(10_000)
    whole.fuse.steps = []
    await story(whole)
    steps = list(whole.fuse.steps)
    assert len(steps) > 20
    for at, step in enumerate(steps):
        device = make(at)
        device.fuse.at, device.fuse.steps = at, []
        with pytest.raises(PowerCutError):
            await story(device)
        await recover(device)
        check_promises(device)
        yield f"{at}: {step}", device


async def test_an_update_that_is_cut_anywhere(
    scene: Callable[[int], Device], doorman: Doorman, small_new: Release
) -> None:
    seen = set()
    async for where, device in cut_everywhere(install_boot_confirm, scene):
        events = [(report["event"], report["to"]) for report in doorman.reports]
        assert len(events) <= 1, where
        seen.update(events)
        if device.version == "1.1.0":
            assert events == [("installed", "1.1.0")], where
            assert device.store.read().floor >= (1, 1, 0), where
        elif events:
            assert events == [("failed", "1.1.0")], where
        assert await waiting(device) == []
        last = await device.update()
        assert last.ok, f"{where}: {last.message}"
    assert seen == {("installed", "1.1.0"), ("failed", "1.1.0")}


async def test_a_rollback_that_is_cut_anywhere(scene: Callable[[int], Device], doorman: Doorman) -> None:
    async for where, device in cut_everywhere(install_boot_give_up, scene):
        events = [report["event"] for report in doorman.reports]
        assert len(events) <= 1, where
        if device.version == "1.0.0" and events == ["rolled_back"]:
            assert doorman.reports[0]["reason"] == "unhealthy", where
            assert "the application keeps crashing" in doorman.reports[0]["detail"], where
            assert device.manager.failed_version == "1.1.0", where
        elif device.version == "1.1.0":
            assert events == ["installed"], where
        else:
            assert events in ([], ["failed"]), where


async def install_and_take_back(device: Device) -> None:
    """Installed, then cancelled before the restart."""
    await device.manager.start()
    last = await device.update()
    assert last.ok, last.message
    assert await device.manager.cancel()


async def test_taking_a_release_back_that_is_cut_anywhere(scene: Callable[[int], Device], doorman: Doorman) -> None:
    """Either it was taken back, or it was started after all and is judged like any other; never both, never neither."""
    seen = set()
    async for where, device in cut_everywhere(install_and_take_back, scene):
        events = [report["event"] for report in doorman.reports]
        assert len(events) <= 1, where
        seen.update(events)
        if device.version == "1.1.0":
            assert events == ["installed"], where
        else:
            assert events in ([], ["failed"], ["cancelled"]), where
            assert device.manager.failed_version == "", where
        last = await device.update()
        assert last.ok, f"{where}: {last.message}"
    assert seen == {"installed", "failed", "cancelled"}
