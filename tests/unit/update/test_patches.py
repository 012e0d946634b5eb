"""An update by patch moves little, never starts over, and never needs what is damaged."""

from __future__ import annotations

import asyncio
import random
import re

import pytest

from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, patch_between
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.bundle.patch import PatchHeader


def offer_patch(doorman: Doorman, old: Release, new: Release) -> bytes:
    stream = patch_between(old, new)
    doorman.habits.by_base[old.tree.root.hex()] = {new.tree.root.hex(): stream}
    return stream


def rootfs_requests(doorman: Doorman, release: Release) -> list[tuple[str, str]]:
    """(base, range) of each request for the release's root file system."""
    asked = doorman.asked(f"payload/{release.tree.root.hex()}")
    return [(path.partition("base=")[2][:8], wanted) for _, path, wanted in asked]


def kernel_bytes(release: Release) -> int:
    return sum(len(stream) for root, stream in release.streams.items() if root != release.tree.root.hex())


async def test_a_patch_is_all_that_is_fetched(
    device: Device, doorman: Doorman, published: Release, old: Release
) -> None:
    stream = offer_patch(doorman, old, published)
    assert (await device.update()).ok
    assert device.slot_holds("b", published)
    assert doorman.payload_bytes == len(stream) + kernel_bytes(published)
    assert {base for base, _ in rootfs_requests(doorman, published)} == {old.tree.root.hex()[:8]}
    assert not (device.folder / "data/ota").exists()


async def test_in_safe_mode_its_own_system_is_the_base(
    device: Device, doorman: Doorman, published: Release, old: Release
) -> None:
    stream = offer_patch(doorman, old, published)
    device.store.update(lambda state: state.__class__(floor=state.floor, a_left=0, b_left=0))
    device.boot()
    assert device.running == "r"
    assert (await device.update()).ok
    assert doorman.payload_bytes == len(stream) + kernel_bytes(published)


async def test_a_damaged_block_of_the_base_costs_bytes_only(
    device: Device, doorman: Doorman, published: Release, old: Release
) -> None:
    """Both as a block to copy and as part of a dictionary; the running slot and the safe-mode system have the same rot."""
    offer_patch(doorman, old, published)
    changed = next(n for n in range(700) if old.tree.leaf(n) != published.tree.leaf(n))
    same = next(n for n in range(700) if old.tree.leaf(n) == published.tree.leaf(n))
    for label in ("rootfs_a", "rootfs_r"):
        with device.part(label).open("r+b") as file:
            for block in (changed, same):
                file.seek(block * 4096 + 100)
                file.write(b"rot")
    last = await device.update()
    assert last.ok, last.message
    assert device.slot_holds("b", published)
    assert "none" in {base for base, _ in rootfs_requests(doorman, published)}


@pytest.mark.parametrize("part", ["target root", "leaves", "first frame"])
async def test_a_patch_that_is_no_good_costs_bytes_only(
    device: Device, doorman: Doorman, published: Release, old: Release, part: str
) -> None:
    """Nobody vouches for a patch, so nobody may end an update by one; and what was wrong is not kept for the next time."""
    stream = bytearray(offer_patch(doorman, old, published))
    header = PatchHeader.parse(bytes(stream))
    stream[
        {"target root": 50, "leaves": header.leaf_offset + 40, "first frame": header.frames[0].offset + 40}[part]
    ] ^= 1
    doorman.habits.by_base[old.tree.root.hex()][published.tree.root.hex()] = bytes(stream)
    last = await device.update()
    assert last.ok, last.message
    assert device.slot_holds("b", published)
    assert "none" in {base for base, _ in rootfs_requests(doorman, published)}


async def test_the_server_prepares_the_patch(
    device: Device, doorman: Doorman, published: Release, old: Release
) -> None:
    stream = offer_patch(doorman, old, published)
    doorman.habits.busy = [0, 0, 0]
    news = await device.news()
    assert news[-1].ok
    assert "the server prepares the update" in [item.message for item in news]
    assert doorman.payload_bytes == len(stream) + kernel_bytes(published)


async def test_patience_with_a_patch_that_never_comes_ends(
    device: Device, doorman: Doorman, published: Release, old: Release
) -> None:
    offer_patch(doorman, old, published)
    doorman.habits.busy = [1] * 1000
    device.parts_changes["retries"] = {"patience_s": 0.3, "first_pause_s": 0.001}
    device.start()
    assert (await device.update()).ok
    assert device.slot_holds("b", published)
    assert doorman.payload_bytes == sum(map(len, published.streams.values()))
    assert len(doorman.habits.busy) > 990


