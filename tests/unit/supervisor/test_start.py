"""What is settled before the supervisor starts."""

from dataclasses import replace

import pytest

from tests.support.fakes import IDENTITY, RELEASE, MemoryBootState
from zentrid import start
from zentrid.adapters.about import BootArguments
from zentrid.core.bootstate import BootState
from zentrid.factoryreset import EVERYTHING_DONE, NOTES_NAME, UNCLEARED_NAME


@pytest.fixture(autouse=True)
def early(tmp_path, monkeypatch):
    """The folder of early user space's notes."""
    monkeypatch.setattr(start, "EARLY", tmp_path)
    return tmp_path


def device(slot="a", *, why="slot", state_lost=False):
    return start.Device(BootArguments(slot, True, state_lost, why), RELEASE, IDENTITY, None)


GOOD = BootState(a_good=True)


def test_damaged_data_leads_a_good_release_to_safe_mode(early):
    store = MemoryBootState(GOOD)
    assert not start.ask_for_safe_mode(store, device())
    (early / "data-failed").touch()
    assert start.ask_for_safe_mode(store, device())
    assert store.read().safemode


@pytest.mark.parametrize(
    ("state", "slot", "broken"),
    [(BootState(a_good=False), "a", False), (GOOD, "r", False), (GOOD, "a", True)],
    ids=["on trial", "safe mode already", "the boot state cannot be written"],
)
def test_but_nobody_who_would_restart_for_ever(early, state, slot, broken):
    (early / "data-failed").touch()
    store = MemoryBootState(state)
    store.broken = broken
    assert not start.ask_for_safe_mode(store, device(slot))
    assert not store.read().safemode


def test_new_data_ends_the_safe_mode_that_damaged_data_led_to(early):
    safe = device("r", why="asked")
    store = MemoryBootState(BootState())
    assert not start.safe_mode_is_over(store, safe), "nothing was done at this start"
    (early / NOTES_NAME).write_text(f"{EVERYTHING_DONE} in 1.2 s\n")
    assert start.safe_mode_is_over(store, safe)
    assert not start.safe_mode_is_over(MemoryBootState(BootState(faults=8)), safe), "the faults are still there"
    assert not start.safe_mode_is_over(MemoryBootState(BootState(safemode=True)), safe)
    assert not start.safe_mode_is_over(store, device("r", why="noslot"))
    assert not start.safe_mode_is_over(store, device("a"))


def test_a_reset_that_is_done_is_cleared_late_and_not_done_again(early):
    store = MemoryBootState(BootState(factory_reset=1))
    assert start.late_clearing(store), "there is nothing to clear: this request is a new one"
    assert store.read().factory_reset == 1
    (early / UNCLEARED_NAME).write_text("1\n")
    store.broken = True
    assert not start.late_clearing(store)
    store.broken = False
    assert start.late_clearing(store)
    assert store.read().factory_reset == 0
    store.state = replace(store.read(), factory_reset=1)
    assert start.late_clearing(store)
    assert store.read().factory_reset == 1, "asked for afterwards"


def test_a_lost_boot_state_is_told_once_in_a_boot(tmp_path):
    told = tmp_path / "told"
    assert not start.lost_state_is_news(device(), told)
    assert [start.lost_state_is_news(device(state_lost=True), told) for _ in range(3)] == [True, False, False]


def test_the_reason_of_safe_mode_is_said(early):
    reasons = [start.safe_mode_reason(device("r", why=why).boot) for why in ("faults", "asked", "noslot")]
    assert reasons == ["Max faults exceeded", "Safe mode was asked for", "No slot is left that boots"]
    (early / "data-failed").touch()
    assert start.safe_mode_reason(device("r", why="asked").boot) == "The data partition cannot be mounted"
