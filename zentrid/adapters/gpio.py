"""The factory-reset button and the lamp, through the GPIO character device (libgpiod 2)."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Final, Protocol

from zentrid.core.button import Button, Seen
from zentrid.core.names import GPIO_FACTORY_RESET, GPIO_LED

log = logging.getLogger(__name__)

CONSUMER: Final = "zentrid"
BLINK_S: Final = 0.25
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
_EVENTS: Final = 64
"""Edges that the kernel keeps for us; more come only from a contact that rings while nobody reads."""


class Line(Protocol):
    """A requested line, as libgpiod gives it. Everything may raise OSError."""

    @property
    def fd(self) -> int:
        """Readable when there are edges."""

    def get_value(self, line: int) -> object:
        """Return the library's word for the level now."""

    def set_value(self, line: int, value: object) -> None:
        """Drive the line."""

    def wait_edge_events(self, timeout: float) -> bool:
        """Tell whether there are edges within so many seconds."""

    def read_edge_events(self) -> list[Any]:
        """Return the edges that wait."""

    def release(self) -> None:
        """Give the line back."""


class ButtonWatch:
    """Holds the button's line as long as it runs, so that nothing else can take it, and acts when the button is held."""

    def __init__(
        self,
        chip: str,
        on_reset: Callable[[], Awaitable[None]],
        *,
        gpiod: ModuleType | None = None,
        button: Callable[[], Button] = Button,
    ) -> None:
        """`chip`: path of the GPIO chip. `on_reset`: called once for each long press; may raise, which is logged.

        `gpiod`: the library; None: the board's own.
        """
        self._chip = chip
        self._on_reset = on_reset
        self._gpiod = gpiod
        self._new_button = button
        self.held: dict[int, Line] = {}
        """The lines that are held now, for whoever only reads them; to be looked at under `lock`."""
        self.lock = threading.Lock()
        self.rests_lit = False
        """The lamp is lit while the button asks for nothing, because somebody wants it so."""

    async def run(self) -> None:
        """Watch until cancelled. A chip or line that cannot be had is tried again, more and more slowly."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                with self._lines() as (line, lamp):
                    delay_s = FIRST_RETRY_S
                    await _Watch(line, lamp, self._new_button(), self._on_reset).run()
            except Exception as error:  # a device that cannot hear its button runs all the same
                log.error("the button cannot be watched, trying again in %d s: %r", delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_RETRY_S)

    @contextmanager
    def _lines(self) -> Iterator[tuple[Line, _Lamp]]:
        """Take the button's line, and the lamp's if it can be had: a device without a lamp still hears the button."""
        gpiod: Any = self._gpiod or importlib.import_module("gpiod")
        values = gpiod.line.Value
        with self.lock:  # who only reads a line takes it for a moment, and must not have these just now
            line, lamp = self._request(gpiod)
            self.held = {GPIO_FACTORY_RESET: line, **({} if lamp is None else {GPIO_LED: lamp})}
        try:
            yield line, _Lamp(lamp, values.ACTIVE, values.INACTIVE, lambda: self.rests_lit)
        finally:
            with self.lock:
                self.held = {}
                line.release()
                if lamp is not None:
                    lamp.release()

    def _request(self, gpiod: Any) -> tuple[Line, Line | None]:  # noqa: ANN401 - it has no types
        """Return the lines of button and lamp. Raises OSError if the button's cannot be had."""
        settings, kinds = gpiod.LineSettings, gpiod.line
        line: Line = gpiod.request_lines(
            self._chip, consumer=CONSUMER, event_buffer_size=_EVENTS,
            config={GPIO_FACTORY_RESET: settings(
                direction=kinds.Direction.INPUT, edge_detection=kinds.Edge.BOTH, event_clock=kinds.Clock.MONOTONIC
            )},
        )  # fmt: skip
        lamp: Line | None = None
        try:
            lamp = gpiod.request_lines(
                self._chip, consumer=CONSUMER,
                config={GPIO_LED: settings(direction=kinds.Direction.OUTPUT, output_value=kinds.Value.INACTIVE)},
            )  # fmt: skip
        except OSError as error:
            log.error("there is no lamp: %s", error)
        except BaseException:
            line.release()
            raise
        return line, lamp


class _Lamp:
    """The lamp; one that cannot be driven stays as it is."""

    def __init__(self, line: Line | None, high: object, low: object, rests_lit: Callable[[], bool]) -> None:
        self._line = line
        self.high = high
        """The library's word for a line that is high."""
        self._low = low
        self._rests_lit = rests_lit

    def rest(self) -> None:
        """Show what it shows while the button asks for nothing."""
        self.show(lit=self._rests_lit())

    def show(self, *, lit: bool) -> None:
        """Switch it."""
        if self._line is not None:
            with suppress(OSError):
                self._line.set_value(GPIO_LED, self.high if lit else self._low)


class _Watch:
    """Watches lines that were taken."""

    def __init__(self, line: Line, lamp: _Lamp, button: Button, on_reset: Callable[[], Awaitable[None]]) -> None:
        self._line = line
        self._lamp = lamp
        self._button = button
        self._on_reset = on_reset
        self._high = lamp.high
        self._news = asyncio.Event()
        self._error: OSError | None = None
        self._due = False
        self._going_down = False
        """The reset was asked for: the lamp stays lit until the board is down."""

    async def run(self) -> None:
        """Follow the edges until cancelled. Raises OSError if the line is lost."""
        loop, fd = asyncio.get_running_loop(), self._line.fd
        loop.add_reader(fd, self._read)
        try:
            while True:
                pause_s = await self._step()
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), pause_s)
                if self._error is not None:
                    raise self._error
        finally:
            loop.remove_reader(fd)
            if not self._going_down:
                self._lamp.rest()

    def _read(self) -> None:
        """Take the edges that wait. Called by the event loop when there are some, so it does not block."""
        try:
            for event in self._line.read_edge_events():
                rising = event.event_type is event.Type.RISING_EDGE
                self._take(rising=rising, at_s=event.timestamp_ns / 1e9)
        except OSError as error:
            self._error = error
        self._news.set()

    def _take(self, *, rising: bool, at_s: float) -> None:
        """Take one edge. Edges that waited are judged at their own time: a long press counts however late it is read."""
        self._button = self._button.edge(rising=rising, at_s=at_s)
        self._button, seen = self._button.step(at_s)
        if seen is Seen.RESET:
            self._due = True

    async def _step(self) -> float | None:
        """Do what the button asks for; return when to look again, None: only when there is an edge."""
        now_s = time.monotonic()
        if self._button.pressed_s is not None:
            if self._line.wait_edge_events(0):  # this process may have been stopped: when it was let go counts, not now
                self._read()
            self._button = self._button.level(high=self._line.get_value(GPIO_FACTORY_RESET) is self._high)
        self._button, seen = self._button.step(now_s)
        if seen is Seen.RESET or self._due:
            self._due = False
            await self._heard()
            return 0.0
        if seen is Seen.HELD:
            self._lamp.show(lit=int(now_s / BLINK_S) % 2 == 0)
        elif not self._going_down:
            self._lamp.rest()
        return None if self._button.pressed_s is None else min(BLINK_S, self._button.left_s(now_s) or BLINK_S)

    async def _heard(self) -> None:
        """The button was held long enough: the lamp stays lit while the device goes down."""
        self._lamp.show(lit=True)
        self._going_down = True
        log.warning("the button was held: factory reset")
        try:
            await self._on_reset()
        except Exception:
            log.exception("the factory reset could not be asked for; let the button go and try again")
            self._going_down = False
            self._lamp.rest()
