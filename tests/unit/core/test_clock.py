"""The earliest time it can be, and setting a clock to it that cannot be right."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from zentrid.adapters.clock import last_signed_time, mend_system_clock
from zentrid.core.clock import DEVICE_LIFETIME, earliest_now, mended


def test_the_latest_of_what_is_known_counts():
    known = ("2026-01-01T00:00:00Z", "2026-11-24T20:00:00Z", "2026-03-01T00:00:00+00:00", "")
    assert earliest_now(known) == datetime(2026, 11, 24, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "soon", "9999-12-31T23:59:59Z", "2300-01-01", "0001-01-01T00:00:00+14:00", "2026-13-01"]
)
def test_damage_is_no_knowledge(text):
    assert earliest_now([text]) is None
    assert earliest_now([text, "2026-01-01"]) == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_clock_that_is_right_is_left_alone():
    assert not mend_system_clock(None)
    assert not mend_system_clock(datetime.now(UTC) - timedelta(days=1))


def test_a_clock_that_is_behind_is_set(monkeypatch):
    calls = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, seconds: calls.append(seconds))
    floor = datetime.now(UTC) + timedelta(days=400)
    assert mend_system_clock(floor)
    assert calls == [floor.timestamp()]


FLOOR = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("clock", "right"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), FLOOR),
        (FLOOR - timedelta(seconds=1), FLOOR),
        (FLOOR, None),
        (datetime(2050, 1, 1, tzinfo=UTC), None),
        (FLOOR + DEVICE_LIFETIME + timedelta(seconds=1), FLOOR),
        (datetime(2099, 1, 1, tzinfo=UTC), FLOOR),
    ],
)
def test_a_clock_that_cannot_be_right_is_set_to_the_earliest_time(clock, right):
    assert mended(clock, FLOOR) == right
    assert mended(clock, None) is None


def test_a_clock_in_2099_is_set_back(monkeypatch):
    calls = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, seconds: calls.append(seconds))
    monkeypatch.setattr(time, "time", lambda: datetime(2099, 1, 1, tzinfo=UTC).timestamp())
    assert mend_system_clock(FLOOR)
    assert calls == [FLOOR.timestamp()]


def test_a_clock_that_cannot_be_set_ends_nothing(monkeypatch):
    def refuse(clock, seconds):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(time, "clock_settime", refuse)
    assert not mend_system_clock(datetime.now(UTC) + timedelta(days=400))


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff", b'{"accepted": '])
def test_a_damaged_memory_of_time_is_empty(tmp_path, content):
    if content is not None:
        (tmp_path / "time.json").write_bytes(content)
    assert last_signed_time(tmp_path) == ""


def test_the_worker_and_the_supervisor_agree_on_the_file(tmp_path):
    (tmp_path / "time.json").write_text('{"signed": "2026-11-24T20:00:00+00:00"}')
    assert last_signed_time(tmp_path) == "2026-11-24T20:00:00+00:00"
