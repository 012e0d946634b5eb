"""Events: what is told of an update, the queue of a follower, the bus, and what the server hears in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Release
from zentrid.core.events import (
    Backlog,
    BootGood,
    DeviceEvent,
    FaultRecorded,
    SlotChanged,
    Steps,
    UpdateAdvanced,
    UpdateChanged,
)
from zentrid.eventbus import MAX_FOLLOWERS, EventBus, FollowerTooSlowError, TooManyFollowersError


@pytest.fixture
def told(device: Device) -> list[DeviceEvent]:
    told: list[DeviceEvent] = []
    device.parts_changes = {"tell": told.append}
    device.boot()
    return told


def changes(told: Sequence[DeviceEvent]) -> list[tuple[str, str, str, str]]:
    return [(e.before, e.state, e.version, e.outcome) for e in told if isinstance(e, UpdateChanged)]


async def test_every_change_of_an_update_is_told_once(
    device: Device, told: list[DeviceEvent], published: Release
) -> None:
    await device.manager.start()
    await device.update()
    await device.boot().start()
    await device.manager.on_healthy()
    assert changes(told) == [
        ("idle", "checking", "", ""),
        ("checking", "downloading", "1.1.0", ""),
        ("downloading", "verifying", "1.1.0", ""),
        ("verifying", "activating", "1.1.0", ""),
        ("activating", "rebooting", "1.1.0", ""),
        ("rebooting", "confirming", "1.1.0", ""),
        ("confirming", "idle", "1.1.0", "installed"),
    ]
    slots = [(e.slot, e.change, e.version) for e in told if isinstance(e, SlotChanged)]
    assert slots == [("b", "emptied", ""), ("b", "activated", "1.1.0")]
    assert [e for e in told if isinstance(e, BootGood)] == [BootGood("b", "1.1.0")]
    steps = [(e.state, e.percent // 10) for e in told if isinstance(e, UpdateAdvanced)]
    assert len(steps) == len(set(steps)) >= 2, "each tenth once"


async def test_outcomes_are_told_with_their_reason(
    device: Device, told: list[DeviceEvent], doorman: Doorman, published: Release
) -> None:
    doorman.habits.tamper = lambda path, data: bytes(len(data)) if path.startswith("payload/") else data
    await device.update()
    last = [event for event in told if isinstance(event, UpdateChanged)][-1]
    assert (last.before, last.state, last.outcome, last.reason) == ("downloading", "idle", "failed", "bad_payload")
    assert last.sentence() == "update: downloading -> idle, release 1.1.0, failed (bad_payload)"
    assert last.to_json() == {
        "event": "update", "before": "downloading", "state": "idle", "version": "1.1.0", "outcome": "failed",
        "reason": "bad_payload",
    }  # fmt: skip


async def test_a_rollback_is_told(device: Device, told: list[DeviceEvent], published: Release) -> None:
    await device.update()
    for _ in range(4):
        await device.boot().start()
    assert changes(told)[-1] == ("confirming", "idle", "1.1.0", "rolled_back")


async def test_the_server_hears_of_the_steps_in_between(device: Device, doorman: Doorman, published: Release) -> None:
    device.parts_changes = {"report_progress": True}
    await device.boot().start()
    await device.update()
    assert [(r["event"], r["reason"], r["to"]) for r in doorman.reports] == [("progress", "downloading", "1.1.0")]
    assert [(r["event"], r["reason"]) for r in await waiting(device)] == [("progress", "activated")]
    await device.boot().start()
    await device.manager.on_healthy()
    await device.manager.dms.deliver()
    assert [(r["event"], r["reason"]) for r in doorman.reports] == [
        ("progress", "downloading"), ("progress", "activated"), ("installed", None),
    ]  # fmt: skip
    assert len({r["id"] for r in doorman.reports}) == 3


@pytest.mark.parametrize("status", [400, 503])
async def test_a_server_that_does_not_want_them_stops_nothing(
    device: Device, doorman: Doorman, published: Release, status: int
) -> None:
    device.parts_changes = {"report_progress": True}
    await device.boot().start()
    doorman.habits.refuse = {"report": (status, "no such event")}
    assert (await device.update()).ok


# --- a follower's queue -------------------------------------------------------------------------------------------------------
def progress(percent: int) -> UpdateAdvanced:
    return UpdateAdvanced("downloading", "1.1.0", percent, 0)


def change(number: int) -> UpdateChanged:
    return UpdateChanged("idle", "checking", str(number))


def drained(backlog: Backlog) -> list[DeviceEvent]:
    found = []
    while (event := backlog.take()) is not None:
        found.append(event)
    return found


def test_a_slow_follower_loses_progress_but_no_change_of_state() -> None:
    backlog = Backlog(progress_kept=4, changes_kept=100)
    for number in range(50):
        backlog.put(progress(number))
        backlog.put(change(number))
    events = drained(backlog)
    assert [event for event in events if isinstance(event, UpdateChanged)] == [change(number) for number in range(50)]
    assert [event for event in events if event.progress] == [progress(number) for number in range(46, 50)]
    assert not backlog.overrun


def test_one_that_never_reads_is_told_so_and_takes_no_memory() -> None:
    backlog = Backlog(progress_kept=4, changes_kept=10)
    for number in range(10_000):
        backlog.put(progress(number))
        backlog.put(change(number))
    assert backlog.overrun
    events = drained(backlog)
    assert [event for event in events if not event.progress] == [change(number) for number in range(10)]
    assert len(events) <= 14


def test_a_step_is_a_tenth_or_another_state() -> None:
    steps = Steps()
    seen = [("downloading", p) for p in range(91)] + [("verifying", p) for p in range(90, 101)]
    assert [step for step in seen if steps.is_new(*step)] == [
        *[("downloading", p) for p in range(0, 91, 10)], ("verifying", 90), ("verifying", 100),
    ]  # fmt: skip


# --- the bus ------------------------------------------------------------------------------------------------------------------
async def test_followers_get_everything_from_when_they_began_also_from_other_threads() -> None:
    bus = EventBus()
    bus.attach()
    bus.tell(change(0))
    follower = bus.follow()
    events = follower.events()
    bus.tell(change(1))
    thread = threading.Thread(target=lambda: bus.tell(FaultRecorded("panic", "x")))
    thread.start()
    thread.join()
    assert [await anext(events), await anext(events)] == [change(1), FaultRecorded("panic", "x")]
    waits = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    assert not waits.done()
    bus.tell(change(2))
    assert await waits == change(2)
    follower.close()
    follower.close()
    bus.tell(change(3))
    assert len(follower._backlog) == 0


async def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    heard: list[Any] = []

    def broken(_event: DeviceEvent) -> None:
        raise RuntimeError("a mistake")

    bus.listen(broken)
    bus.listen(heard.append)
    bus.tell(change(1))
    assert heard == [change(1)]
    assert "a listener failed" in caplog.text


async def test_one_that_is_too_slow_is_told() -> None:
    bus = EventBus()
    follower = bus.follow()
    for number in range(1000):
        bus.tell(change(number))
    with pytest.raises(FollowerTooSlowError):
        async for _ in follower.events():
            pass


async def test_there_is_a_limit_to_followers() -> None:
    bus = EventBus()
    followers = [bus.follow() for _ in range(MAX_FOLLOWERS)]
    with pytest.raises(TooManyFollowersError):
        bus.follow()
    followers[0].close()
    bus.follow()
