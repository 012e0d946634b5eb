"""Enumerates what the boot script can meet, with the model, and picks one representative of each distinct outcome. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import combinations, islice, product
from typing import Final

from scripts.board_driver.chosen import BOARD
from tests.support.boots import fresh_state
from zentrid.core.bootmodel import After, Before, boot
from zentrid.core.bootrules import Button, Fit, Ram, System
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.names import SlotName
from zentrid.core.version import Version

OLD, NEW = Version(1, 0, 0), Version(2, 0, 0)
GOOD: Final = System(Fit.GOOD, NEW)
TOO_OLD: Final = System(Fit.GOOD, OLD)
BAD: Final = System(Fit.BAD, NEW)
EMPTY: Final = System(Fit.EMPTY, OLD)

SLOT_STATES: Final = ((3, True), (1, True), (0, True), (3, False), (1, False), (0, False))
"""Tries left, ever good."""
ENDINGS: Final = (
    (False, False, "a"), (False, True, "a"), (True, False, "a"), (True, True, ""), (True, True, "a"), (True, True, "b"),
    (True, True, "r"),
)  # fmt: skip
"""Warm, running, last."""
ORDERS: Final[tuple[tuple[SlotName, SlotName], ...]] = (("a", "b"), ("b", "a"))
SYSTEMS: Final = (GOOD, BAD, EMPTY, TOO_OLD)
SEED: Final = 1
MIXED: Final = 60
MIXED_WHOLE: Final = 400
"""How many mixed inputs are run."""

SEQ: Final = 0x10
FAR_SEQ: Final = 2 ** (32 if BOARD.bits == 64 else 28)
PLACEMENTS: Final = ("first", "second", "only first", "only second", "equal", "far first", "far second")
"""Where the state that counts lies: it is the newer one in that copy (`far`: by a number of more than 32 bits, where the
boot loader has more), or the other copy is damaged, or both are equally new."""


def _state(**changes: object) -> BootState:
    state = replace(fresh_state(OLD), boot_floor=NEW, seq=SEQ, **changes)  # type: ignore[arg-type]
    kinds = ("panic", "application", "supervisor")
    records = tuple(Fault(kinds[n % 3], "ab"[n % 2], "1.0.0", 100 * n, "?", f"number {n}") for n in range(state.faults))
    return replace(state, fault_records=records)


def _slots(a: tuple[int, bool], b: tuple[int, bool]) -> dict[str, object]:
    return {"a_left": a[0], "a_good": a[1], "b_left": b[0], "b_good": b[1]}


def _ending(ending: tuple[bool, bool, str]) -> tuple[bool, dict[str, object]]:
    return ending[0], {"running": ending[1], "last": ending[2]}


def _before(
    state: BootState | None, warm: bool, a: System = GOOD, b: System = GOOD, r: System = GOOD, **more
) -> Before:
    return Before((state, None), warm, {"a": a, "b": b, "r": r}, **more)


def _button() -> Iterator[Before]:
    for button, heard, warm, asked, lost in product(Button, (0, 1), (False, True), (0, 1, 2), (False, True)):
        state = None if lost else _state(factory_reset=asked)
        yield _before(state, warm, ram=Ram(button=heard), button=button)


def _faults() -> Iterator[Before]:
    for ending, faults, a, b, safemode in product(ENDINGS, range(9), SLOT_STATES[::3], SLOT_STATES[::3], (False, True)):
        warm, how = _ending(ending)
        yield _before(_state(**how, **_slots(a, b), faults=faults, safemode=safemode), warm)


def _starts() -> Iterator[Before]:
    for a, b, order in product(SLOT_STATES, SLOT_STATES, ORDERS):
        for cold in (0, 8, 9, 10, 18, 19, 20):
            yield _before(_state(**_slots(a, b), order=order, cold_boots=cold), False)
        for unsaved in range(10):
            yield _before(_state(**_slots(a, b), order=order, cold_boots=5), True, ram=Ram(unsaved=unsaved))


def _safe_mode() -> Iterator[Before]:
    some = (SLOT_STATES[0], SLOT_STATES[2])
    for ending, faults, asked, safe, unsaved in product(ENDINGS[1:], (0, 8), (False, True), range(4), (0, 1, 3, 6)):
        warm, how = _ending(ending)
        for a, b, r in product(some, some, SYSTEMS):
            state = _state(**how, **_slots(a, b), faults=faults, safemode=asked)
            yield _before(state, warm, r=r, ram=Ram(safe=safe, unsaved=unsaved))


def _fits() -> Iterator[Before]:
    for ending, a, b, order in product((ENDINGS[1], ENDINGS[2], ENDINGS[4]), SLOT_STATES, SLOT_STATES, ORDERS):
        warm, how = _ending(ending)
        for fit_a, fit_b in product(SYSTEMS, SYSTEMS):
            yield _before(_state(**how, **_slots(a, b), order=order), warm, fit_a, fit_b)


def _nothing() -> Iterator[Before]:
    for fits, turn, (ending, safe) in product(product(SYSTEMS, repeat=3), (0, 1), product(ENDINGS[2:6:2], (0, 3))):
        warm, how = _ending(ending)
        state = _state(**how, **_slots((0, True), (0, True)))
        yield _before(state, warm, *fits, ram=Ram(safe=safe, turn=turn))
    for wait, systems in product(range(5), ((BAD, BAD, BAD), (GOOD, BAD, BAD), (BAD, BAD, GOOD))):
        yield _before(_state(), True, *systems, ram=Ram(wait=wait))


def _anything() -> Iterator[Before]:
    """Give everything at once, at random but always the same, without end."""
    pick = random.Random(SEED)
    while True:
        warm, how = _ending(pick.choice(ENDINGS))
        state = _state(
            **how, **_slots(pick.choice(SLOT_STATES), pick.choice(SLOT_STATES)), order=pick.choice(ORDERS),
            faults=pick.choice((0, 1, 6, 7, 8)), cold_boots=pick.choice((0, 9, 19, 20)),
            safemode=pick.random() < 0.2, factory_reset=pick.choice((0, 0, 1, 2)),
        )  # fmt: skip
        ram = Ram(
            pick.randrange(5),
            pick.randrange(4),
            pick.randrange(2),
            pick.choice((0, 0, 0, *range(10))),
            pick.randrange(2),
        )
        button = pick.choice((Button.UP,) * 8 + (Button.HELD,))
        fits = (pick.choice((GOOD, *SYSTEMS)) for _ in range(3))
        yield _before(None if pick.random() < 0.1 else state, warm, *fits, ram=ram, button=button)


def by_rules() -> Iterator[Before]:
    """Give each rule's own inputs in full."""
    for part in (_button, _faults, _starts, _safe_mode, _fits, _nothing):
        yield from part()


