"""The keeper of exceptions: counted first, reported next, safe mode at the eighth, and never an exception of its own."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import MemoryBootState
from zentrid.core.bootstate import BootState, Fault
from zentrid.faultkeeper import DETAIL_CHARS, REPORT_BYTES, FaultKeeper, fault_report, located, printable_tail
from zentrid.ports import Frame
from zentrid.update.outbox import Outbox


class Clock:
    """Always the same moment."""

    def utc(self):
        return datetime(2026, 11, 25, 12, 0, tzinfo=UTC)

    def uptime_s(self):
        return 61.5


@pytest.fixture
def store():
    return MemoryBootState(BootState())


class Kept(FaultKeeper):
    """A keeper that notes what it calls."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.calls: list[str] = []
        self.heard = lambda fault: self.calls.append(f"heard {fault.cause}")
        self.on_eighth = lambda: self.calls.append("eighth")


def keeper(store, tmp_path, **options):
    return Kept(store, Outbox(tmp_path / "outbox"), Clock(), **{"slot": "a", "version": "1.2.3", **options})


async def test_an_exception_is_counted_kept_and_reported(store, tmp_path):
    frames = [Frame("/usr/bin/pump", "ab" * 20, 0x1234)]
    kept = keeper(store, tmp_path)
    await kept.record("application", "pump ended by signal 11\nreally", frames=frames, text="last words")
    assert store.state.faults == 1
    assert store.state.fault_records == (
        Fault(
            "application",
            "a",
            "1.2.3",
            61,
            "2026-11-25T12:00:00Z",
            f"pump ended by signal 11 really, at 0x1234 in pump {'ab' * 20}",
        ),
    )
    (report,) = Outbox(tmp_path / "outbox").reports()
    assert (report["event"], report["reason"], report["version"]) == ("fault", "application", "1.2.3")
    assert report["fault"]["frames"] == [{"module": "/usr/bin/pump", "build_id": "ab" * 20, "address": 0x1234}]
    assert report["fault"]["text"] == "last words"
    assert kept.calls == ["heard application"]


def test_the_place_of_a_crash_is_whole_however_long_the_rest_is():
    frame = Frame("/data/" + "x" * 300, "cd" * 20, 2**64 - 1)
    detail = located("d" * 500, [frame])
    assert len(detail) <= DETAIL_CHARS
    assert detail.startswith("d")
    assert detail.endswith(f", at 0xffffffffffffffff in {'x' * 40} {'cd' * 20}")
    assert located("no core", []) == "no core"
    assert located("no build-id", [Frame("/bin/x", "", 16)]) == "no build-id, at 0x10 in x"


async def test_the_eighth_asks_for_safe_mode_and_a_seventh_does_not(store, tmp_path):
    kept = keeper(store, tmp_path)
    for _ in range(7):
        await kept.record("application", "exit code 3")
    assert "eighth" not in kept.calls
    await kept.record("application", "exit code 3")
    assert kept.calls[-1] == "eighth"
    assert len(store.state.fault_records) == store.state.faults == 8


async def test_in_safe_mode_nothing_restarts(store, tmp_path):
    kept = keeper(store, tmp_path, slot="r")
    for _ in range(9):
        await kept.record("supervisor", "KeyError: 'x'")
    assert "eighth" not in kept.calls
    assert store.state.faults == 8


async def test_a_release_on_trial_never_makes_the_eighth(store, tmp_path):
    kept = keeper(store, tmp_path, on_trial=lambda: True)
    for _ in range(12):
        await kept.record("application", "exit code 1")
    assert store.state.faults == len(store.state.fault_records) == 7
    assert "eighth" not in kept.calls


async def test_what_cannot_be_written_is_no_exception_and_is_reported_all_the_same(store, tmp_path):
    store.broken = True
    await keeper(store, tmp_path).record("supervisor", "ValueError: no")
    assert store.state.faults == 0
    assert len(Outbox(tmp_path / "outbox").reports()) == 1


async def test_a_report_that_cannot_be_queued_leaves_the_record(store, tmp_path):
    (tmp_path / "outbox").write_text("a file is in the way")
    await keeper(store, tmp_path).record("supervisor", "ValueError: no")
    assert store.state.faults == 1


@given(
    text=st.text(max_size=9000),
    module=st.text(max_size=300),
    frames=st.integers(0, 60),
    address=st.integers(-(2**63), 2**64),
)
def test_a_report_always_fits_the_outbox(text, module, frames, address):
    fault = Fault("application", "a", "1.2.3", 1, "2026-11-25T12:00:00Z", "x" * 160)
    report = fault_report(fault, "1.2.3", fault.utc, [Frame(module, "ab" * 40, address)] * frames, text)
    assert len(json.dumps(report)) <= REPORT_BYTES
    assert len(report["fault"]["frames"]) <= 32


@pytest.mark.parametrize("count", [1, 590, 1024, 2000])
def test_text_that_grows_in_json_is_cut_and_the_fault_still_reported(count):
    fault = Fault("application", "a", "1.2.3", 1, "2026-11-25T12:00:00Z")
    report = fault_report(fault, "1.2.3", fault.utc, [], "\U0001f525" * count)
    assert len(json.dumps(report)) <= REPORT_BYTES


def test_the_end_of_a_long_text_is_kept():
    assert printable_tail("a" * 5000 + "\x1b[31mthe end\n", 12) == "?[31mthe end\n"[-12:]
    assert printable_tail("ü" * 10, 5) == "üü"
