"""Properties out of answers and events, and one `Completed` for each end."""

from __future__ import annotations

import pytest

from tests.support.fakes import SLOTS
from zentrid.commands.faults import fault_lines
from zentrid.commands.system import slot_lines
from zentrid.core.bootstate import BootState, Fault, add_fault
from zentrid.core.events import (
    BootGood,
    DeviceEvent,
    FaultRecorded,
    SlotChanged,
    UpdateAdvanced,
    UpdateAvailable,
    UpdateChanged,
)
from zentrid.dbus.model import (
    Completion,
    Endings,
    Progress,
    Properties,
    Slot,
    completion,
    follow,
    parse_faults,
    parse_slots,
    wants_reading,
)

NOTHING = Properties()


def after(*events: DeviceEvent, now: Properties = NOTHING) -> Properties:
    for event in events:
        now = follow(now, event.to_json())
    return now


def test_slots_are_what_the_command_prints() -> None:
    assert parse_slots(slot_lines(SLOTS)) == (
        Slot("a", "1.4.0", "running", 3, good=True, running=True),
        Slot("b", "", "empty", 0, good=False, running=False),
        Slot("r", "1.0.0", "safe-mode", -1, good=True, running=False),
    )


@pytest.mark.parametrize(
    "text",
    ["", "Command failed", "# slot", "# slot version state tries good runs\n a 1.0.0", "# slot version state tries good runs\n"
     "a 1 running many yes yes"],
)  # fmt: skip
def test_what_is_no_table_of_slots_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        parse_slots(text)


def test_faults_are_what_the_command_prints() -> None:
    state = BootState()
    assert parse_faults(fault_lines(state)) == ()
    state = add_fault(state, Fault("panic", "a", "1.0.0", 108, "2026-11-25T01:43:46Z", "sysrq: crash"))
    assert parse_faults(fault_lines(state)) == (
        "panic, slot a, version 1.0.0, up 108 s, 2026-11-25T01:43:46Z, sysrq: crash",
    )


def test_an_update_is_followed_to_its_end() -> None:
    now = after(UpdateChanged("idle", "checking"))
    assert (now.state, now.progress) == ("checking", Progress(0, "checking", 1))
    now = after(
        UpdateChanged("checking", "downloading", "1.1.0"), UpdateAdvanced("downloading", "1.1.0", 40, 1202144), now=now
    )
    assert (now.state, now.progress) == ("downloading", Progress(40, "downloading release 1.1.0", 2))
    now = after(UpdateChanged("downloading", "verifying", "1.1.0"), now=now)
    assert now.progress == Progress(40, "verifying", 1)
    now = after(UpdateChanged("verifying", "idle", "1.1.0", "failed", "bad_payload"), now=now)
    assert (now.state, now.progress) == ("idle", Progress(40, "", 0))


def test_other_events() -> None:
    assert after(BootGood("a", "1.0.0")).boot_good
    assert after(UpdateAvailable("1.2.0")).available == "1.2.0"
    assert after(FaultRecorded("panic", "x"), SlotChanged("b", "emptied", "")) == Properties()
    assert follow(Properties(), {"event": "update_progress", "percent": "many"}) == Properties()
    assert follow(Properties(), {"event": "of a later release"}) == Properties()


@pytest.mark.parametrize(
    ("event", "reading"),
    [
        (SlotChanged("b", "emptied", ""), True), (BootGood("a", "1"), True), (FaultRecorded("panic", ""), True),
        (UpdateAvailable("1.2.0"), True), (UpdateChanged("verifying", "idle", "1", "failed"), True),
        (UpdateChanged("activating", "rebooting", "1"), True), (UpdateChanged("idle", "checking"), False),
        (UpdateAdvanced("downloading", "1", 10, 5), False),
    ],
)  # fmt: skip
def test_only_what_events_do_not_tell_is_read(event: DeviceEvent, reading: bool) -> None:
    assert wants_reading(event.to_json()) is reading


@pytest.mark.parametrize(
    ("event", "ending"),
    [
        (UpdateChanged("confirming", "idle", "1.1.0", "installed"), Completion(0, "release 1.1.0: installed")),
        (UpdateChanged("confirming", "idle", "1.1.0", "rolled_back"), Completion(1, "release 1.1.0: rolled back")),
        (
            UpdateChanged("downloading", "idle", "1.1.0", "failed", "bad_payload"),
            Completion(1, "release 1.1.0: failed (bad_payload)"),
        ),
        (
            UpdateChanged("activating", "rebooting", "1.1.0"),
            Completion(0, "release 1.1.0 is installed and waits for a restart"),
        ),
        (UpdateChanged("checking", "idle"), None),
        (UpdateChanged("idle", "checking"), None),
        (FaultRecorded("panic", "x"), None),
    ],
)
def test_how_an_update_ended(event: DeviceEvent, ending: Completion | None) -> None:
    assert completion(event.to_json()) == ending


# --- one signal for each end --------------------------------------------------------------------------------------------------
BEGINS = UpdateChanged("idle", "checking").to_json()
FAILS = UpdateChanged("checking", "idle", "1.1.0", "failed", "refused").to_json()


def test_the_end_of_somebody_elses_update_is_told() -> None:
    endings = Endings()
    assert endings.heard(BEGINS) is None
    assert endings.heard(FAILS) == Completion(1, "release 1.1.0: failed (refused)")


@pytest.mark.parametrize("order", ["event first", "answer first"])
def test_the_end_of_an_update_of_this_door_is_told_once_in_the_answers_words(order: str) -> None:
    endings = Endings()
    endings.asked()
    assert endings.heard(BEGINS) is None
    told = []
    if order == "event first":
        told.append(endings.heard(FAILS))
    told.append(endings.answered(1, "the release is for another board"))
    if order == "answer first":
        told.append(endings.heard(FAILS))
    assert [t for t in told if t] == [Completion(1, "the release is for another board")]
    assert endings.heard(BEGINS) is None
    assert endings.heard(FAILS) is not None, "the next one is news again"


def test_an_end_that_no_event_tells_leaves_nothing_behind() -> None:
    endings = Endings()
    endings.asked()
    endings.heard(BEGINS)
    assert endings.answered(1, "the server cannot be reached") == Completion(1, "the server cannot be reached")
    endings.heard(BEGINS)
    assert endings.heard(FAILS) is not None


def test_a_refusal_that_comes_late_is_told() -> None:
    endings = Endings()
    endings.asked()
    endings.promised()
    assert endings.answered(1, "no place") == Completion(1, "no place")
    endings.asked()
    assert endings.answered(1, "no place") is None, "this one was an error"


def test_a_refusal_because_another_update_runs_is_no_end_and_hides_none() -> None:
    endings = Endings()
    endings.heard(BEGINS)
    endings.asked()
    assert endings.answered(1, "An update is running already.") is None
    assert endings.heard(FAILS) == Completion(1, "release 1.1.0: failed (refused)")
    endings.heard(BEGINS)
    endings.asked()
    assert endings.heard(FAILS) is not None, "it was the other one's"
