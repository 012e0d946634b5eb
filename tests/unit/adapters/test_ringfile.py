"""The application's log: bounded, readable after a power cut and damage, no error on a bad disk."""

import os
from datetime import UTC, datetime

import pytest

from zentrid.adapters.ringfile import RingFile

LIMIT = 2000
STAMP = "2026-11-02T12:00:00Z"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "app.log"


def ring_at(path):
    return RingFile(path, LIMIT, lambda: datetime(2026, 11, 2, 12, tzinfo=UTC))


def fill(ring, numbers):
    for number in numbers:
        ring.add("app", [f"line {number}"])
        ring.flush()


def test_lines_are_stamped_and_survive(path):
    ring = ring_at(path)
    ring.add("zentrid", ["started"])
    ring.add("app", ["one", "two"])
    assert not path.exists()
    expected = [f"{STAMP} zentrid: started", f"{STAMP} app: one", f"{STAMP} app: two"]
    assert ring.tail(10) == expected, "what waits in RAM is shown too"
    ring.flush()
    assert not ring.pending
    assert ring_at(path).tail(10) == expected
    assert ring_at(path).tail(1) == expected[-1:]
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_segments_and_no_more(path):
    fill(ring_at(path), range(300))
    assert sorted(file.name for file in path.parent.iterdir()) == ["app.log", "app.log.1"]
    assert all(file.stat().st_size <= LIMIT for file in path.parent.iterdir())
    numbers = [int(line.rpartition(" ")[2]) for line in ring_at(path).tail(1000)]
    assert numbers == list(range(numbers[0], 300))
    assert len(numbers) * 33 > LIMIT, "at least one full segment is there"


def test_power_cut_at_every_byte_leaves_a_readable_file(path):
    fill(ring_at(path), range(5))
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        ring = ring_at(path)
        fill(ring, ["after"])
        lines = ring.tail(100)
        assert lines[-1] == f"{STAMP} app: line after"
        complete = whole[:size].count(b"\n")
        assert lines[:complete] == [f"{STAMP} app: line {number}" for number in range(complete)]


def test_power_cut_between_the_two_segments_loses_nothing(path):
    ring = ring_at(path)
    fill(ring, range(20))
    path.replace(path.with_name("app.log.1"))  # the new segment was not begun
    assert ring_at(path).tail(1) == [f"{STAMP} app: line 19"]
    fill(ring_at(path), [20])
    assert ring_at(path).tail(2) == [f"{STAMP} app: line 19", f"{STAMP} app: line 20"]


@pytest.mark.parametrize("damage", [bytes(1500), os.urandom(1999), b"\x1b[2J" * 100, b"\xff" * 50_000])
def test_damaged_content_is_no_error_and_nothing_a_terminal_obeys(path, damage):
    path.parent.mkdir()
    path.write_bytes(damage)
    path.with_name("app.log.1").write_bytes(damage)
    ring = ring_at(path)
    fill(ring, ["after"])
    lines = ring.tail(1000)
    assert lines[-1] == f"{STAMP} app: line after"
    assert all(line.isprintable() for line in lines)
    assert sum(map(len, lines)) <= 2 * LIMIT


def test_a_segment_that_is_no_file_is_no_error(path, tmp_path):
    (path).mkdir(parents=True)
    ring = ring_at(path)
    fill(ring, ["kept in RAM"])
    assert ring.tail(5) == [f"{STAMP} app: line kept in RAM"]
    path.rmdir()
    (tmp_path / "elsewhere").write_text("mine\n")
    path.symlink_to(tmp_path / "elsewhere")
    ring.flush()
    assert (tmp_path / "elsewhere").read_text() == "mine\n", "a link is not followed"
    path.unlink()
    os.mkfifo(path)
    ring.flush()
    path.unlink()
    ring.flush()
    assert ring_at(path).tail(5) == [f"{STAMP} app: line kept in RAM"], "written as soon as that can be done"


def test_a_disk_that_cannot_be_written_costs_no_memory(path, caplog):
    path.parent.parent.joinpath("log").write_text("in the way")
    ring = ring_at(path)
    fill(ring, range(500))
    assert ring._pending_bytes <= LIMIT
    assert ring.tail(1) == [f"{STAMP} app: line 499"]
    assert len(caplog.records) == 1, "said once"


def test_a_disk_that_fills_up_in_the_middle_leaves_no_half_line(path, monkeypatch):
    ring = ring_at(path)
    fill(ring, ["before"])
    write, room = os.write, 10

    def short(fd, data):
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        done = write(fd, bytes(data)[:room])
        room -= done
        return done

    monkeypatch.setattr(os, "write", short)
    fill(ring, ["during"])
    assert path.read_text() == f"{STAMP} app: line before\n"
    monkeypatch.undo()
    fill(ring, ["after"])
    assert [line.rpartition(" ")[2] for line in ring_at(path).tail(9)] == ["before", "during", "after"]


def test_a_very_long_line_is_no_error(path):
    ring = ring_at(path)
    ring.add("app", ["x" * 10_000])
    ring.flush()
    assert path.stat().st_size <= LIMIT
