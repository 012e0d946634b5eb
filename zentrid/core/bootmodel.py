"""One boot of the board as the tables of `bootrules` have it: from the reset to a kernel's start or to the next reset. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from zentrid.core import names
from zentrid.core.bootrules import (
    BUTTON,
    COLD_STRIKES,
    COUNTS_FAULT,
    ENDING,
    LAST_RESORT,
    NO_RAM,
    SAFE_STARTS,
    SLOT,
    SPENDS_TRY,
    TRIAL,
    UNSAVED_STRIKES,
    WAITS_S,
    WHY_SAFE,
    Button,
    Ending,
    Ram,
    Say,
    Step,
    System,
    Verdict,
)  # fmt: skip
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.names import MAX_COLD_BOOTS, MAX_FAULTS, SAFE_SLOT, SlotName


@dataclass(frozen=True)
class Before:
    """All that a boot depends on."""

    copies: tuple[BootState | None, BootState | None]
    """The two copies of the boot state; None: damaged."""
    warm: bool
    systems: Mapping[SlotName, System]
    """Of `a`, `b` and `r`."""
    ram: Ram = NO_RAM
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
    rows: tuple[Row, ...]
    """The tables' rows that decided, in order."""


Row = tuple[str, object, str]
"""A table's name, the row's key, and which system it was about."""
_K = TypeVar("_K")
_V = TypeVar("_V")


class _Started(Exception):  # noqa: N818 - no error: the kernel runs and nothing comes after it
    """A kernel was started."""


class _Boot:
    """One run of the script: what it knows, changed rule by rule."""

    def __init__(self, before: Before) -> None:
        self.before = before
        self.copies = list(before.copies)
        self.ram = before.ram if before.warm else Ram()
        self.steps: list[Step] = []
        self.rows: list[Row] = []
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

    def look(self, name: str, table: Mapping[_K, _V], key: _K, about: str = "") -> _V:
        self.rows.append((name, key, about))
        return table[key]

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
        result = self.look("TRIAL", TRIAL, (system.fit, too_old), slot)
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
        row = self.look("BUTTON", BUTTON, (self.before.button, self.ram.button == 1))
        for what in row.says:
            self.say(what)
        if row.asks_reset:
            self.state = replace(self.state, factory_reset=1)
        self.ram = self.ram._replace(button=row.heard_after)

    def rule_2(self) -> None:
        self.exception = self.look("ENDING", ENDING, (self.before.warm, self.state.running)) is Ending.EXCEPTION
        if self.exception:
            self._count_fault()
        self._count_starts()
        self.state = replace(self.state, running=True)

    def _count_fault(self) -> None:
        state = self.state
        was_good = {"a": state.a_good, "b": state.b_good}.get(state.last, True)
        room = min(MAX_FAULTS - state.faults, 2)
        if self.look("COUNTS_FAULT", COUNTS_FAULT, (was_good, room), state.last):
            record = Fault("reset", state.last or "?", "?", 0, "?")
            # A record has the number of its fault; what else is there stays.
            records = (*state.fault_records[: state.faults], record, *state.fault_records[state.faults + 1 :])
            self.state = replace(state, faults=state.faults + 1, fault_records=records)

    def _count_starts(self) -> None:
        if self.before.warm:
            self.unsaved = self.ram.unsaved if self.ram.unsaved < len(UNSAVED_STRIKES) else 0
            self.strikes = self.look("UNSAVED_STRIKES", dict(enumerate(UNSAVED_STRIKES)), self.unsaved)
            self.state = replace(self.state, cold_boots=0)
        else:
            count = min(self.state.cold_boots + 1, 2 * MAX_COLD_BOOTS)
            self.strikes = COLD_STRIKES.get(count, 0)
            self.rows.append(("COLD_STRIKES", count, ""))
            self.state = replace(self.state, cold_boots=count)
        self.ram = self.ram._replace(unsaved=self.unsaved + 1)

    def rule_3(self) -> None:
        self.why = self.look("WHY_SAFE", WHY_SAFE, (self.state.faults >= MAX_FAULTS, self.state.safemode))
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
            verdict = self.look("SLOT", SLOT, (self.state.left(slot) > 0, self.strikes > 0), slot)
            if verdict is Verdict.GIVE_UP:
                self.say(Say.GIVEN_UP, slot)
                self.strikes -= 1
            if verdict is Verdict.TRY:
                if self.look("SPENDS_TRY", SPENDS_TRY, (self.exception, self.state.good(slot)), slot):
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
        order = self.look("LAST_RESORT", LAST_RESORT, self.ram.turn)
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
    return After(
        tuple(run.steps), (run.copies[0], run.copies[1]), run.writes, run.arguments, run.ram, run.state, tuple(run.rows)
    )
