"""When a boot counts as good, and when it is given up. Pure: the supervisor gathers the facts and carries out the decision.

Source: the design's chapter "Healthy". A first boot after an update has a deadline and must also have reached the DMS once,
unless committing offline is allowed. A slot that was never good has the deadline even if the journal that would call this a
first boot is lost: its tries end, so giving it up does too. Any other boot may take as long as it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Verdict(Enum):
    """What to do about the boot now."""

    WAIT = "wait"
    MARK_GOOD = "mark good"
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Facts:
    """What is known about this boot at one moment. Each None means fine; a sentence says what is wrong."""

    data: str | None = None
    """The data file system is mounted and writable."""
    settings: str | None = None
    interfaces: str | None = None
    """Every command interface that was asked for listens."""
    deaf: bool = False
    """No command interface listens at all: nobody can reach the device."""
    application: str | None = None
    """The boot application is up (or none is set)."""
    hooks: tuple[str, ...] = ()
    """What the failing health hooks say, with their names."""
    first_boot: bool = False
    """This is the first boot of a release that was just installed."""
    on_trial: bool = False
    """The running slot was never good since it was installed, whether or not the journal still knows why."""
    dms_reached: bool = False
    good_already: bool = False
    """This boot was marked good."""


@dataclass(frozen=True)
class Policy:
    """The device's settings for this decision."""

    healthy_after_s: float
    """How long everything must hold without a break (`system.boot.healthy_after`)."""
    deadline_s: float
    """By when a first boot must be good, counted from the supervisor's start (`system.boot.deadline`)."""
    commit_offline: bool
    """A first boot may be good without having reached the DMS (`ota.commit.offline`)."""


@dataclass(frozen=True)
class Decision:
    """The verdict and its reason, as one sentence."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Judge:
    """Remembers since when everything has held; `step` returns the next judge and its decision."""

    policy: Policy
    well_since_s: float | None = field(default=None)

    def step(self, facts: Facts, now_s: float) -> tuple[Judge, Decision]:
        """Judge the facts at `now_s` (seconds since the supervisor's start)."""
        if facts.good_already:
            return self, Decision(Verdict.WAIT, "this boot is good")
        wrong = problems(facts, self.policy)
        if not wrong:
            since = now_s if self.well_since_s is None else self.well_since_s
            well = Judge(self.policy, since)
            if now_s - since >= self.policy.healthy_after_s:
                return well, Decision(Verdict.MARK_GOOD, f"everything has held for {self.policy.healthy_after_s:g} s")
            return well, Decision(Verdict.WAIT, "everything holds, but not long enough yet")
        if (facts.first_boot or facts.on_trial) and now_s >= self.policy.deadline_s:
            reason = f"not healthy within {self.policy.deadline_s:g} s of the first boot: {'; '.join(wrong)}"
            return Judge(self.policy), Decision(Verdict.GIVE_UP, reason[:MAX_REASON_CHARS])
        return Judge(self.policy), Decision(Verdict.WAIT, "; ".join(wrong))


MAX_REASON_CHARS: Final = 400


def problems(facts: Facts, policy: Policy) -> list[str]:
    """Return what keeps this boot from being good, in the order in which a person would look."""
    wrong = [sentence for sentence in (facts.data, facts.settings, facts.interfaces, facts.application) if sentence]
    wrong += facts.hooks
    if facts.first_boot and not facts.dms_reached and not policy.commit_offline:
        wrong.append("the Device Management Server was not reached yet")
    return wrong


def may_feed_watchdog(facts: Facts, now_s: float, grace_s: float, pulse_age_s: float = 0.0) -> bool:
    """Tell whether the hardware watchdog is fed: after a grace period only while commands can still reach the device.

    `pulse_age_s`: how long ago a worker thread last got through to the boot state. Threads that wait for each other for ever
    leave the event loop running, and with it a device that answers and can do nothing.
    A health hook or an unreachable server never starves the watchdog: they are a reason to go back to the old release, not
    to reset a device that a person could still talk to.
    """
    return now_s < grace_s or (not facts.deaf and pulse_age_s < PULSE_LIMIT_S)


PULSE_LIMIT_S: Final = 45.0
"""Longer than a slow disk takes for one flush."""


def faults_decay(steady_since_s: float | None, now_s: float, decay_s: float) -> bool:
    """Tell whether the faults are to be forgotten: so long of healthy running without a new one. 0: never."""
    return steady_since_s is not None and decay_s > 0 and now_s - steady_since_s >= decay_s
