"""Lost connections, killed workers, cancelled updates: what was done once is not done again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Release
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.bundle.patch import PatchHeader
from zentrid.ports import UpdateOptions, UpdateProgress


def stream_of(release: Release) -> tuple[bytes, PatchHeader]:
    stream = release.streams[release.tree.root.hex()]
    return stream, PatchHeader.parse(stream)


async def test_a_connection_cut_in_mid_frame_goes_on_at_that_byte(
    device: Device, doorman: Doorman, published: Release
) -> None:
    stream, header = stream_of(published)
    whole = 2**30
    inside = header.frames[0].compressed_bytes + 1000
    doorman.habits.cuts = [whole] * 7 + [inside]
    assert (await device.update()).ok
    assert device.slot_holds("b", published)
    ranges = [wanted for _, _, wanted in doorman.asked(f"payload/{published.tree.root.hex()}")]
    end = len(stream) - 1
    assert ranges[-2:] == [
        f"bytes={header.frames[0].offset}-{end}",
        f"bytes={header.frames[0].offset + inside}-{end}",
    ]
    assert doorman.payload_bytes == sum(map(len, published.streams.values()))


async def test_twenty_interruptions_cost_no_byte(device: Device, doorman: Doorman, published: Release) -> None:
    device.parts_changes["retries"] = {"most": 3, "first_pause_s": 0.001, "enough_bytes": 1000}
    device.start()
    doorman.habits.cuts = [2**30] * 7 + [100_000] * 20
    assert (await device.update()).ok
    assert len(doorman.asked("payload/")) >= 28
    assert doorman.payload_bytes == sum(map(len, published.streams.values()))


async def test_the_server_restarts_in_mid_download(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.refuse["payload/"] = (503, "starting")
    calls = 0

    def after_two() -> bool:
        nonlocal calls
        calls += 1
        return calls > 2

    doorman.habits.recovers = after_two
    assert (await device.update()).ok


@pytest.fixture
def process_device(device: Device) -> Device:
    """The same device with real worker processes."""
    device.launcher = SubprocessLauncher()
    device.start()
    return device


async def test_with_a_real_process(process_device: Device, published: Release) -> None:
    last = await process_device.update()
    assert last.ok, last.message
    assert process_device.slot_holds("b", published)


async def run_until(device: Device, condition: Callable[[UpdateProgress], bool]) -> list[UpdateProgress]:
    """Start an update; stop following it, which stops the worker, as soon as `condition` holds."""
    news = []
    updates = device.manager.run(UpdateOptions())
    async for item in updates:
        news.append(item)
        if condition(item):
            await updates.aclose()  # type: ignore[attr-defined]
            break
    return news


async def test_killed_in_mid_install_fetches_only_what_is_missing(
    process_device: Device, doorman: Doorman, published: Release
) -> None:
    stream, header = stream_of(published)
    # Two frames arrive, then the server stands still; the worker is killed there.
    doorman.habits.cuts = [2**30] * 7 + [sum(frame.compressed_bytes for frame in header.frames[:2])]
    standing = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stand_still() -> None:
        if not doorman.habits.cuts:
            loop.call_soon_threadsafe(standing.set)
            doorman.hold.wait(20)

    doorman.habits.before_payload = stand_still
    task = asyncio.create_task(process_device.update())
    async with asyncio.timeout(20):
        await standing.wait()
    run = process_device.manager._attempt._worker
    assert run is not None
    run.stop()
    last = await task
    doorman.hold.set()
    assert (last.ok, last.result) == (False, 3)
    assert process_device.store.read().b_left == 0
    doorman.habits.before_payload = lambda: None
    asked_before = len(doorman.asked("payload/"))
    process_device.start()
    await process_device.manager.start()
    assert (await process_device.update()).ok
    assert process_device.slot_holds("b", published)
    ranges = [wanted for _, _, wanted in doorman.asked("payload/")[asked_before:]]
    assert ranges[-1] == f"bytes={header.frames[2].offset}-{len(stream) - 1}"
    assert len(ranges) == 7  # three for each header, and the one frame that was missing


async def test_cancel_in_mid_download(process_device: Device, doorman: Doorman, published: Release) -> None:
    loop, downloading = asyncio.get_running_loop(), asyncio.Event()

    def stand_still() -> None:
        loop.call_soon_threadsafe(downloading.set)
        doorman.hold.wait(20)

    doorman.habits.before_payload = stand_still
    task = asyncio.create_task(process_device.update())
    async with asyncio.timeout(20):
        await downloading.wait()
    assert await process_device.manager.cancel()
    last = await task
    doorman.hold.set()
    assert (last.ok, last.message) == (False, "the update was cancelled; nothing was activated")
    assert process_device.manager.state == "idle"
    assert process_device.store.read().b_left == 0
    assert [report["event"] for report in await waiting(process_device)] == ["cancelled"]
    assert not await process_device.manager.cancel()
    doorman.habits.before_payload = lambda: None
    assert (await process_device.update()).ok


async def test_cancel_while_the_server_thinks(process_device: Device, doorman: Doorman, published: Release) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    doorman.habits.before_check = lambda: (loop.call_soon_threadsafe(asked.set), doorman.hold.wait(20))
    before = process_device.store.read()
    task = asyncio.create_task(process_device.update())
    async with asyncio.timeout(20):
        await asked.wait()
    assert await process_device.manager.cancel()
    last = await task
    doorman.hold.set()
    assert last.message == "the update was cancelled; nothing was activated"
    assert process_device.store.read() == before


async def test_nobody_follows_any_more(process_device: Device, published: Release) -> None:
    """The supervisor ends: so does the worker, and the next start settles the rest."""
    await run_until(process_device, lambda item: item.state == "downloading")
    assert process_device.manager.state in ("downloading", "verifying")
    manager = process_device.start()
    await manager.start()
    assert manager.state == "idle"
    [report] = await waiting(process_device)
    assert (report["event"], report["reason"]) == ("failed", "interrupted")
    assert (await process_device.update()).ok


async def test_nobody_follows_before_anything_began(process_device: Device, published: Release) -> None:
    await run_until(process_device, lambda item: item.state == "checking")
    assert process_device.manager.state == "idle"
    assert (await process_device.update()).ok
