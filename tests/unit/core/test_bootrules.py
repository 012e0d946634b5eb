"""The boot rules' model: what must hold whatever is fed to it, and each rule's own cases."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.boots import fresh_state, fresh_systems
from zentrid.core import bootrules
from zentrid.core.bootmodel import After, Before, boot
from zentrid.core.bootrules import Button, Ending, Fit, Ram, Say, Step, System
from zentrid.core.bootstate import BootState
from zentrid.core.version import Version

OLD, NEW = Version(1, 0, 0), Version(2, 0, 0)
BAD, EMPTY = System(Fit.BAD), System(Fit.EMPTY)


def _boot(state: BootState | None = None, *, warm: bool = True, **more) -> After:
    systems = fresh_systems() | more.pop("systems", {})
    return boot(Before((state or fresh_state(), None), warm, systems, **more))


def _started(after: After) -> str:
    return (after.arguments or {}).get("zentri.slot", "")


STATES = st.builds(
    BootState,
    seq=st.integers(0, 2**40),
    order=st.sampled_from([("a", "b"), ("b", "a")]),
    a_left=st.integers(0, 9),
    b_left=st.integers(0, 9),
    a_good=st.booleans(),
    b_good=st.booleans(),
    running=st.booleans(),
    last=st.sampled_from(["", "a", "b", "r"]),
    faults=st.integers(0, 8),
    cold_boots=st.integers(0, 20),
    safemode=st.booleans(),
    factory_reset=st.integers(0, 2),
    boot_floor=st.sampled_from([Version(0, 0, 0), NEW]),
)
SYSTEMS = st.builds(System, st.sampled_from(Fit), st.sampled_from([OLD, NEW]))
BEFORES = st.builds(
    Before,
    st.tuples(st.none() | STATES, st.none() | STATES),
    st.booleans(),
    st.fixed_dictionaries({"a": SYSTEMS, "b": SYSTEMS, "r": SYSTEMS}),
    st.builds(Ram, st.integers(0, 4), st.integers(0, 3), st.integers(0, 1), st.integers(0, 9), st.integers(0, 1)),
    st.sampled_from(Button),
    st.tuples(st.booleans(), st.booleans()),
)


# --- whatever is fed to it ------------------------------------------------------------------------------------------
@given(BEFORES)
def test_a_boot_starts_a_system_or_says_why_not_and_waits(before: Before):
    after = boot(before)
    assert after.steps[-1].say in (Say.STARTS, Say.WAIT)
    assert (after.arguments is None) == (after.steps[-1].say is Say.WAIT)


@given(BEFORES)
def test_nothing_is_started_that_does_not_verify_and_no_slot_below_the_floor(before: Before):
    after = boot(before)
    slot = _started(after)
    if slot:
        system = before.systems[slot]  # type: ignore[index]
        assert system.fit is Fit.GOOD
        assert slot == "r" or system.version >= after.state.boot_floor


@given(BEFORES)
def test_whatever_verifies_is_found(before: Before):
    floor = boot(before).state.boot_floor
    usable = [slot for slot in "ab" if before.systems[slot].fit is Fit.GOOD and before.systems[slot].version >= floor]  # type: ignore[index]
    if usable:
        assert _started(boot(before))


@given(BEFORES)
def test_no_system_is_tried_twice_unless_its_tries_were_left_and_everything_else_failed(before: Before):
    tried = [step.subject for step in boot(before).steps if step.say is Say.TRY]
    assert tried.count("r") <= 1
    assert len(tried) <= 5


@given(BEFORES)
def test_the_state_stays_within_its_bounds_and_the_floors_are_not_touched(before: Before):
    after = boot(before)
    for copy in after.copies:
        if copy is not None and copy not in before.copies:
            assert 0 <= copy.faults <= 8
            assert 0 <= copy.cold_boots <= 20
            assert copy.seq >= after.state.seq - after.writes
    known = [copy for copy in before.copies if copy is not None]
    assert after.state.floor in [copy.floor for copy in known] or not known


@given(BEFORES)
def test_the_newest_copy_is_overwritten_only_after_a_newer_one_was_written(before: Before):
    after = boot(replace(before, writable=(False, False)))
    assert after.copies == before.copies


@given(BEFORES)
def test_only_the_button_asks_for_a_reset_of_data(before: Before):
    after = boot(before)
    known = {copy.factory_reset for copy in before.copies if copy is not None} | {0}
    heard = Step(Say.BUTTON_HEARD) in after.steps
    assert heard or after.state.factory_reset in known
    assert not heard or before.button is Button.HELD


@given(BEFORES)
def test_a_power_on_is_no_exception_and_takes_no_try_of_a_good_slot(before: Before):
    after = boot(replace(before, warm=False))
    known = [copy.faults for copy in before.copies if copy is not None] or [0]
    assert after.state.faults in known


# --- one rule after the other ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["BUTTON", "ENDING", "WHY_SAFE", "SLOT", "SPENDS_TRY", "TRIAL"])
def test_every_table_has_a_row_for_every_input(name: str):
    table = getattr(bootrules, name)
    kinds: list[Any] = [type(value) for value in next(iter(table))]
    assert set(table) == set(product(*([False, True] if kind is bool else kind for kind in kinds)))


def test_the_ordinary_boot_writes_once_and_starts_the_first_slot():
    after = _boot(warm=False)
    assert after.steps == (Step(Say.TRY, "a"), Step(Say.STARTS, "a"))
    assert after.writes == 1
    assert after.copies[1] == replace(fresh_state(), seq=2, cold_boots=1)


def test_both_copies_lost_means_defaults_and_the_first_copy_is_written():
    after = boot(Before((None, None), False, fresh_systems()))
    assert after.steps[0] == Step(Say.STATE_LOST)
    assert after.copies == (replace(BootState(), seq=1, a_left=2, running=True, last="a", cold_boots=1), None)


def test_one_hold_counts_once():
    once = _boot(button=Button.HELD)
    assert (once.state.factory_reset, once.ram.button) == (1, 1)
    again = _boot(button=Button.HELD, ram=once.ram)
    assert (again.state.factory_reset, again.ram.button) == (0, 1)
    assert _boot(ram=again.ram).ram.button == 0
    assert _boot(button=Button.HELD, warm=False, ram=again.ram).state.factory_reset == 1, "the power was off between"


@pytest.mark.parametrize(("warm", "running", "faults"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_an_exception_is_a_warm_reset_of_a_running_system(warm: bool, running: bool, faults: int):
    after = _boot(replace(fresh_state(), running=running), warm=warm)
    assert after.state.faults == faults
    assert bootrules.ENDING[True, True] is Ending.EXCEPTION


def test_nine_pulled_plugs_change_no_slot_and_ten_do():
    state, started = fresh_state(), []
    for _ in range(20):
        after = _boot(state, warm=False)
        state = after.state
        started.append(_started(after))
        assert state.faults == 0
    assert started == ["a"] * 9 + ["b"] * 10 + ["r"]


def test_the_eighth_fault_leads_to_safe_mode_but_not_that_of_a_slot_that_was_never_good():
    seven = replace(fresh_state(), faults=7)
    assert _boot(seven).arguments == {
        "zentri.slot": "r", "zentri.warm": "1", "zentri.state_lost": "0", "zentri.reset": "0", "zentri.why": "faults",
    }  # fmt: skip
    new = replace(seven, a_good=False, a_left=2)
    assert _started(_boot(new)) == "a"


def test_a_bad_update_leads_back_to_the_old_version():
    state, started = replace(fresh_state(), a_good=False, last="", running=False, faults=6), []
    for _ in range(4):
        after = _boot(state)
        state = after.state
        started.append(_started(after))
    assert started == ["a", "a", "a", "b"]
    assert state.faults == 7


def test_a_safe_mode_system_that_fails_three_times_is_passed_over_once_even_with_no_tries_left():
    state, ram, started = replace(fresh_state(), faults=8, a_left=0, b_left=0, last="r"), Ram(), []
    for _ in range(9):
        after = _boot(state, ram=ram)
        state, ram = after.state, after.ram
        started.append(_started(after))
    assert started == ["r", "r", "r", "a", "r", "r", "r", "b", "r"]


def test_a_disk_that_takes_no_write_does_not_repeat_one_sick_system_for_ever():
    ram, started = Ram(), []
    for _ in range(10):
        after = _boot(ram=ram, writable=(False, False))
        ram = after.ram
        started.append(_started(after))
    assert started == ["a", "a", "a", "b", "b", "b", "r", "r", "r", "a"]


def test_nothing_verifies_waits_longer_and_is_no_exception():
    state, ram, waits = fresh_state(), Ram(), []
    for _ in range(6):
        after = _boot(state, ram=ram, systems={"a": BAD, "b": EMPTY, "r": BAD})
        state, ram = after.state, after.ram
        waits.append(after.steps[-1].subject)
    assert waits == ["10", "20", "40", "80", "160", "160"]
    assert (state.faults, state.running) == (1, False), "only the first reset was one"
