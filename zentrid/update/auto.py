"""Automatic mode: carries out what `core.schedule` decides, through the same runner as a person's `ota`.

So a person sees an update that nobody asked for, can follow and cancel it. A failure is logged and tried again later; this
task ends only when it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from zentrid.core import schedule
from zentrid.core.clock import earliest_now
from zentrid.core.schedule import Action, Decision, Facts, Settings, Track
from zentrid.core.update import State
from zentrid.errors import ZentriError
from zentrid.ports import UpdateOptions, UpdateProgress
from zentrid.update.errors import NotByItselfError, Result, UpdateCancelledError

log = logging.getLogger(__name__)

_UNREACHABLE: Final = (Result.CANNOT_REACH_DMS, Result.NO_NETWORK_SET, Result.JOIN_FAILED)


class Run(Protocol):
    """An update that is followed."""

    def watch(self) -> AsyncIterator[UpdateProgress]:
        """Yield its progress; raises ZentriError."""


class Runner(Protocol):
    """Runs updates, one at a time."""

    @property
    def busy(self) -> bool:
        """Whether one runs."""

    def start(self, options: UpdateOptions) -> Run:
        """Start one; raises ZentriError if one runs."""


class Manager(Protocol):
    """What automatic mode asks the update manager."""

    @property
    def state(self) -> str:
        """The update state now."""

    @property
    def next_step(self) -> UpdateOptions | None:
        """The update that goes on where a confirmed step has led."""


class Clock(Protocol):
    """The time."""

    def utc(self) -> datetime:
        """Return the time now, in UTC."""

    def uptime_s(self) -> float:
        """Return the seconds since the board started."""


class TimeOfDay:
    """The time that windows go by: the server's as it was last heard, carried on by the uptime; else the device's own.

    The device's own is no time at all when it was lost with the power (`known` False). A server that tells a wrong time opens
    windows at wrong hours; it cannot do more with it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.known = True
        """Whether the device's own clock may be believed."""
        self._heard: tuple[datetime, float] | None = None

    def heard(self, text: str) -> None:
        """Take the time that the server told (ISO 8601); anything else, or one of the past, is ignored."""
        moment = earliest_now((text,))
        if moment is not None and (self.known or moment >= self._clock.utc() - timedelta(days=1)):
            self._heard = (moment, self._clock.uptime_s())

    def now(self) -> datetime | None:
        """Return the time; None: it is not known."""
        if self._heard is not None:
            moment, uptime_s = self._heard
            return moment + timedelta(seconds=self._clock.uptime_s() - uptime_s)
        return self._clock.utc() if self.known else None


async def _nothing() -> None:
    return


@dataclass
class AutoUpdates:
    """The task. `settings` and the other facts are asked anew for each decision."""

    manager: Manager
    runner: Runner
    settings: Callable[[], Settings]
    uptime_s: Callable[[], float]
    now: Callable[[], datetime | None]
    boot_good: Callable[[], bool]
    restart: Callable[[str], Awaitable[None]]
    going_down: Callable[[], bool] = lambda: False
    way_out: Callable[[], Awaitable[None]] = _nothing
    """Done before a restart. In safe mode: forget the faults that led there, else a restart leads there again, for ever."""
    chance: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _track: Track = field(init=False)
    _said: str = ""
    _waited: bool = False
    """At the last decision an installed release waited for its restart."""

    def __post_init__(self) -> None:
        self._track = schedule.first_track(self.uptime_s(), self.settings().interval_s, self.chance(), self.chance())

    async def run(self) -> None:
        """Decide and act until cancelled."""
        while True:
            try:
                pause_s = await self._step()
            except Exception:
                log.exception("automatic updates failed inside the device; they go on later")
                self._track = self._track.failed(self.uptime_s(), self.chance(), unreachable=False)
                pause_s = schedule.AGAIN_S
            await self.sleep(pause_s)

    async def _step(self) -> float:
        """Do what is to be done now; return the pause after it (seconds)."""
        self._heed_taking_back()
        decision = self.decide()
        match decision.action:
            case Action.WAIT:
                if decision.reason != self._said:
                    log.info("automatic updates wait: %s", decision.reason)
                    self._said = decision.reason
                return decision.again_s
            case Action.LOOK:
                await self._update(UpdateOptions(check_only=True, by_itself=True))
            case Action.INSTALL:
                await self._update(UpdateOptions(by_itself=True))
            case Action.GO_ON:
                options = self.manager.next_step
                if options is not None:
                    await self._update(options)
            case Action.RESTART:
                await self._restart()
                return schedule.AGAIN_S
        return schedule.BUSY_S

    def _heed_taking_back(self) -> None:
        """Whoever takes an installed release back does not want it again in five minutes."""
        waits = self.manager.state == State.REBOOTING.value
        if self._waited and not waits:
            self._track = self._track.cancelled(self.uptime_s(), self.chance())
        self._waited = waits

    def decide(self) -> Decision:
        """Return what is to be done now."""
        step = self.manager.next_step
        facts = Facts(
            uptime_s=self.uptime_s(),
            utc=self.now(),
            boot_good=self.boot_good(),
            busy=self.runner.busy or self.going_down(),
            waits_for_restart=self.manager.state == State.REBOOTING.value,
            goes_on=step is not None,
            goes_on_by_itself=step is not None and step.by_itself,
        )
        return schedule.decide(self.settings(), facts, self._track)

    async def _update(self, options: UpdateOptions) -> None:
        """Run one update and remember how it went."""
        what = "looking for an update" if options.check_only else "updating"
        log.info("automatic updates: %s", f"going on to {options.version}" if options.goes_on else what)
        last: UpdateProgress | None = None
        try:
            async for news in self.runner.start(options).watch():
                last = news
        except ZentriError as error:
            log.error("automatic updates: %s", error)
            last = None
        uptime_s, chance = self.uptime_s(), self.chance()
        if last is not None and last.done and (last.ok or last.reason == NotByItselfError.reason):
            self._track = self._track.succeeded(uptime_s, self.settings().interval_s, chance)
        elif last is not None and last.reason == UpdateCancelledError.reason:
            self._track = self._track.cancelled(uptime_s, chance)
        else:
            unreachable = last is not None and last.result in _UNREACHABLE
            self._track = self._track.failed(uptime_s, chance, unreachable=unreachable)
        self._said = ""

    async def _restart(self) -> None:
        log.info("automatic updates: restarting into the installed release")
        try:
            await self.way_out()
            await self.restart("update installed")
        except ZentriError as error:
            log.error("cannot restart into the new release: %s", error)
