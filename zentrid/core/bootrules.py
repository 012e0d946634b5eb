"""The rules of the boot script as tables: what the ROM does with a boot state, a kind of reset, a button and three systems.

Source: `buildroot_external/board/virt/boot.script`, rule by rule under the same numbers. This is its specification in a form that can be
enumerated: a test runs the real ROM against it. Nothing on the device calls it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, NamedTuple

from zentrid.core import names
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.names import BOOT_TRIES, MAX_COLD_BOOTS, MAX_FAULTS, SAFE_SLOT, SlotName
from zentrid.core.version import Version


class Button(Enum):
    """What the button of GPIO 0 does while the boot script looks at it."""

    UP = auto()
    HELD = auto()
    """For 5 s and more."""
    RELEASED = auto()
    """Down at first, let go before 5 s have passed."""


class Fit(Enum):
    """What a kernel partition holds."""

    GOOD = auto()
    """A signed system."""
    BAD = auto()
    """One that does not verify."""
    EMPTY = auto()
    """No system."""


class System(NamedTuple):
    """A kernel partition: what it holds, and the release's version in it."""

    fit: Fit
    version: Version = Version(1, 0, 0)


class Ram(NamedTuple):
    """The words that outlive a reset and not a power cut. Each is 0 after a power-on."""

    wait: int = 0
    """How many pauses there were because nothing verified, 0 to 4."""
    safe: int = 0
    """Starts of the safe-mode system in a row that ended in an exception, 0 to 3."""
    button: int = 0
    """1: the button was heard and has not been seen up since."""
    unsaved: int = 0
    """Starts in a row whose boot state could not be written, 0 to 9."""
    turn: int = 0
    """1: when nothing else is left, slot B is tried first the next time."""


class Say(Enum):
    """What the ROM does that can be seen on its console. A step's subject, if it has one, is in brackets."""

    STATE_LOST = auto()
    BUTTON_DOWN = auto()
    BUTTON_HEARD = auto()
    BUTTON_RELEASED = auto()
    BUTTON_STILL_DOWN = auto()
    SAFE_MODE = auto()
    """[why] The safe-mode system is chosen."""
    SAFE_MODE_PASSED = auto()
    GIVEN_UP = auto()
    """[slot] Too many starts that never became healthy."""
    NOT_WRITTEN = auto()
    """The boot state could not be written."""
    TRY = auto()
    """[slot]"""
    HOLDS_NONE = auto()
    """[slot]"""
    TOO_OLD = auto()
    """[slot] Older than the boot floor."""
    BAD_FIT = auto()
    """[slot] Does not verify."""
    STARTS = auto()
    """[slot] The kernel runs: the end."""
    LAST_RESORT = auto()
    """Any slot that verifies."""
    WAIT = auto()
    """[seconds] Nothing verifies: the board waits and starts again."""


class Step(NamedTuple):
    """One thing that the ROM does."""

    say: Say
    subject: str = ""


# --- rule 1: the button -------------------------------------------------------------------------------------------
class _Heard(NamedTuple):
    says: tuple[Say, ...]
    asks_reset: bool
    heard_after: int


BUTTON: Final[Mapping[tuple[Button, bool], _Heard]] = {
    # (button, heard before and not let go since)
    (Button.UP, False): _Heard((), False, 0),
    (Button.UP, True): _Heard((), False, 0),
    (Button.HELD, False): _Heard((Say.BUTTON_DOWN, Say.BUTTON_HEARD), True, 1),
    (Button.HELD, True): _Heard((Say.BUTTON_STILL_DOWN,), False, 1),
    (Button.RELEASED, False): _Heard((Say.BUTTON_DOWN, Say.BUTTON_RELEASED), False, 0),
    (Button.RELEASED, True): _Heard((Say.BUTTON_STILL_DOWN,), False, 1),
}
"""One hold asks for one factory reset."""


# --- rule 2: what the last boot came to ---------------------------------------------------------------------------
class Ending(Enum):
    """How the last boot ended."""

    CLEAN = auto()
    """Shut down, then power."""
    POWER_CUT = auto()
    ASKED = auto()
    """A restart that was asked for."""
    EXCEPTION = auto()
    """Panic, watchdog, a block that did not verify."""


ENDING: Final[Mapping[tuple[bool, bool], Ending]] = {
    # (warm, running)
    (False, False): Ending.CLEAN,
    (False, True): Ending.POWER_CUT,
    (True, False): Ending.ASKED,
    (True, True): Ending.EXCEPTION,
}

FAULTS_AT_MOST: Final[Mapping[bool, int]] = {True: MAX_FAULTS, False: MAX_FAULTS - 1}
"""By whether the system that failed was ever good: one that was not is judged by its tries, never by the eighth fault."""

COLD_STRIKES: Final[Mapping[int, int]] = {MAX_COLD_BOOTS: 1, 2 * MAX_COLD_BOOTS: 1}
"""Slots that are given up, by the number of this cold boot since the board was healthy."""

