"""Judging applications and files that were just switched: the boot application must stay up, the health hooks must agree."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from zentrid.core.health import Facts, Judge, Policy, Verdict
from zentrid.core.items import MAX_ENDS
from zentrid.core.text import printable
from zentrid.ports import AppExit

log = logging.getLogger(__name__)

HOOKS_EVERY_S: Final = 5.0
_SAID_CHARS: Final = 200


class Applications(Protocol):
    """The boot application, as far as a trial needs it."""

    @property
    def name(self) -> str:
        """What it is called; empty: none is set."""

    @property
    def problem(self) -> str | None:
        """Why it is not up; None: it is, or none is set."""

    @property
    def stopped_by_hand(self) -> bool:
        """Somebody has stopped it."""

    async def restart(self) -> str:
        """End it and start it anew. Raises AppError."""


class NoApplications:
    """A device that runs none."""

    name = ""
    problem = None
    stopped_by_hand = False

    async def restart(self) -> str:
        """Do nothing."""
        return ""


async def _no_hooks() -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Checks:
    """What a trial asks; the defaults: nothing is wrong."""

    apps: Applications = field(default_factory=NoApplications)
    hooks: Callable[[], Awaitable[tuple[str, ...]]] = _no_hooks
    """A sentence for each health hook that says no."""
    policy: Callable[[], Policy] = lambda: Policy(0, 60, commit_offline=True)
    step_s: float = 0.5


class Failure(NamedTuple):
    """Why a trial failed: a stable word and a sentence."""

    reason: str
    sentence: str


class Trial:
    """Watches over one trial at a time."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._ends: list[AppExit] = []

    def note_end(self, end: AppExit) -> None:
        """Hear that the boot application has ended by itself."""
        self._ends.append(end)
        del self._ends[: -MAX_ENDS - 1]

    def begin(self) -> None:
        """Forget what happened before."""
        self._ends.clear()

    async def run(self, *, with_app: bool) -> Failure | None:
        """Watch until everything has held for long enough, or not in time; None: all is well. Call `begin` before.

        `with_app`: the boot application counts; else only the hooks do, and one yes of theirs is enough.
        """
        begin_s = time.monotonic()
        judge, asked_s, ends = Judge(self._checks.policy()), -HOOKS_EVERY_S, 0
        hooks: tuple[str, ...] = ()
        while True:
            now_s = time.monotonic() - begin_s
            if now_s - asked_s >= HOOKS_EVERY_S:
                hooks, asked_s = await self._ask_hooks(), now_s
            if not with_app and not hooks:
                return None
            problem = self._app_problem(ends) if with_app else None
            ends = len(self._ends)
            if with_app and ends >= MAX_ENDS:
                return Failure("app_unhealthy", self._sentence(f"it ended {ends} times", self._ends[-1].reason))
            facts = Facts(application=problem, hooks=hooks, on_trial=True)
            judge, decision = Judge(self._checks.policy(), judge.well_since_s).step(facts, now_s)
            if decision.verdict is Verdict.MARK_GOOD:
                return None
            if decision.verdict is Verdict.GIVE_UP:
                what = "; ".join((*((problem,) if problem else ()), *hooks))
                within = f"not healthy within {judge.policy.deadline_s:g} s"
                return Failure("app_unhealthy" if problem else "unhealthy", self._sentence(within, what))
            await asyncio.sleep(self._checks.step_s)

    async def _ask_hooks(self) -> tuple[str, ...]:
        try:
            return await self._checks.hooks()
        except Exception as error:
            log.exception("the health hooks failed inside the device")
            return (f"the health hooks cannot be asked ({type(error).__name__}); see the log",)

    def _app_problem(self, ends_before: int) -> str | None:
        apps = self._checks.apps
        if apps.stopped_by_hand:
            return None
        if len(self._ends) > ends_before:
            return self._ends[-1].reason  # it may be up again since; what counts is that it did not stay up
        return apps.problem

    def _sentence(self, how: str, what: str) -> str:
        lines = self._ends[-1].output.strip().splitlines() if self._ends else []
        said = f"; it said: {printable(lines[0][:_SAID_CHARS])}" if lines else ""
        return f"{how}: {what}{said}"