async def test_a_patch_that_was_made_anew_starts_again_and_keeps_the_blocks(
    device: Device, doorman: Doorman, published: Release, old: Release
) -> None:
    """The server gave the patch up in mid-download and has the full payload under its name: another ETag."""
    first = offer_patch(doorman, old, published)
    header = PatchHeader.parse(first)
    root = published.tree.root.hex()

    def other_frames() -> None:
        if doorman.habits.cuts == [] and doorman.habits.by_base[old.tree.root.hex()][root] is first:
            doorman.habits.by_base[old.tree.root.hex()][root] = other

    other = published.streams[root]
    in_third = header.frames[2].offset - header.frames[0].offset + 100
    kernel_requests = 4
    doorman.habits.cuts = [2**30] * (kernel_requests + 3) + [in_third]
    doorman.habits.before_payload = other_frames
    last = await device.update()
    assert last.ok, last.message
    assert device.slot_holds("b", published)
    assert doorman.habits.by_base[old.tree.root.hex()][root] is other
    # Bytes of the two streams were not mixed: that would have ended in asking for the full payload by its own name.
    assert {base for base, _ in rootfs_requests(doorman, published)} == {old.tree.root.hex()[:8]}


async def test_a_release_published_meanwhile_uses_what_the_interrupted_one_brought(
    device: Device, doorman: Doorman, fleet: Fleet, published: Release
) -> None:
    """1.1.0 breaks off nearly at its end; 1.2.0 has its blocks, most of them at other places."""
    root = published.tree.root.hex()
    doorman.habits.tamper = lambda path, data: data[:-50_000] + bytes(50_000) if root in path else data
    assert not (await device.update()).ok
    doorman.habits.tamper = lambda _path, data: data
    shifted = random.Random(77).randbytes(3 * 4096) + published.rootfs
    newer = make_release("1.2.0", shifted)
    fleet.publish(newer)
    device.known[newer.version] = newer
    doorman.offer = newer.version
    before = doorman.payload_bytes
    device.start()
    last = await device.update()
    assert last.ok, last.message
    assert device.slot_holds("b", newer)
    fetched = doorman.payload_bytes - before - kernel_bytes(newer)
    header = PatchHeader.parse(newer.streams[newer.tree.root.hex()])
    first_and_last = header.frames[0].compressed_bytes + header.frames[-1].compressed_bytes
    assert fetched <= first_and_last + header.frames[0].offset + 1


async def test_twenty_kills_cost_two_percent_at_most(device: Device, doorman: Doorman, published: Release) -> None:
    """Real processes, killed in the middle of a frame, again and again; nothing is fetched a second time."""
    device.launcher = SubprocessLauncher()
    device.start()
    whole = sum(map(len, published.streams.values()))
    step = 150_000
    for _ in range(20):
        stop = asyncio.Event()
        sent = 0
        loop = asyncio.get_running_loop()

        def stand_still(size: int) -> None:
            nonlocal sent
            sent += size
            if sent >= step:
                loop.call_soon_threadsafe(stop.set)  # noqa: B023
                doorman.hold.wait(20)

        doorman.hold.clear()
        doorman.habits.after_piece = stand_still
        task = asyncio.create_task(device.update())
        waits = asyncio.create_task(stop.wait())
        await asyncio.wait({task, waits}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if task.done():
            break
        # What was sent has arrived when the worker waits for more.
        await asyncio.sleep(0.3)
        run = device.manager._attempt._worker
        assert run is not None
        run.stop()
        await task
        doorman.hold.set()
        device.start()
    doorman.habits.after_piece = lambda _size: None
    doorman.hold.set()
    if not task.result().ok:
        device.start()
        assert (await device.update()).ok
    assert device.slot_holds("b", published)
    assert doorman.payload_bytes <= whole * 1.02, (doorman.payload_bytes, whole)


async def test_the_budget_ends_an_update_and_the_next_one_goes_on(
    device: Device, doorman: Doorman, published: Release
) -> None:
    whole = sum(map(len, published.streams.values()))
    budget = [whole // 2]
    device.parts_changes["budget_bytes"] = lambda: budget[0]
    device.start()
    last = await device.update()
    assert not last.ok
    received = received_by(last.message)
    assert budget[0] < received <= budget[0] + 64 * 1024
    # What was received counts again: a little more, and the next run ends too.
    assert received < received_by((await device.update()).message) <= received + 64 * 1024
    budget[0] = 2 * whole
    assert (await device.update()).ok
    assert device.slot_holds("b", published)
    assert device.manager.received_bytes <= whole - received


def received_by(message: str) -> int:
    found = re.match(r"the update has received (\d+) bytes, the budget is", message)
    assert found, message
    return int(found[1])


async def test_damaged_leftovers_are_fetched_again(device: Device, doorman: Doorman, published: Release) -> None:
    """Whatever a power cut made of the files beside the journal."""
    doorman.habits.cuts = [2**30] * 7 + [400_000] + [0] * 6
    assert not (await device.update()).ok
    folder = device.folder / "data/ota"
    assert {path.suffix for path in folder.iterdir()} == {"", ".head", ".frame"}
    doorman.habits.cuts = []
    for path in folder.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert (await device.update()).ok
    assert device.slot_holds("b", published)