UNSAVED_STRIKES: Final = (0, 0, 0, 1, 1, 1, 2, 2, 2)
"""Slots that are passed over, by the number of warm starts in a row whose boot state could not be written; after that from 0 on."""

# --- rule 3: the safe-mode system ---------------------------------------------------------------------------------
WHY_SAFE: Final[Mapping[tuple[bool, bool], str]] = {
    # (eight faults, safe mode asked for)
    (False, False): "",
    (False, True): "asked",
    (True, False): "faults",
    (True, True): "faults",
}

SAFE_STARTS: Final = 3
"""So many in a row may end in an exception; then it is passed over once."""


# --- rule 4: the slots --------------------------------------------------------------------------------------------
class Verdict(Enum):
    """What is done with a slot."""

    SKIP = auto()
    GIVE_UP = auto()
    TRY = auto()


SLOT: Final[Mapping[tuple[bool, bool], Verdict]] = {
    # (has tries left, there is a strike)
    (False, False): Verdict.SKIP,
    (False, True): Verdict.SKIP,
    (True, False): Verdict.TRY,
    (True, True): Verdict.GIVE_UP,
}

SPENDS_TRY: Final[Mapping[tuple[bool, bool], bool]] = {
    # (the last boot ended in an exception, the slot was good once)
    (False, False): True,
    (False, True): False,
    (True, False): True,
    (True, True): True,
}

TRIAL: Final[Mapping[tuple[Fit, bool], Say]] = {
    # (what the partition holds, older than the boot floor); the version is looked at before the signature
    (Fit.EMPTY, False): Say.HOLDS_NONE,
    (Fit.EMPTY, True): Say.HOLDS_NONE,
    (Fit.GOOD, True): Say.TOO_OLD,
    (Fit.BAD, True): Say.TOO_OLD,
    (Fit.BAD, False): Say.BAD_FIT,
    (Fit.GOOD, False): Say.STARTS,
}

# --- rule 5: nothing is left --------------------------------------------------------------------------------------
LAST_RESORT: Final[Mapping[int, tuple[SlotName, SlotName]]] = {0: ("a", "b"), 1: ("b", "a")}
"""The order by the RAM word `turn`: they take turns, because one that verifies may still be sick."""

WAITS_S: Final = (10, 20, 40, 80, 160)


# --- one boot -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Before:
    """All that a boot depends on."""

    copies: tuple[BootState | None, BootState | None]
    """The two copies of the boot state; None: damaged."""
    warm: bool
    systems: Mapping[SlotName, System]
    """Of `a`, `b` and `r`."""
    ram: Ram = Ram()
    """Of no meaning after a power-on."""
    button: Button = Button.UP
    writable: tuple[bool, bool] = (True, True)
    """Whether a write to each copy works."""


@dataclass(frozen=True)
class After:
    """What a boot comes to."""

    steps: tuple[Step, ...]
    copies: tuple[BootState | None, BootState | None]
    writes: int
    """Attempts to write the boot state."""
    arguments: Mapping[str, str] | None
    """Kernel arguments that the script appends; None: nothing was started."""
    ram: Ram
    state: BootState
    """The boot state as the script knows it at the end, written or not."""


class _Started(Exception):  # noqa: N818 - no error: the kernel runs and nothing comes after it
    """A kernel was started."""


