"""Files whose download is interrupted: what has arrived is not fetched again, and nothing of it stays for good."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs
from tests.support.items import Payload, add, device_with, file
from zentrid.adapters.items import ItemFolder
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.bundle.tree import BLOCK_BYTES
from zentrid.core.items import RESERVE_BYTES

SIZE_BYTES = 16_000_000
"""Sixteen frames; some of what was sent is on its way when the worker dies."""
Offer = Callable[[str, list[Payload]], Release]


@pytest.fixture(scope="module")
def base_release() -> Release:
    return make_release("1.0.0", make_rootfs(5, blocks=210))


@pytest.fixture
async def scene(tmp_path: Path, fleet: Fleet, doorman: Doorman, base_release: Release) -> Device:
    device = await device_with(base_release, tmp_path / "device", fleet, doorman)
    device.launcher = SubprocessLauncher()
    await device.boot().start()
    await device.manager.on_healthy()
    return device


@pytest.fixture
def offer(fleet: Fleet, doorman: Doorman) -> Offer:
    def offer(version: str, payloads: list[Payload]) -> Release:
        release = add(None, version, payloads)
        fleet.publish(release)
        doorman.offer = version
        return release

    return offer


async def kill_late(device: Device) -> None:
    """Let the worker die when three quarters of the payload have been sent."""
    loop, killed = asyncio.get_running_loop(), asyncio.Event()
    doorman = device.doorman

    def kill() -> None:
        run = device.manager._attempt._worker
        assert run is not None
        run.stop()
        killed.set()

    def after_piece(_size: int) -> None:
        if doorman.payload_bytes >= SIZE_BYTES * 3 // 4 and not killed.is_set():
            loop.call_soon_threadsafe(kill)
            doorman.hold.wait(0.5)

    doorman.habits.after_piece = after_piece
    last = await device.update()
    doorman.habits.after_piece = lambda _size: None
    assert killed.is_set()
    assert not last.ok


def incoming(device: Device) -> list[Path]:
    folder = device.folder / "data/items/incoming"
    return sorted(folder.iterdir()) if folder.exists() else []


async def test_what_has_arrived_is_not_fetched_again(scene: Device, offer: Offer) -> None:
    content = os.urandom(SIZE_BYTES)
    offer("1.0.1", [file("big", content)])
    await kill_late(scene)
    before = scene.doorman.payload_bytes
    # Twice: the second start finds nothing to settle, and must not tidy away what the update goes on with.
    for _ in range(2):
        await scene.boot().start()
        await scene.manager.on_healthy()
    [payload] = incoming(scene)
    there = payload.read_bytes()
    there_bytes = sum(
        BLOCK_BYTES for at in range(0, SIZE_BYTES, BLOCK_BYTES) if there.startswith(content[at : at + BLOCK_BYTES], at)
    )
    assert there_bytes > SIZE_BYTES // 5
    last = await scene.update()
    assert last.ok, last.message
    assert (ItemFolder(scene.folder / "data/items").files("a") / "big").read_bytes() == content
    again = scene.doorman.payload_bytes - before
    assert again < (SIZE_BYTES - there_bytes) * 1.02, "nothing comes twice"
    assert not incoming(scene)


async def test_another_release_takes_nothing_of_it_along(scene: Device, offer: Offer) -> None:
    offer("1.0.1", [file("big", os.urandom(SIZE_BYTES))])
    await kill_late(scene)
    assert len(incoming(scene)) == 1
    offer("1.0.2", [file("small", b"new")])
    assert (await scene.update()).ok
    assert not incoming(scene)
    assert not (ItemFolder(scene.folder / "data/items").files("a") / "big").exists()


async def test_a_damaged_piece_of_it_is_fetched_again(scene: Device, offer: Offer) -> None:
    content = os.urandom(SIZE_BYTES)
    offer("1.0.1", [file("big", content)])
    await kill_late(scene)
    [payload] = incoming(scene)
    with payload.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"rot")
    last = await scene.update()
    assert last.ok, last.message
    assert (ItemFolder(scene.folder / "data/items").files("a") / "big").read_bytes() == content


async def test_what_is_there_needs_no_room_again(scene: Device, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room for half of the payload, which is there already."""
    offer("1.0.1", [file("big", os.urandom(SIZE_BYTES))])
    await kill_late(scene)
    real = os.statvfs

    def nearly_full(path: str | Path) -> os.statvfs_result:
        found = list(real(path))
        found[4] = (RESERVE_BYTES + SIZE_BYTES // 2) // found[1]  # free blocks for us
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    last = await scene.update()
    assert last.ok, last.message
    offer("1.0.2", [file("another", os.urandom(SIZE_BYTES))])
    last = await scene.update()
    assert (last.ok, last.reason) == (False, "low_space")


def test_only_payloads_that_are_wanted_stay(tmp_path: Path) -> None:
    folder = ItemFolder(tmp_path / "items")
    top = folder.make_incoming()
    folder.payload("wanted").write_bytes(b"1")
    folder.payload("other").write_bytes(b"2")
    (top / "wanted").mkdir()
    (top / "wanted" / "x").write_bytes(b"3")
    folder.payload("link").symlink_to("/etc/passwd")
    folder.payload("folder").mkdir()
    folder.make_incoming({"wanted", "link", "folder"})
    assert [path.name for path in sorted(top.iterdir())] == ["wanted.payload"]
    assert Path("/etc/passwd").exists()
    folder.collect(keep_previous=False)
    assert not top.exists()
