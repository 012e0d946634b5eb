"""The supervisor: watches over this boot, feeds the watchdog, marks the boot good or gives it up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from zentrid.core.bootstate import BootStateWriteError
from zentrid.core.health import Decision, Facts, Judge, Policy, Verdict, faults_decay, may_feed_watchdog, problems
from zentrid.errors import ZentriError
from zentrid.ports import Power

log = logging.getLogger(__name__)

STEP_S: Final = 1.0
HOOKS_EVERY_S: Final = 5.0
PULSE_EVERY_S: Final = 5.0
WATCHDOG_GRACE_S: Final = 30.0
GIVE_UP_RETRY_S: Final = 60.0


async def _nothing() -> None:
    return


JUST_STARTED: Final = Decision(Verdict.WAIT, "the supervisor has just started")
NOT_ASKED_YET: Final = ("health hooks have not answered yet",)


class NotGoodError(ZentriError):
    """This boot cannot be called good now; the sentence says why."""

    reason = "not_good"


class Clock(Protocol):
    """The time that no clock setting changes."""

    def uptime_s(self) -> float:
        """Return the seconds since the board started."""


class Feeder(Protocol):
    """A watchdog that wants to be fed."""

    def feed(self) -> None:
        """Start the countdown anew. Raises OSError."""


class Outcome(Protocol):
    """The update manager, as the supervisor needs it."""

    @property
    def first_boot(self) -> bool:
        """This is the first boot of a release that was just installed."""

    @property
    def on_trial(self) -> bool:
        """The running slot was never good since it was installed."""

    @property
    def dms_reached(self) -> bool:
        """The DMS answered at least once since this boot."""

    async def on_healthy(self) -> None:
        """Mark this boot good, on the disk. Raises BootStateWriteError: then it is not."""

    async def on_unhealthy(self, reason: str) -> None:
        """This boot is given up; returns when the reason is on the disk."""


@dataclass
class Supervisor:
    """One boot's supervision. `run` ends when it is cancelled."""

    power: Power
    outcome: Outcome
    clock: Clock
    watchdog: Feeder | None
    policy: Callable[[], Policy]
    facts: Callable[[], Facts]
    """The facts that need no waiting; hooks and update state are added here."""
    hooks: Callable[[], Awaitable[tuple[str, ...]]]
    going_down: Callable[[], bool] = lambda: False
    """The board is being restarted."""
    pulse: Callable[[], None] = lambda: None
    """Runs in a worker thread and returns if what the device cannot do without still works; a deadlock never returns."""
    decay_s: Callable[[], float] = lambda: 0.0
    """After so long of healthy running without a fault the faults are forgotten; 0: never."""
    forget_faults: Callable[[], Awaitable[None]] = _nothing
    good: bool = False
    decision: Decision = JUST_STARTED
    _hook_answers: tuple[str, ...] = NOT_ASKED_YET
    _facts: Facts = field(default_factory=Facts)
    _pulse_s: float = 0.0
    """When the pulse last came back, in seconds of uptime."""
    _round_s: float = 0.0
    """When the last round began, on the same clock: a round that never ends starves the watchdog too."""
    _steady_since_s: float | None = None
    _judging: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a boot is marked good or given up: never both, and each once."""
    _giving_up: bool = False

    def note_fault(self) -> None:
        """An exception was recorded in this boot: healthy running without one begins anew."""
        if self._steady_since_s is not None:
            self._steady_since_s = self.clock.uptime_s()

    async def run(self) -> None:
        """Supervise until cancelled."""
        start_s = self.clock.uptime_s()
        judge = Judge(self.policy())
        self._pulse_s = start_s
        self._round_s = start_s
        helpers = [
            asyncio.create_task(work) for work in (self._run_hooks(), self._run_pulse(), self._run_feeder(start_s))
        ]
        try:
            while True:
                now_s = self.clock.uptime_s() - start_s
                self._facts = self._gather()
                self._round_s = self.clock.uptime_s()
                judge = Judge(self.policy(), judge.well_since_s)
                judge, self.decision = judge.step(self._facts, now_s)
                if self.decision.verdict is Verdict.MARK_GOOD:
                    await self._mark_good()
                elif self.decision.verdict is Verdict.GIVE_UP:
                    await self._give_up()
                await self._decay()
                await asyncio.sleep(STEP_S)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _gather(self) -> Facts:
        facts = self.facts()
        return Facts(
            data=facts.data, settings=facts.settings, interfaces=facts.interfaces, deaf=facts.deaf, application=facts.application,
            hooks=self._hook_answers, first_boot=self.outcome.first_boot, on_trial=self.outcome.on_trial,
            dms_reached=self.outcome.dms_reached, good_already=self.good,
        )  # fmt: skip

    async def _run_hooks(self) -> None:
        while True:
            try:
                self._hook_answers = await self.hooks()
            except Exception as error:
                log.exception("the health hooks failed inside the device")
                self._hook_answers = (f"the health hooks cannot be asked ({type(error).__name__}); see the log",)
            await asyncio.sleep(HOOKS_EVERY_S)

    async def _run_pulse(self) -> None:
        while True:
            await asyncio.to_thread(self.pulse)
            self._pulse_s = self.clock.uptime_s()
            await asyncio.sleep(PULSE_EVERY_S)

    async def _run_feeder(self, start_s: float) -> None:
        """Feed in a task of its own: a round that waits for a slow disk must not starve a device that is well."""
        while True:
            self._feed(self.clock.uptime_s() - start_s)
            await asyncio.sleep(STEP_S)

    async def _decay(self) -> None:
        if not faults_decay(self._steady_since_s, self.clock.uptime_s(), self.decay_s()):
            return
        self._steady_since_s = self.clock.uptime_s()
        try:
            await self.forget_faults()
        except BootStateWriteError as error:
            log.error("the faults could not be forgotten: %s", error)

    def _feed(self, now_s: float) -> None:
        pulse_age_s = self.clock.uptime_s() - min(self._pulse_s, self._round_s)
        if not may_feed_watchdog(self._facts, now_s, WATCHDOG_GRACE_S, pulse_age_s):
            log.error(
                "the watchdog is not fed: %s",
                "nothing listens" if self._facts.deaf else f"no pulse for {pulse_age_s:.0f} s",
            )
            return
        if self.watchdog is None or self.going_down():
            return
        try:
            self.watchdog.feed()
        except OSError as error:
            log.error("the watchdog cannot be fed: %s", error)

    async def _mark_good(self) -> None:
        """Mark the boot good; a boot state that cannot be written leaves it unmarked, to be tried again."""
        async with self._judging:
            if self.good:
                return  # somebody else has done it meanwhile
            try:
                await self.outcome.on_healthy()
            except BootStateWriteError as error:
                log.error("this boot is healthy but could not be marked good: %s", error)
                return
            self.good = True
            self._steady_since_s = self.clock.uptime_s()
            self.decision = Decision(Verdict.WAIT, "this boot is good")
            log.info("this boot is good")

    async def mark_good_now(self) -> str:
        """Mark the boot good because somebody says so: without waiting, and even if the server was not reached.

        Returns a sentence. Raises NotGoodError if anything else is wrong, or the boot state cannot be written.
        """
        if self.good:
            return "This boot is good already."
        if self._giving_up or self.going_down():
            raise NotGoodError("This boot is about to end: the device restarts.")
        wrong = problems(replace(self._gather(), dms_reached=True), self.policy())
        if wrong:
            raise NotGoodError(f"This boot is not good: {'; '.join(wrong)}.")
        await self._mark_good()
        if not self.good:
            raise NotGoodError("This boot is healthy, but the boot state could not be written; see the log.")
        return "This boot is good."

    async def _give_up(self) -> None:
        reason, was_good = self.decision.reason, self.good
        self._giving_up = True
        try:
            async with self._judging:
                if self.good and not was_good:
                    return  # it was being marked good just then
                log.error("giving this boot up: %s", reason)
                await self.outcome.on_unhealthy(reason)
                await self.power.reboot(reason)
                await asyncio.sleep(GIVE_UP_RETRY_S)  # init is ending us; if it does not, the next round asks again
        finally:
            self._giving_up = False