class _Boot:
    """One run of the script: what it knows, changed rule by rule."""

    def __init__(self, before: Before) -> None:
        self.before = before
        self.copies = list(before.copies)
        self.ram = before.ram if before.warm else Ram()
        self.steps: list[Step] = []
        self.writes = 0
        self.arguments: dict[str, str] | None = None
        self.why = "slot"
        self.strikes = 0
        self.unsaved = 0
        self.exception = False
        self.safe_tried = False
        self._load()

    def say(self, say: Say, subject: object = "") -> None:
        self.steps.append(Step(say, str(subject)))

    def _load(self) -> None:
        """Take the newest valid copy; the second one if both are equally new. The next write goes to the other one."""
        found = [(copy.seq, number, copy) for number, copy in enumerate(self.copies) if copy is not None]
        self.lost = not found
        if found:
            _, number, self.state = max(found, key=lambda entry: entry[:2])
            self.next = 1 - number
        else:
            self.state, self.next = BootState(), 0
            self.say(Say.STATE_LOST)

    def save(self) -> None:
        self.writes += 1
        self.state = replace(self.state, seq=self.state.seq + 1)
        if self.before.writable[self.next]:
            self.copies[self.next] = self.state
            self.next = 1 - self.next
            self.ram = self.ram._replace(unsaved=0)
        else:
            self.say(Say.NOT_WRITTEN)

    def start(self, slot: SlotName) -> None:
        """Start a system; comes back if that does not work."""
        self.say(Say.TRY, slot)
        system = self.before.systems[slot]
        too_old = slot != SAFE_SLOT and system.version < self.state.boot_floor
        result = TRIAL[system.fit, too_old]
        self.say(result, slot)
        if result is not Say.STARTS:
            return
        self.ram = self.ram._replace(wait=0, safe=self.ram.safe if slot == SAFE_SLOT else 0)
        self.arguments = {
            names.ARG_SLOT: slot,
            names.ARG_WARM: str(int(self.before.warm)),
            names.ARG_STATE_LOST: str(int(self.lost)),
            names.ARG_RESET: str(self.state.factory_reset),
            names.ARG_WHY: self.why,
        }
        raise _Started

    def rule_1(self) -> None:
        row = BUTTON[self.before.button, self.ram.button == 1]
        for what in row.says:
            self.say(what)
        if row.asks_reset:
            self.state = replace(self.state, factory_reset=1)
        self.ram = self.ram._replace(button=row.heard_after)

    def rule_2(self) -> None:
        self.exception = ENDING[self.before.warm, self.state.running] is Ending.EXCEPTION
        if self.exception:
            self._count_fault()
        self._count_starts()
        self.state = replace(self.state, running=True)

    def _count_fault(self) -> None:
        state = self.state
        was_good = {"a": state.a_good, "b": state.b_good}.get(state.last, True)
        if state.faults < FAULTS_AT_MOST[was_good]:
            record = Fault("reset", state.last or "?", "?", 0, "?")
            # A record has the number of its fault; what else is there stays.
            records = (*state.fault_records[: state.faults], record, *state.fault_records[state.faults + 1 :])
            self.state = replace(state, faults=state.faults + 1, fault_records=records)

    def _count_starts(self) -> None:
        if self.before.warm:
            self.unsaved = self.ram.unsaved if self.ram.unsaved < len(UNSAVED_STRIKES) else 0
            self.strikes = UNSAVED_STRIKES[self.unsaved]
            self.state = replace(self.state, cold_boots=0)
        else:
            count = min(self.state.cold_boots + 1, 2 * MAX_COLD_BOOTS)
            self.strikes = COLD_STRIKES.get(count, 0)
            self.state = replace(self.state, cold_boots=count)
        self.ram = self.ram._replace(unsaved=self.unsaved + 1)

    def rule_3(self) -> None:
        self.why = WHY_SAFE[self.state.faults >= MAX_FAULTS, self.state.safemode]
        if self.why:
            self._safe_mode()

    def _safe_mode(self) -> None:
        self.safe_tried = True
        failed = self.ram.safe if self.exception or self.unsaved else 0
        if failed >= SAFE_STARTS:
            self.say(Say.SAFE_MODE_PASSED)
            self.ram = self.ram._replace(safe=0)
            return
        self.ram = self.ram._replace(safe=failed + 1)
        self.say(Say.SAFE_MODE, self.why)
        self.state = replace(self.state, last=SAFE_SLOT)
        self.save()
        self.start(SAFE_SLOT)

    def _left(self, slot: SlotName, left: int) -> None:
        self.state = replace(self.state, a_left=left) if slot == "a" else replace(self.state, b_left=left)

    def rule_4(self) -> None:
        self.why = "slot"
        for slot in self.state.order:
            verdict = SLOT[self.state.left(slot) > 0, self.strikes > 0]
            if verdict is Verdict.GIVE_UP:
                self.say(Say.GIVEN_UP, slot)
                self.strikes -= 1
            if verdict is Verdict.TRY:
                if SPENDS_TRY[self.exception, self.state.good(slot)]:
                    self._left(slot, self.state.left(slot) - 1)
                self.state = replace(self.state, last=slot)
                self.save()
                self.start(slot)
            if verdict is not Verdict.SKIP:
                self._left(slot, 0)

    def rule_5(self) -> None:
        if not self.safe_tried:
            self.why = "noslot"
            self._safe_mode()
        self.why = "slot"
        self.say(Say.LAST_RESORT)
        order = LAST_RESORT[self.ram.turn]
        self.ram = self.ram._replace(turn=1 - self.ram.turn)
        for slot in order:
            self.state = replace(self.state, last=slot)
            self.save()
            self.start(slot)
        self.state = replace(self.state, running=False)
        self.save()
        self.say(Say.WAIT, WAITS_S[self.ram.wait])
        self.ram = self.ram._replace(wait=min(self.ram.wait + 1, len(WAITS_S) - 1))


def boot(before: Before) -> After:
    """Return what the boot script does: one run, from the reset to a kernel's start or to the next reset."""
    run = _Boot(before)
    try:
        for rule in (run.rule_1, run.rule_2, run.rule_3, run.rule_4, run.rule_5):
            rule()
    except _Started:
        pass
    first, second = run.copies
    return After(tuple(run.steps), (first, second), run.writes, run.arguments, run.ram, run.state)


def fresh_systems(version: Version = Version(1, 0, 0)) -> dict[SlotName, System]:
    """Return three good systems of one version."""
    return {slot: System(Fit.GOOD, version) for slot in (*names.SLOTS, SAFE_SLOT)}


def fresh_state(version: Version = Version(1, 0, 0)) -> BootState:
    """Return the boot state of a board with two good slots that has been healthy."""
    return BootState(
        seq=1, a_left=BOOT_TRIES, b_left=BOOT_TRIES, a_good=True, b_good=True, running=True, last="a", floor=version
    )
