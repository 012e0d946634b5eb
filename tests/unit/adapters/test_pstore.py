"""The kernel's last words as files, and the order in which resets are explained: written down, told, deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.fakes import FixedSlots, MemoryBootState
from zentrid.adapters.pstore import MAX_FILE_BYTES, MAX_FILES, Pstore
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.postmortem import Explained
from zentrid.resets import explain_resets

RAW = Fault("reset", "a", "?", 0, "?", "")
PANIC = "Panic#1 Part1\n<0>[   18.465872] Kernel panic - not syncing: sysrq triggered crash\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dmesg-ramoops-0").write_text(PANIC)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Sink:
    """Notes what it is told, and what was on the disk then."""

    def __init__(self, store: MemoryBootState, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.told: list[tuple[Explained, str, int]] = []
        self.error: Exception | None = None

    async def __call__(self, explained: Explained) -> None:
        cause = next((fault.cause for fault in reversed(self.store.read().fault_records)), "")
        self.told.append((explained, cause, len(names(self.folder))))
        if self.error is not None:
            raise self.error


def test_newest_first_and_bounded(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 5):
        path = tmp_path / f"dmesg-ramoops-{number:02d}"
        path.write_bytes(b"\xff\x00" * MAX_FILE_BYTES if number == 0 else b"x")
        os.utime(path, (number, number))
    (tmp_path / "folder").mkdir()
    found = Pstore(tmp_path).read()
    assert len(found) == MAX_FILES
    assert [words.time_s for words in found] == sorted((words.time_s for words in found), reverse=True)
    assert max(len(words.text) for words in found) <= MAX_FILE_BYTES
    for _ in range(2):
        Pstore(tmp_path).clear()
    assert names(tmp_path) == ["folder"]


def test_no_pstore_is_no_error(tmp_path: Path) -> None:
    assert Pstore(tmp_path / "none").read() == ()
    Pstore(tmp_path / "none").clear()


async def test_written_then_told_then_deleted(folder: Path) -> None:
    store = MemoryBootState(BootState(faults=2, fault_records=(RAW, RAW)))
    sink = Sink(store, folder)
    told = await explain_resets(store, Pstore(folder), FixedSlots(), sink, warm=True)
    assert [one.fault.cause for one in told] == ["panic", "hang"], "its console said nothing: the last boot hung"
    assert [(one, cause, files) for one, cause, files in sink.told] == [(told[0], "hang", 1), (told[1], "hang", 1)]
    assert told[0].fault == Fault("panic", "a", "1.4.0", 18, told[0].fault.utc, "sysrq triggered crash")
    assert store.read().fault_records == tuple(one.fault for one in told)
    assert store.read().faults == 2
    assert names(folder) == []
    assert await explain_resets(store, Pstore(folder), FixedSlots(), sink, warm=True) == ()
    assert len(sink.told) == 2, "nothing is told twice"


async def test_a_boot_state_that_cannot_be_written_keeps_the_words(folder: Path) -> None:
    store = MemoryBootState(BootState(faults=1, fault_records=(RAW,)))
    store.broken = True
    sink = Sink(store, folder)
    assert await explain_resets(store, Pstore(folder), FixedSlots(), sink, warm=True) == ()
    assert sink.told == []
    assert names(folder) == ["dmesg-ramoops-0"]
    store.broken = False
    [one] = await explain_resets(store, Pstore(folder), FixedSlots(), sink, warm=True)
    assert one.fault.cause == "panic"


async def test_a_report_that_fails_keeps_no_device_from_starting(folder: Path) -> None:
    store = MemoryBootState(BootState(faults=1, fault_records=(RAW,)))
    sink = Sink(store, folder)
    sink.error = OSError("no space")
    assert len(await explain_resets(store, Pstore(folder), FixedSlots(), sink, warm=True)) == 1
    assert names(folder) == []


async def test_a_panic_that_left_no_record_is_reported_and_not_counted(folder: Path) -> None:
    """Of the safe-mode system at eight faults, or of a release on trial at seven."""
    store = MemoryBootState(BootState())
    before, sink = store.read(), Sink(store, folder)
    [told] = await explain_resets(store, Pstore(folder), FixedSlots(), sink, warm=True)
    assert (told.fault.cause, told.fault.slot) == ("panic", "?")
    assert [one for one, _, _ in sink.told] == [told]
    assert store.read() is before, "nothing to write"
    assert names(folder) == []


async def test_a_lost_boot_state_is_no_error(folder: Path) -> None:
    store = MemoryBootState()
    store.state = None
    assert await explain_resets(store, Pstore(folder), FixedSlots(), Sink(store, folder), warm=True) == ()
