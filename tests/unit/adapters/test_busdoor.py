"""The D-Bus door when things go wrong: with stand-ins for bus and service. `unit/dbus/test_bus.py` has the real ones."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from zentrid.adapters.busdoor import BusDoor, Child

SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")
FAILS = (sys.executable, "-c", "raise SystemExit('no bus today')")


@pytest.fixture(autouse=True)
def blockbuster():
    with blockbuster_ctx("zentrid"):
        yield


@asynccontextmanager
async def running(door: BusDoor) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(door.run())
    try:
        yield task
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert door._children == []


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def knock(path: Path) -> socket.socket:
    """Connect to the door and say nothing."""
    client = socket.socket(socket.AF_UNIX)
    async with asyncio.timeout(10):
        while client.connect_ex(str(path)):
            await asyncio.sleep(0.01)
    return client


@pytest.mark.parametrize("daemon", [FAILS, ("/nonexistent/dbus-daemon",)], ids=["fails", "is not there"])
async def test_a_bus_that_does_not_start_is_tried_again_and_harms_nobody(tmp_path, caplog, daemon):
    path = tmp_path / "bus"
    door = BusDoor(path, daemon=daemon, service=SLEEPS, look_every_s=0.05, pauses_s=(0.02,))
    async with running(door):
        with await knock(path):
            # The same client still waits when it is tried again.
            await until(lambda: len([r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]) >= 2)
    if daemon is FAILS:
        assert "status 1\nno bus today" in caplog.text


async def test_a_place_that_is_taken_is_tried_again(tmp_path, caplog):
    path = tmp_path / "bus"
    path.write_text("somebody's file")
    door = BusDoor(path, daemon=SLEEPS, service=SLEEPS, pauses_s=(0.02,))
    async with running(door):
        await until(lambda: "is no socket" in caplog.text)
        assert path.read_text() == "somebody's file"
        path.unlink()
        with await knock(path):
            await until(lambda: len(door._children) == 2)


async def test_pauses_grow_and_shrink_again_when_it_was_well(tmp_path, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    door = BusDoor(tmp_path / "bus", pauses_s=(1, 5, 60))
    monkeypatch.setattr("zentrid.adapters.busdoor.asyncio.sleep", sleep)
    for _ in range(4):
        await door._pause()
    door._failures = 0
    await door._pause()
    assert slept == [1, 5, 60, 60, 1]


@pytest.mark.parametrize(("connected", "ends"), [(1, True), (2, False)])
async def test_somebody_who_comes_at_the_last_moment_is_not_thrown_out(tmp_path, monkeypatch, connected, ends):
    door = BusDoor(tmp_path / "bus")
    child = await Child.start("bus", SLEEPS, asyncio.subprocess.DEVNULL)
    stat = Path(f"/proc/{child.process.pid}/stat")
    seen = []

    async def count():
        seen.append((await asyncio.to_thread(stat.read_text)).split()[2])
        return connected

    monkeypatch.setattr(door, "_connected", count)
    try:
        assert await door._may_end(child) is ends
        assert seen == ["T"], "it is looked while the bus cannot take anybody"
        if not ends:
            await until(lambda: stat.read_text().split()[2] != "T")
    finally:
        await child.kill()
    assert child.process.returncode == -9


async def test_no_name_of_a_socket_keeps_the_door_from_counting(tmp_path):
    path = tmp_path / "bus"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(path))
        listener.listen()
        client.connect(str(path))
        accepted, _ = listener.accept()
        with accepted, socket.socket(socket.AF_UNIX) as strange:
            strange.bind(b"\0zentri-test-%d-\xff\xfe\n" % os.getpid())
            assert await BusDoor(path)._connected() == 1


async def test_nobody_starts_anything_by_looking(tmp_path):
    path = tmp_path / "bus"
    door = BusDoor(path, daemon=FAILS, service=FAILS)
    async with running(door):
        await until(path.exists)
        assert path.stat().st_mode & 0o777 == 0o660
        await asyncio.sleep(0.05)
        assert door._children == []
