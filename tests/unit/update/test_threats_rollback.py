"""The rows of `docs/threats.md` about going back: to an older bundle, to a vulnerable slot, after a factory reset."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import attacked, recovers
from tests.support.boots import fresh_systems
from tests.support.device import Device, factory_state, with_floor
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release
from zentrid.core.bootmodel import Before, boot
from zentrid.core.bootrules import Fit, System
from zentrid.core.bootstate import BootState
from zentrid.core.version import Version

EARLIER = ("0.9.0", "1.0.0", "1.0.9")
NEWEST = "1.1.0"


@pytest.fixture(scope="module")
def earlier() -> dict[str, Release]:
    """Every version before the newest, signed in its day by the true key."""
    return {version: make_release(version) for version in EARLIER}


@pytest.fixture
async def newest(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, earlier: dict[str, Release]
) -> Device:
    """A device on which the newest release has become healthy: its floor is there."""
    fleet.publish(*(release for version, release in earlier.items() if version != "1.0.0"))
    assert (await device.update()).ok
    await device.boot().start()
    await device.manager.on_healthy()
    assert (device.version, device.store.read().floor) == (NEWEST, Version(1, 1, 0))
    device.flash("a", make_release(NEWEST))  # whatever the target holds: it is what may be lost
    return device


def options_for(way: str, fleet: Fleet, doorman: Doorman, release: Release, folder: Path) -> dict[str, Any]:
    """The ways that an attacker has to offer a release."""
    if way == "file":
        return {"source": str(fleet.bundle(release, folder / "old.zb"))}
    doorman.offer = release.version
    doorman.habits.eager = True
    return {"version": release.version} if way == "asked for" else {"force": way == "forced"}


@pytest.mark.parametrize("way", ["server", "asked for", "forced", "file"])
@pytest.mark.parametrize("version", EARLIER)
async def test_rollback_to_each_earlier_version(
    newest: Device, fleet: Fleet, doorman: Doorman, tmp_path: Path, old: Release, earlier: dict[str, Release],
    way: str, version: str,
) -> None:  # fmt: skip
    release = old if version == "1.0.0" else earlier[version]
    options = options_for(way, fleet, doorman, release, tmp_path)
    await attacked(newest, "below_floor", f"release {version} is older than 1.1.0", **options)


@pytest.mark.parametrize("way", ["server", "file"])
@pytest.mark.parametrize("version", ["0.9.0", "1.0.9"])
async def test_rollback_from_safe_mode(
    newest: Device, fleet: Fleet, doorman: Doorman, tmp_path: Path, earlier: dict[str, Release], way: str, version: str
) -> None:
    """The safe-mode system is older than the floor itself: the floor counts all the same."""
    newest.store.update(lambda state: replace(state, a_left=0, b_left=0))
    newest.boot()
    assert newest.running == "r"
    options = options_for(way, fleet, doorman, earlier[version], tmp_path)
    await attacked(newest, "below_floor", f"release {version} is older than 1.1.0", **options)


async def test_rollback_with_a_lost_boot_state_is_stopped_by_nothing_less_than_the_running_release(
    newest: Device, fleet: Fleet, doorman: Doorman, earlier: dict[str, Release]
) -> None:
    """Both copies were destroyed and written anew: the floor is back with the next healthy boot."""
    newest.store.write(BootState(b_good=True, order=("b", "a")))
    newest.start()
    await newest.manager.start()
    await newest.manager.on_healthy()
    doorman.offer = "1.0.9"
    await attacked(newest, "below_floor", "release 1.0.9 is older than 1.1.0")


async def test_reset_then_downgrade(
    newest: Device, fleet: Fleet, doorman: Doorman, tmp_path: Path, earlier: dict[str, Release]
) -> None:
    """A factory reset takes everything on the data partition, the known metadata too; floor and identity stay."""
    shutil.rmtree(newest.folder / "data")
    newest.boot()
    await newest.manager.start()
    for way in ("server", "file"):
        options = options_for(way, fleet, doorman, earlier["1.0.9"], tmp_path)
        await attacked(newest, "below_floor", "release 1.0.9 is older than 1.1.0", **options)
    thief = Fleet(tmp_path / "thief")
    bundle = thief.bundle(make_release("2.0.0"), tmp_path / "thief.zb")
    await attacked(newest, "bad_signature", "targets.json is not signed", source=str(bundle))
    fleet.publish(make_release("1.2.0"))
    doorman.offer = "1.2.0"
    await recovers(newest)


# --- the signed exception ------------------------------------------------------------------------------------------------
async def test_exception_that_was_signed_goes_back_and_lowers_no_floor(
    newest: Device, fleet: Fleet, doorman: Doorman, earlier: dict[str, Release]
) -> None:
    fleet.publish(make_release("1.0.5", downgrade_to="1.0.0"))
    doorman.offer = "1.0.5"
    await recovers(newest)
    assert newest.store.read().floor == Version(1, 1, 0)
    newest.boot()
    await newest.manager.start()
    await newest.manager.on_healthy()
    state = newest.store.read()
    assert (newest.version, state.floor) == ("1.0.5", Version(1, 1, 0))
    # Below the floor, though newer than what runs: only the exception went back, nobody else does.
    doorman.offer = "1.0.9"
    await attacked(newest, "below_floor", "release 1.0.9 is older than 1.1.0")
    doorman.offer = NEWEST
    newest.boot()
    assert newest.version == "1.0.5"
    assert (await newest.update(check_only=True)).ok


async def test_exception_that_fails_its_first_boot_changes_no_floor(
    newest: Device, fleet: Fleet, doorman: Doorman
) -> None:
    fleet.publish(make_release("1.0.5", downgrade_to="1.0.0"))
    doorman.offer = "1.0.5"
    await recovers(newest)
    newest.boot()
    await newest.manager.start()
    await newest.manager.on_unhealthy("it does not work")
    for _ in range(3):
        newest.boot()
    assert newest.version == NEWEST
    assert newest.store.read().floor == Version(1, 1, 0)


@pytest.mark.parametrize("way", ["server", "file"])
async def test_vulnerable_slot_a_signed_exception_below_the_boot_floor(
    newest: Device, fleet: Fleet, doorman: Doorman, tmp_path: Path, way: str
) -> None:
    """The boot script would never start it: it must not take the place of the release that it does start."""
    newest.store.update(lambda state: replace(state, boot_floor=Version(1, 0, 6)))
    release = make_release("1.0.5", downgrade_to="1.0.0")
    fleet.publish(release)
    options = options_for(way, fleet, doorman, release, tmp_path)
    await attacked(newest, "below_boot_floor", "the oldest that this device still starts", **options)


async def test_vulnerable_slot_the_boot_floor_rises_with_the_first_healthy_boot_only(
    device: Device, fleet: Fleet, doorman: Doorman
) -> None:
    """A release that closes a hole: until it is healthy the old slot may come back, then never again."""
    fleet.publish(make_release("1.2.0", boot_floor="1.2.0"))
    doorman.offer = "1.2.0"
    await recovers(device)
    device.boot()
    await device.manager.start()
    assert device.store.read().boot_floor == Version(0, 0, 0)
    await device.manager.on_healthy()
    state = device.store.read()
    assert (state.boot_floor, state.floor) == (Version(1, 2, 0), Version(1, 2, 0))
    # Later releases that ask for less, or for nothing, do not lower it.
    fleet.publish(make_release("1.3.0", boot_floor="1.0.0"))
    doorman.offer = "1.3.0"
    await recovers(device)
    device.boot()
    await device.manager.start()
    await device.manager.on_healthy()
    assert device.store.read().boot_floor == Version(1, 2, 0)


def test_vulnerable_slot_a_crash_loop_after_the_commit_ends_in_safe_mode_and_not_in_the_old_release() -> None:
    """The new release crashes for ever after it was good: the boot script's rules go anywhere but below the boot floor."""
    old, new = Version(1, 0, 0), Version(2, 0, 0)
    systems = fresh_systems() | {"a": System(Fit.GOOD, old), "b": System(Fit.GOOD, new)}
    state = BootState(seq=1, order=("b", "a"), a_good=True, b_good=True, floor=new, boot_floor=new)
    copies: tuple[BootState | None, BootState | None] = (state, None)
    started = []
    for _ in range(40):
        after = boot(Before(copies, warm=True, systems=systems))
        copies = after.copies
        started.append((after.arguments or {}).get("zentri.slot"))
    assert "a" not in started
    assert {"b", "r"} <= set(started)


async def test_floor_of_manufacture(device: Device, fleet: Fleet, doorman: Doorman, published: Release) -> None:
    device.store.write(factory_state())
    device.store.update(with_floor("1.1.1"))
    await attacked(device, "below_floor", "release 1.1.0 is older than 1.1.1")
