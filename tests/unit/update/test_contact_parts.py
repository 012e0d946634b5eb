"""The pure parts of the regular contact: what counts as a command, who decides, and when to try again."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from zentrid.update import pace
from zentrid.update.contact import COMMANDS_AT_ONCE, Contact, ServerCommand, decide, parse_commands

ID = "0a0b0c0d-0000-4000-8000-000000000001"
RESET = {"id": ID, "command": "factory_reset", "settings_only": False}


# --- what the server may ask for ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "found",
    [
        None,
        "x",
        {},
        [None],
        ["x"],
        [[]],
        [{}],
        [{**RESET, "id": ID.upper()}],
        [{**RESET, "id": ID + "\n"}],
        [{**RESET, "id": "../../etc/passwd"}],
        [{**RESET, "id": 5}],
        [{**RESET, "command": "Factory reset"}],
        [{**RESET, "command": "x" * 33}],
        [{**RESET, "command": None}],
        [{**RESET, "settings_only": "false"}],
        [{**RESET, "settings_only": 0}],
        [{**RESET, "settings_only": None}],
    ],
)
def test_what_has_not_the_right_form_is_no_command(found: Any) -> None:
    assert parse_commands({"commands": found}) == ()


def test_commands_are_few_and_in_order() -> None:
    ids = [str(uuid4()) for _ in range(9)]
    entries = [{**RESET, "id": each} for each in ids]
    assert [command.id for command in parse_commands({"commands": entries})] == ids[:COMMANDS_AT_ONCE]
    assert parse_commands({}) == ()
    assert parse_commands({"commands": [5, {"id": ID, "command": "dance"}]}) == (ServerCommand(ID, "dance", False),)


def test_who_decides() -> None:
    reset = ServerCommand(ID, "factory_reset", settings_only=False)
    assert decide(reset, enabled=True)[0]
    assert decide(reset, enabled=False) == (
        False, "the device takes no commands from the server (dms.cmd.enabled is 0)",
    )  # fmt: skip
    assert not decide(ServerCommand(ID, "dance", settings_only=False), enabled=True)[0]
    assert not Contact().may(reset)[0], "a device that says nothing about it does nothing"


# --- pace -------------------------------------------------------------------------------------------------------------------
def test_pauses_grow_to_a_limit_and_start_small_again() -> None:
    made = pace.Pace(0)
    assert made.due(0)
    pauses = []
    for _ in range(10):
        made.failed(0)
        pauses.append(made.left_s(0))
    for number, pause_s in enumerate(pauses):
        wanted_s = min(10 * 2**number, pace.LONGEST_PAUSE_S)
        assert 0.5 * wanted_s <= pause_s <= 1.5 * wanted_s
    made.succeeded(0, 300)
    made.failed(0)
    assert made.left_s(0) <= 15
    for _ in range(10):
        made.failed(0, grow=False)
        assert 5 <= made.left_s(0) <= 15


def test_devices_that_failed_at_one_time_come_back_one_after_the_other() -> None:
    """A server was restarted under a thousand devices: no moment sees many of them, from the first try on."""
    fleet = [pace.Pace(0) for _ in range(1000)]
    for one in fleet:
        one.failed(100)
    seconds = [int(one.left_s(100)) for one in fleet]
    assert max(seconds.count(second) for second in set(seconds)) < 200
    for one in fleet:
        for _ in range(8):
            one.failed(100)
    seconds = [int(one.left_s(100)) for one in fleet]
    assert max(seconds.count(second) for second in set(seconds)) < 20
    starts = [pace.spread_s(300) for _ in range(1000)]
    assert 0 <= min(starts) < 1 < 14 < max(starts) <= 15


def test_intervals_are_not_all_the_same() -> None:
    made = pace.Pace(0)
    found = set()
    for _ in range(100):
        made.succeeded(1000, 300)
        found.add(made.left_s(1000))
    assert 270 <= min(found) < max(found) <= 330
    assert not made.due(1269)
    assert made.due(1331)
    made.nothing_left()
    assert not made.due(1e12)


def test_a_shorter_interval_holds_at_once() -> None:
    made = pace.Pace(0)
    made.succeeded(1000, 86_400)
    made.at_most(60)
    assert made.left_s(1000) <= 66
    made.failed(1000)
    left_s = made.left_s(1000)
    made.at_most(1)
    assert made.left_s(1000) == left_s, "the pauses after a failure are not for the interval to shorten"
