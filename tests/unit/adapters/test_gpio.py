"""The button's watch on a library that stands for libgpiod: real descriptors, real event loop, lines of this test."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from blockbuster import blockbuster_ctx

from zentrid.adapters import gpio
from zentrid.adapters.gpio import ButtonWatch
from zentrid.core import button
from zentrid.core.names import GPIO_FACTORY_RESET, GPIO_LED

HOLD_S = 0.6


class Value(Enum):
    """Levels."""

    INACTIVE = 0
    ACTIVE = 1


class Kind(Enum):
    """Edges."""

    RISING_EDGE = 1
    FALLING_EDGE = 2


class Event(SimpleNamespace):
    """An edge."""

    Type = Kind


class Request:
    """A line that was taken."""

    def __init__(self, library: Library, offset: int) -> None:
        self.library = library
        self.offset = offset
        self.events: list[Event] = []
        self.fd, self._poke = os.pipe()
        self._pokes = 0

    def edge(self, *, high: bool, at_s: float | None = None, noticed: bool = True) -> None:
        """Let an edge come; not `noticed`: the event loop has not looked yet."""
        self.library.levels[self.offset] = Value.ACTIVE if high else Value.INACTIVE
        kind = Kind.RISING_EDGE if high else Kind.FALLING_EDGE
        at_s = time.monotonic() if at_s is None else at_s
        self.events.append(Event(event_type=kind, timestamp_ns=int(at_s * 1e9)))
        if noticed:
            os.write(self._poke, b"!")
            self._pokes += 1

    def get_value(self, line: int) -> Value:
        return self.library.levels[line]

    def set_value(self, line: int, value: Value) -> None:
        self.library.levels[line] = value
        self.library.shown.append(value is Value.ACTIVE)

    def wait_edge_events(self, timeout: float) -> bool:
        assert timeout == 0, "the event loop must not wait"
        return bool(self.events)

    def read_edge_events(self) -> list[Event]:
        if self.library.lost:
            raise OSError(errno.ENODEV, "No such device")
        events, self.events = self.events, []
        if self._pokes:
            os.read(self.fd, self._pokes)
            self._pokes = 0
        return events

    def release(self) -> None:
        del self.library.taken[self.offset]
        os.close(self.fd)
        os.close(self._poke)


class Library:
    """What the watch uses of libgpiod."""

    line = SimpleNamespace(
        Direction=SimpleNamespace(INPUT="in", OUTPUT="out"), Edge=SimpleNamespace(BOTH="both"),
        Clock=SimpleNamespace(MONOTONIC="mono"), Value=Value,
    )  # fmt: skip
    LineSettings = SimpleNamespace

    def __init__(self) -> None:
        self.levels = {GPIO_FACTORY_RESET: Value.INACTIVE, GPIO_LED: Value.INACTIVE}
        self.taken: dict[int, Request] = {}
        self.shown: list[bool] = []
        self.busy: set[int] = set()
        self.asked = 0
        self.lost = False
        self.in_turn: threading.Lock | None = None
        """Lines are asked for only while this is held."""

    def request_lines(self, chip: str, *, consumer: str, config: dict[int, Any], event_buffer_size: int = 0) -> Request:
        """Give a line, or say that it is taken."""
        self.asked += 1
        if self.in_turn is not None:
            assert self.in_turn.locked(), "whoever reads a line meanwhile would have taken it"
        [offset] = config
        if offset in self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.taken[offset] = Request(self, offset)
        return self.taken[offset]

    @property
    def button(self) -> Request:
        return self.taken[GPIO_FACTORY_RESET]

    @property
    def lit(self) -> bool:
        return self.levels[GPIO_LED] is Value.ACTIVE


class Scene:
    """A watch that runs."""

    def __init__(self, *busy: int) -> None:
        self.library = Library()
        self.library.busy = set(busy)
        self.resets = 0
        self.error: Exception | None = None
        self.watch = ButtonWatch("/dev/gpiochip0", self._reset, gpiod=cast(ModuleType, self.library))
        self.library.in_turn = self.watch.lock
        self.task = asyncio.create_task(self.watch.run())

    async def _reset(self) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.resets += 1

    async def until(self, holds: Callable[[], bool], limit_s: float = 5.0) -> None:
        async with asyncio.timeout(limit_s):
            while not holds():
                await asyncio.sleep(0.01)

    async def taken(self) -> None:
        await self.until(lambda: len(self.library.taken) == 2)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(button, "HOLD_S", HOLD_S)
    monkeypatch.setattr(gpio, "BLINK_S", 0.05)
    monkeypatch.setattr(gpio, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(gpio, "MAX_RETRY_S", 0.05)
    with blockbuster_ctx("zentrid") as active:
        active.functions["os.read"].deactivate()  # the pipe that stands for the line's descriptor
        yield


@pytest.fixture
async def scene() -> Any:
    one = Scene()
    yield one
    await one.end()
    assert not one.library.taken, "the lines are given back"


async def test_held_it_blinks_and_then_stays_lit(scene: Scene) -> None:
    await scene.taken()
    assert not scene.library.lit
    scene.library.button.edge(high=True)
    await scene.until(lambda: scene.resets == 1)
    blinks = scene.library.shown
    assert sum(a != b for a, b in pairwise(blinks)) >= 4, "it blinks"
    await asyncio.sleep(0.2)
    assert scene.resets == 1
    await scene.end()
    assert scene.library.lit, "lit until the board is down, also when this program has ended"


async def test_let_go_early_nothing_happens(scene: Scene) -> None:
    await scene.taken()
    scene.library.button.edge(high=True)
    await scene.until(lambda: scene.library.lit)
    scene.library.button.edge(high=False)
    await asyncio.sleep(HOLD_S + 0.3)
    assert scene.resets == 0
    assert not scene.library.lit


async def test_a_lamp_that_somebody_lit_blinks_for_the_button_and_is_lit_again(scene: Scene) -> None:
    await scene.taken()
    scene.watch.rests_lit = True
    assert set(scene.watch.held) == {GPIO_FACTORY_RESET, GPIO_LED}
    scene.library.button.edge(high=True)
    await scene.until(lambda: not scene.library.lit)
    scene.library.button.edge(high=False)
    await scene.until(lambda: scene.library.lit)
    await asyncio.sleep(0.2)
    assert (scene.library.lit, scene.resets) == (True, 0)
    await scene.end()
    assert scene.watch.held == {}, "nobody reads a line that was given back"


async def test_a_button_that_is_down_from_the_start_is_ignored(scene: Scene) -> None:
    scene.library.levels[GPIO_FACTORY_RESET] = Value.ACTIVE
    await scene.taken()
    await asyncio.sleep(HOLD_S + 0.2)
    assert (scene.resets, scene.library.lit) == (0, False)
    scene.library.button.edge(high=False)
    await asyncio.sleep(0.05)
    scene.library.button.edge(high=True)
    await scene.until(lambda: scene.resets == 1)


async def test_a_program_that_was_stopped_judges_edges_by_their_own_time(scene: Scene) -> None:
    await scene.taken()
    scene.library.button.edge(high=True)
    await scene.until(lambda: scene.library.lit)
    time.sleep(HOLD_S + 0.2)  # as if the process had been stopped; the button was let go at once
    scene.library.button.edge(high=False, at_s=time.monotonic() - HOLD_S - 0.1)
    await asyncio.sleep(0.2)
    assert scene.resets == 0
    now_s = time.monotonic()
    scene.library.button.edge(high=True, at_s=now_s - HOLD_S - 0.1)
    scene.library.button.edge(high=False, at_s=now_s)
    await scene.until(lambda: scene.resets == 1)


async def test_a_release_that_waits_to_be_read_is_not_taken_for_a_lost_one(scene: Scene) -> None:
    await scene.taken()
    begin_s = time.monotonic() - HOLD_S + 0.3
    scene.library.button.edge(high=True, at_s=begin_s)
    await scene.until(lambda: scene.library.lit)
    scene.library.button.edge(high=False, at_s=begin_s + HOLD_S + 0.01, noticed=False)
    await scene.until(lambda: scene.resets == 1)


async def test_a_reset_that_could_not_be_asked_for_is_heard_the_next_time(scene: Scene) -> None:
    await scene.taken()
    scene.error = OSError("the boot state could not be written")
    scene.library.button.edge(high=True)
    await asyncio.sleep(HOLD_S + 0.3)
    assert (scene.resets, scene.library.lit) == (0, False)
    scene.error = None
    scene.library.button.edge(high=False)
    await asyncio.sleep(0.05)
    scene.library.button.edge(high=True)
    await scene.until(lambda: scene.resets == 1)


async def test_a_line_that_is_taken_is_tried_again() -> None:
    scene = Scene(GPIO_FACTORY_RESET)
    await scene.until(lambda: scene.library.asked > 3)
    assert not scene.task.done()
    scene.library.busy = set()
    await scene.taken()
    await scene.end()


async def test_without_a_lamp_the_button_is_heard() -> None:
    scene = Scene(GPIO_LED)
    await scene.until(lambda: GPIO_FACTORY_RESET in scene.library.taken)
    scene.library.button.edge(high=True)
    await scene.until(lambda: scene.resets == 1)
    await scene.end()
    assert not scene.library.shown


async def test_a_line_that_is_lost_is_taken_again(scene: Scene) -> None:
    await scene.taken()
    first = scene.library.button
    scene.library.lost = True
    first.edge(high=True)
    await scene.until(lambda: scene.library.taken.get(GPIO_FACTORY_RESET) is not first)
    scene.library.lost = False
    await scene.taken()
    assert scene.resets == 0


async def test_a_device_without_the_library_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    task = asyncio.create_task(ButtonWatch("/dev/none", lambda: asyncio.sleep(0)).run())
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
