"""The boot state: text form, tolerance, transitions."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core import bootstate as bs
from zentrid.core.names import BOOTSTATE_VARS, MAX_FAULTS
from zentrid.core.version import Version

FAULT = bs.Fault("panic", "a", "1.2.3", 77, "2026-11-01T10:00:00Z", "Kernel panic - not syncing: sysrq; triggered")

versions = st.builds(Version, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535))
faults = st.builds(
    bs.Fault,
    st.text(max_size=60),
    st.sampled_from("abr?"),
    st.text(max_size=60),
    st.integers(),
    st.text(),
    st.text(max_size=400),
)
states = st.builds(
    bs.BootState,
    seq=st.integers(0, 2**40),
    order=st.sampled_from([("a", "b"), ("b", "a")]),
    a_left=st.integers(0, 9),
    b_left=st.integers(0, 9),
    a_good=st.booleans(),
    b_good=st.booleans(),
    running=st.booleans(),
    faults=st.integers(0, 8),
    cold_boots=st.integers(0, 20),
    safemode=st.booleans(),
    factory_reset=st.integers(0, 2),
    floor=versions,
    boot_floor=versions,
)


def raw(**values: str) -> bytes:
    body = b"".join(f"{name}={value}\0".encode() for name, value in values.items()).ljust(4092, b"\0")
    return zlib.crc32(body).to_bytes(4, "little") + body


@given(states)
def test_what_is_written_is_what_is_read(state: bs.BootState) -> None:
    assert bs.decode(bs.encode(state)) == state


@given(states, st.lists(faults, max_size=12))
def test_any_fault_text_fits_and_keeps_its_number(state: bs.BootState, records: list[bs.Fault]) -> None:
    for record in records:
        state = bs.add_fault(state, record)
    copy = bs.encode(state)
    back = bs.decode(copy)
    assert len(copy) == 4096
    assert len(back.fault_records) == min(len(records), MAX_FAULTS)
    assert [f.slot for f in back.fault_records] == [f.slot for f in records[-MAX_FAULTS:]]


@given(st.binary(max_size=4092))
def test_no_bytes_with_a_right_checksum_raise(body: bytes) -> None:
    padded = body.ljust(4092, b"\0")
    bs.decode(zlib.crc32(padded).to_bytes(4, "little") + padded)


def test_every_shared_name_is_written_and_no_other() -> None:
    state = bs.BootState()
    for _ in range(MAX_FAULTS):
        state = bs.add_fault(state, FAULT)
    text = bs.encode(state)[4:].split(b"\0\0")[0]
    assert {entry.split(b"=")[0].decode() for entry in text.split(b"\0")} == set(BOOTSTATE_VARS)


def test_numbers_are_as_the_boot_script_writes_them() -> None:
    state = bs.BootState(seq=0x1F, cold_boots=0x14, floor=Version(1, 2, 3), boot_floor=Version(1, 2, 3))
    entries = bs.encode(state)[4:].split(b"\0")
    assert {b"seq=1f", b"cold_boots=14", b"floor=1.2.3", b"boot_floor=01020003", b"BOOT_ORDER=A B"} <= set(entries)


@pytest.mark.skipif(shutil.which("mkenvimage") is None, reason="needs mkenvimage of u-boot-tools")
def test_the_same_bytes_as_the_tool_of_u_boot(tmp_path: Path) -> None:
    copy = bs.encode(bs.add_fault(bs.BootState(seq=9), FAULT))
    source = tmp_path / "env.txt"
    source.write_bytes(copy[4:].split(b"\0\0")[0].replace(b"\0", b"\n") + b"\n")
    made = tmp_path / "env.bin"
    subprocess.run(["mkenvimage", "-s", "0x1000", "-p", "0", "-o", str(made), str(source)], check=True)
    assert made.read_bytes() == copy


@pytest.mark.parametrize("position", [0, 3, 4, 100, 4095])
def test_one_changed_bit_is_refused(position: int) -> None:
    copy = bytearray(bs.encode(bs.BootState(seq=1)))
    copy[position] ^= 4
    with pytest.raises(bs.CorruptCopyError, match="checksum"):
        bs.decode(bytes(copy))


@pytest.mark.parametrize("length", [0, 4095, 4097])
def test_a_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(bs.CorruptCopyError, match="bytes"):
        bs.decode(bytes(length))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BOOT_ORDER", "A A"),
        ("BOOT_ORDER", "A"),
        ("BOOT_ORDER", "A B C"),
        ("BOOT_A_LEFT", "a"),
        ("BOOT_B_LEFT", "-1"),
        ("faults", "9"),
        ("cold_boots", "15"),
        ("running", "2"),
        ("factory_reset", "yes"),
        ("floor", "1.2"),
        ("boot_floor", "0x1ffffffff"),
        ("seq", "ffffffffffffffff"),
        ("fault_3", "panic"),
        ("fault_3", "panic;a;1.0.0;soon;?;"),
    ],
)
def test_a_bad_value_becomes_its_default_and_is_noted(name: str, value: str) -> None:
    state = bs.decode(raw(**{name: value}))
    assert state == bs.BootState()
    assert len(state.notes) == 1
    assert name in state.notes[0]


def test_unknown_names_are_ignored() -> None:
    state = bs.decode(raw(bootcmd="run evil", seq="5"))
    assert state == bs.BootState(seq=5)
    assert b"bootcmd" not in bs.encode(state)


def test_the_newest_valid_copy_counts() -> None:
    old, new = bs.encode(bs.BootState(seq=9)), bs.encode(bs.BootState(seq=10))
    torn = new[:100] + old[100:]
    assert bs.newest(old, new)[1] == 1
    assert bs.newest(new, old)[1] == 0
    assert bs.newest(old, torn) == (bs.BootState(seq=9), 0)
    assert bs.newest(old, old)[1] == 1
    with pytest.raises(bs.BootStateLostError, match="both copies"):
        bs.newest(torn, b"")


def test_an_update_takes_the_target_away_before_and_gives_it_back_after() -> None:
    state = bs.BootState(a_good=True, b_good=True, cold_boots=4)
    during = bs.prepare_target(state, "b")
    assert (during.left("b"), during.good("b"), during.left("a"), during.good("a")) == (0, False, 3, True)
    assert bs.prepare_target(during, "a").order == ("b", "a")
    after = bs.activate(during, "b")
    assert (after.order, after.left("b"), after.good("b"), after.cold_boots) == (("b", "a"), 3, False, 0)
    assert (after.left("a"), after.good("a")) == (3, True)


def test_good_raises_the_floor_and_never_lowers_it() -> None:
    state = replace(bs.BootState(), b_left=1, floor=Version(2, 0, 0), boot_floor=Version(1, 9, 0), cold_boots=7)
    good = bs.mark_good(state, "b", Version(1, 9, 9), Version(1, 0, 0))
    assert (good.b_left, good.b_good, good.cold_boots) == (3, True, 0)
    assert (good.floor, good.boot_floor) == (Version(2, 0, 0), Version(1, 9, 0))
    raised = bs.mark_good(state, "b", Version(2, 1, 0), Version(2, 1, 0))
    assert (raised.floor, raised.boot_floor) == (Version(2, 1, 0), Version(2, 1, 0))
    assert bs.mark_good(state, "b", Version(2, 1, 0), None).boot_floor == Version(1, 9, 0)


def test_a_boot_floor_above_the_release_itself_does_not_lock_it_out() -> None:
    good = bs.mark_good(bs.BootState(), "a", Version(1, 0, 0), Version(9, 0, 0))
    assert good.boot_floor == Version(1, 0, 0)


def test_the_safe_mode_system_raises_no_floor_and_is_never_a_target() -> None:
    state = bs.BootState(cold_boots=3)
    assert bs.mark_good(state, "r", Version(9, 0, 0), None) == bs.BootState()
    for change in (bs.prepare_target, bs.activate):
        with pytest.raises(ValueError, match="no counters"):
            change(state, "r")


def test_faults_are_counted_to_eight_and_the_newest_are_kept() -> None:
    state = bs.BootState()
    for number in range(10):
        state = bs.add_fault(state, replace(FAULT, uptime_s=number))
    assert state.faults == 8
    assert [record.uptime_s for record in state.fault_records] == list(range(2, 10))
    assert bs.clear_faults(bs.request_safe_mode(state)) == bs.BootState()


def test_requests() -> None:
    state = bs.BootState(running=True)
    assert bs.clean_shutdown(state) == bs.BootState()
    assert bs.request_factory_reset(state).factory_reset == 1
    assert bs.request_factory_reset(state, settings_only=True).factory_reset == 2
    assert bs.factory_reset_done(bs.request_factory_reset(state)) == state
    damaged = bs.BootState(safemode=True, faults=3)
    assert not bs.factory_reset_done(bs.request_factory_reset(damaged)).safemode, "the data is new, its damage is over"
    assert bs.factory_reset_done(bs.request_factory_reset(damaged)).faults == 3
    assert bs.factory_reset_done(bs.request_factory_reset(damaged, settings_only=True)).safemode


def test_a_release_on_trial_keeps_its_newest_seven_faults_and_never_gets_an_eighth():
    state = bs.BootState()
    for number in range(12):
        state = bs.add_fault(state, replace(FAULT, uptime_s=number), most=7)
    assert state.faults == len(state.fault_records) == 7
    assert state.fault_records[-1].uptime_s == 11
    full = bs.BootState(faults=8, fault_records=(FAULT,) * 8)
    assert bs.add_fault(full, FAULT, most=7).faults == 8, "what was counted stays counted"


def test_the_faults_of_a_release_that_was_taken_back_go_with_it():
    mine, its, unknown = (
        replace(FAULT, slot="a", version="1.0.0"),
        replace(FAULT, slot="b", version="2.0.0"),
        replace(FAULT, slot="b", version="?"),
    )
    state = bs.BootState(faults=4, fault_records=(mine, its, unknown, replace(its, version="1.5.0")))
    left = bs.forget_release(state, "b", "2.0.0")
    assert left.faults == 2
    assert [f.version for f in left.fault_records] == ["1.0.0", "1.5.0"]


def test_the_script_s_own_record_of_a_reset_is_read():
    copy = bs.encode(bs.BootState(faults=1, fault_records=(bs.Fault("reset", "a", "?", 0, "?"),), last="a"))
    assert b"fault_0=reset;a;?;0;?;\0" in copy
    assert b"last=a\0" in copy
    assert bs.decode(copy).fault_records == (bs.Fault("reset", "a", "?", 0, "?", ""),)


def test_a_last_system_that_is_none_is_noted():
    damaged = bs.encode(bs.BootState(last="a"))[4:].replace(b"last=a", b"last=x")
    state = bs.decode(zlib.crc32(damaged).to_bytes(4, "little") + damaged)
    assert state.last == ""
    assert state.notes
