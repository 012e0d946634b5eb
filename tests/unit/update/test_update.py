"""Updates that go well, and what they cost."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import PRODUCT, UUID, Fleet, Release, make_release, patch_between
from zentrid.bundle.patch import PatchHeader
from zentrid.core.version import Version
from zentrid.ports import UpdateOptions
from zentrid.update.errors import DmsRefusedError, UpdateBusyError


async def test_from_the_server_to_confirmed(device: Device, doorman: Doorman, published: Release) -> None:
    await device.manager.start()
    news = await device.news()
    last = news[-1]
    assert (last.ok, last.reboot, last.result, last.percent) == (True, True, 1, 100), last.message
    assert last.message == "Updated to DEMO-VIRT_SENSOR-1.1.0."
    assert list(dict.fromkeys(item.state for item in news)) == [
        "checking", "downloading", "verifying", "rebooting",
    ]  # fmt: skip
    assert device.slot_holds("b", published)
    state = device.store.read()
    assert (state.order, state.b_left, state.b_good, state.a_good) == (("b", "a"), 3, False, True)

    manager = device.boot()
    await manager.start()
    assert (device.version, manager.first_boot, manager.state) == ("1.1.0", True, "confirming")
    await manager.on_healthy()
    state = device.store.read()
    assert (state.b_good, state.b_left, state.floor, state.boot_floor) == (True, 3, Version(1, 1, 0), Version(1, 0, 0))
    assert (manager.first_boot, manager.state, manager.last_result) == (False, "idle", 1)
    assert await manager.dms.deliver() == 1
    assert [(r["event"], r["from"], r["to"], r["version"]) for r in doorman.reports] == [
        ("installed", "1.0.0", "1.1.0", "1.1.0")
    ]
    assert await manager.dms.deliver() == 0
    assert (await device.update()).result == 2


async def test_only_frames_with_a_missing_block_are_fetched(
    device: Device, doorman: Doorman, fleet: Fleet, old: Release
) -> None:
    changed = bytearray(old.rootfs)
    changed[5 * 4096 : 6 * 4096] = b"x" * 4096
    release = make_release("1.0.1", bytes(changed))
    fleet.publish(release)
    doorman.offer = "1.0.1"
    assert (await device.update()).ok
    assert device.slot_holds("b", release)
    header = PatchHeader.parse(release.streams[release.tree.root.hex()])
    kernel = release.streams[release.manifest.items[0].root_hash]
    expected = header.leaf_offset + header.leaf_bytes + header.frames[0].compressed_bytes + len(kernel)
    assert doorman.payload_bytes == expected


async def test_one_request_for_neighbouring_frames(device: Device, doorman: Doorman, published: Release) -> None:
    await device.update()
    root = published.tree.root.hex()
    assert len(doorman.asked(f"payload/{root}")) == 4  # fixed part, frame table, leaf section, all frames


async def test_the_running_root_is_offered_as_base(
    device: Device, doorman: Doorman, published: Release, old: Release
) -> None:
    await device.update()
    asked = doorman.asked(f"payload/{published.tree.root.hex()}")
    assert all(path.endswith(f"?base={old.tree.root.hex()}") for _, path, _ in asked)


async def test_a_patch_from_the_running_release(
    device: Device, doorman: Doorman, published: Release, old: Release, fleet: Fleet
) -> None:
    stream = patch_between(old, published)
    fleet.payloads[published.tree.root.hex()] = stream
    assert (await device.update()).ok
    assert device.slot_holds("b", published)
    kernel = published.streams[published.manifest.items[0].root_hash]
    assert doorman.payload_bytes <= len(stream) + len(kernel)
    assert len(stream) < len(published.streams[published.tree.root.hex()]) / 5


async def test_a_base_block_gone_bad_costs_a_full_payload_and_nothing_else(
    device: Device, doorman: Doorman, published: Release, old: Release, fleet: Fleet
) -> None:
    kept = next(
        n for n in range(published.tree.n_blocks) if published.tree.leaf(n) == old.tree.leaf(n) and n % 7 and n > 300
    )
    for slot in ("a", "r"):
        with device.part(f"rootfs_{slot}").open("r+b") as file:
            file.seek(kept * 4096)
            file.write(b"rot")
    full = fleet.payloads[published.tree.root.hex()]
    patch = patch_between(old, published)
    doorman.habits.by_base = {old.tree.root.hex(): {published.tree.root.hex(): patch}}
    assert (await device.update()).ok
    assert device.slot_holds("b", published)
    assert doorman.payload_bytes > len(patch)
    assert full == fleet.payloads[published.tree.root.hex()]


async def test_nothing_to_do(device: Device, doorman: Doorman) -> None:
    doorman.offer = "1.0.0"
    before = device.snapshot(), device.store.read()
    last = await device.update()
    assert (last.ok, last.result, last.reboot, device.manager.last_result) == (True, 2, False, 2)
    assert last.message == "No update required: DEMO-VIRT_SENSOR-1.0.0 is what should run."
    assert (device.snapshot(), device.store.read()) == before
    assert len(device.launcher.requests) == 1


async def test_a_server_that_offers_what_runs_already(device: Device, doorman: Doorman, old: Release) -> None:
    """The server's answer does not decide: the signed manifest's version does."""
    doorman.offer = old.version
    doorman.habits.eager = True
    assert (await device.update()).result == 2


async def test_force_installs_the_same_version_again(device: Device, doorman: Doorman, old: Release) -> None:
    doorman.offer = "1.0.0"
    last = await device.update(force=True)
    assert (last.ok, last.reboot, last.result) == (True, True, 1)
    assert device.slot_holds("b", old)
    kernel = old.streams[old.manifest.items[0].root_hash]
    assert doorman.payload_bytes < len(kernel) / 2 + 60_000  # everything but headers was on the device


async def test_only_looking(device: Device, published: Release) -> None:
    before = device.snapshot(), device.store.read()
    last = await device.update(check_only=True)
    assert (last.ok, last.message, last.reboot) == (True, "Update available: DEMO-VIRT_SENSOR-1.1.0.", False)
    assert (device.snapshot(), device.store.read()) == before
    assert device.manager.state == "idle"


async def test_a_certain_version(device: Device, doorman: Doorman, fleet: Fleet, published: Release) -> None:
    fleet.publish(make_release("1.2.0"))
    doorman.offer = "1.2.0"
    assert (await device.update(version="1.1.0")).message == "Updated to DEMO-VIRT_SENSOR-1.1.0."
    assert doorman.checks[-1]["want"] == "1.1.0"


async def test_what_the_server_is_told(device: Device, doorman: Doorman) -> None:
    await device.update()
    assert doorman.checks[0] == {
        "uuid": UUID,
        "version": "1.0.0",
        "product": PRODUCT,
        "board": "virt",
        "slots": [
            {"slot": "a", "version": "1.0.0", "state": "running"},
            {"slot": "b", "version": None, "state": "empty"},
            {"slot": "r", "version": "1.0.0", "state": "safe-mode"},
        ],
        "safemode": False,
        "faults": 0,
        "force": False,
        "want": None,
    }


async def test_one_update_at_a_time(device: Device, published: Release) -> None:
    first = device.manager.run(UpdateOptions())
    await anext(first)
    with pytest.raises(UpdateBusyError, match="running already"):
        await anext(device.manager.run(UpdateOptions()))
    async for _ in first:
        pass
    assert device.slot_holds("b", published)


async def test_an_installed_update_waits_for_its_restart(device: Device, published: Release) -> None:
    await device.update()
    last = await device.update()
    assert (last.ok, last.message) == (
        False,
        "an update is installed and waits for a restart; use: reboot; or take it back with: ota cancel",
    )
    manager = device.start()
    await manager.start()
    assert manager.state == "rebooting"


async def test_the_fallback_is_not_overwritten_before_the_new_release_is_healthy(
    device: Device, doorman: Doorman, fleet: Fleet, published: Release, old: Release
) -> None:
    await device.update()
    await device.boot().start()
    fleet.publish(make_release("1.2.0"))
    doorman.offer = "1.2.0"
    assert "yet to become healthy" in (await device.update()).message
    assert device.slot_holds("a", old)
    await device.manager.on_healthy()
    assert (await device.update()).ok


async def test_from_safe_mode_the_worse_slot_is_taken(device: Device, doorman: Doorman, published: Release) -> None:
    device.store.update(lambda state: replace(state, a_left=0, a_good=True, b_left=0, b_good=False))
    manager = device.boot()
    await manager.start()
    assert device.running == "r"
    assert (await device.update()).ok
    assert doorman.checks[-1]["safemode"] is True
    assert device.slot_holds("b", published)
    device.boot()
    assert (device.running, device.version) == ("b", "1.1.0")


async def test_an_update_from_safe_mode_leads_out_of_it(device: Device, published: Release) -> None:
    device.store.update(lambda state: replace(state, faults=8, safemode=True))
    device.running = "r"
    await device.start().start()
    assert (await device.update()).ok
    state = device.store.read()
    assert (state.faults, state.safemode, state.order[0]) == (0, False, "b" if state.b_left else "a")


async def test_an_update_from_safe_mode_that_fails_stays_in_it(
    device: Device, doorman: Doorman, published: Release
) -> None:
    device.store.update(lambda state: replace(state, faults=8))
    device.running = "r"
    await device.start().start()
    doorman.habits.refuse["check"] = (403, "no")
    assert not (await device.update()).ok
    assert device.store.read().faults == 8


async def test_an_update_that_never_came_up_does_not_block_safe_mode(
    device: Device, doorman: Doorman, published: Release
) -> None:
    await device.update()
    device.store.update(lambda state: replace(state, safemode=True))
    device.running = "r"
    manager = device.start()
    await manager.start()
    assert manager.state == "rebooting"
    assert (await device.update()).ok
    assert [report["event"] for report in await waiting(device)] == ["rolled_back"]


async def test_progress_grows_and_bytes_are_counted(device: Device, published: Release) -> None:
    news = await device.news()
    percents = [item.percent for item in news]
    assert percents == sorted(percents)
    assert 0 < news[-1].received_bytes <= sum(map(len, published.streams.values()))
    assert device.manager.received_bytes == news[-1].received_bytes


async def test_a_limited_rate_is_kept(device: Device, published: Release) -> None:
    device.parts_changes["rate_limit_kib_s"] = lambda: 2000
    device.start()
    began = time.monotonic()
    assert (await device.update()).ok
    size = sum(map(len, published.streams.values()))
    assert time.monotonic() - began > size / 2_048_000 * 0.8


async def test_claim_activate_status(device: Device, doorman: Doorman) -> None:
    dms = device.manager.dms
    doorman.claimed = False
    assert not dms.reached
    assert (await dms.status())["claimed"] == "false"
    assert dms.reached
    with pytest.raises(DmsRefusedError) as refused:
        await dms.claim("maker", "wrong")
    assert str(refused.value) == '{"result":"fail","message":"wrong user name or password"}'
    assert await dms.claim("maker", "right") == "device claimed"
    assert await dms.claim(PRODUCT, "right") == "device claimed"
    assert await dms.activate(PRODUCT) == f"product {PRODUCT} activated"
    assert await dms.status() == {
        "claimed": "true", "owner": "maker", "product": PRODUCT, "tag": "release", "time": "2026",
    }  # fmt: skip


async def test_the_target_is_closed_outside_the_event_loop(
    device: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last close of a block device writes back what is in the cache; the watchdog would starve meanwhile."""
    real, closed = os.close, list[bool]()

    def noting(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().name == "rootfs_b":
            closed.append(threading.current_thread() is threading.main_thread())
        real(fd)

    monkeypatch.setattr(os, "close", noting)
    assert (await device.update()).ok
    assert closed
    assert not closed[-1]