@dataclass(frozen=True)
class Case:
    """One representative of an outcome."""

    before: Before
    after: After


def _changes(before: BootState, after: BootState) -> tuple[tuple[str, object], ...]:
    """Return what a boot changes in the boot state: numbers that grow or shrink by their difference, others by their value."""
    found = []
    for name in (entry.name for entry in fields(BootState) if entry.compare and entry.name != "fault_records"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            counted = isinstance(new, int) and not isinstance(new, bool) and new != 0
            found.append((name, new - old if counted else new))
    return tuple(found)


def outcome(case: Case) -> tuple[object, ...]:
    """Return what makes an outcome a distinct one: all that is seen, changed, and why."""
    before, after = case.before, case.after
    known = next((copy for copy in before.copies if copy is not None), BootState())
    ram = before.ram if before.warm else Ram()
    words = tuple((old > 0, new > 0, new > old) for old, new in zip(ram, after.ram, strict=True))
    arguments: Mapping[str, str] = after.arguments or {}
    return after.steps, after.writes, _changes(known, after.state), words, tuple(arguments.values()), after.rows


def _rows(case: Case) -> frozenset[object]:
    """Return what a case shows: each step, change of the boot state, word of RAM, argument, and row that decided."""
    steps, writes, changes, words, arguments, rows = outcome(case)
    found = (*steps, ("writes", writes), *changes, *enumerate(words), *enumerate(arguments), *rows)  # type: ignore[misc,arg-type]
    return frozenset(found)


def distinct(befores: Iterator[Before]) -> list[Case]:
    """Return one case of each distinct outcome."""
    found: dict[tuple[object, ...], Case] = {}
    for before in befores:
        case = Case(before, boot(before))
        found.setdefault(outcome(case), case)
    return list(found.values())


def covering(cases: list[Case]) -> list[Case]:
    """Return as few of the cases as show every pair of things that any case shows together (chosen greedily)."""
    numbers: dict[frozenset[object], int] = {}
    pairs = []
    for case in cases:  # a set of pairs as the bits of one number
        found = (frozenset(pair) for pair in combinations(_rows(case), 2))
        pairs.append(sum(1 << numbers.setdefault(pair, len(numbers)) for pair in found))
    missing = (1 << len(numbers)) - 1
    chosen = []
    while missing:
        best = max(range(len(cases)), key=lambda number: (pairs[number] & missing).bit_count())
        chosen.append(cases[best])
        missing &= ~pairs[best]
    return chosen


def placed(before: Before, placement: str) -> Before:
    """Return the same input with its boot state laid into the two copies; the other copy says something else."""
    state = before.copies[0]
    if state is None:
        return before
    seq = FAR_SEQ if placement.startswith("far") else SEQ
    state = replace(state, seq=seq)
    other = BootState(
        seq=seq - (placement != "equal"), order=("b", "a"), a_left=2, b_left=2, faults=1, cold_boots=3, safemode=True
    )
    if placement.startswith("only"):
        return replace(before, copies=(state, None) if placement == "only first" else (None, state))
    return replace(before, copies=(state, other) if placement.endswith("first") else (other, state))


def representatives(*, whole: bool) -> list[Before]:
    """Return what is run against the ROM, the boot state laid into the copies in every way by turns.

    `whole`: every distinct outcome of the rules' own inputs, and many mixed ones. Else those that show every pair of things, and
    some mixed ones.
    """
    rules = distinct(by_rules())
    chosen = [case.before for case in (rules if whole else covering(rules))]
    chosen += islice(_anything(), MIXED_WHOLE if whole else MIXED)
    return [placed(before, PLACEMENTS[number % len(PLACEMENTS)]) for number, before in enumerate(chosen)]
