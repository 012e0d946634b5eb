"""The small files: replaced whole or not at all, bounded, tolerant of damage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.device import Fuse, PowerCutError
from zentrid.core.update import State
from zentrid.update.durable import remove_durable, write_durable
from zentrid.update.errors import UpdateRefusedError
from zentrid.update.files import open_bundle_file
from zentrid.update.journal import Entry, Journal
from zentrid.update.outbox import MAX_REPORT_BYTES, MAX_REPORTS, Outbox

REPORT_ID = "0a0b0c0d-0000-4000-8000-000000000001"


def test_cut_anywhere_the_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    count = Fuse()
    write_durable(path, b"old", count)
    assert len(count.steps) == 4
    for at in range(len(count.steps)):
        write_durable(path, b"old")
        with pytest.raises(PowerCutError):
            write_durable(path, b"new" * 1000, Fuse(at))
        assert path.read_bytes() == (b"new" * 1000 if at == 3 else b"old")
    write_durable(path, b"new")
    assert [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")] == ["file"]


def test_it_is_flushed_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(fd: int) -> None:
        calls.append("fsync")
        fsync(fd)

    def noting_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    write_durable(tmp_path / "file", b"x")
    assert calls == ["fsync", "rename", "fsync"]


def test_removing_what_is_not_there(tmp_path: Path) -> None:
    remove_durable(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    remove_durable(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_the_journal_remembers(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    journal = Journal(path)
    assert journal.entry == Entry()
    journal.save(
        state=State.CONFIRMING,
        target="b",
        to_version="1.1.0",
        pending={"id": REPORT_ID},
        result=1,
    )
    assert Journal(path).entry == journal.entry
    journal.remember(result=2)
    assert (journal.entry.result, Journal(path).entry.result) == (2, 1)


@pytest.mark.parametrize(
    "change", [{"state": "asleep"}, {"target": "r"}, {"result": "x"}, {"pending": []}, {"update_id": None, "target": 1}]
)
def test_a_journal_that_makes_no_sense_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "journal.json"
    Journal(path).save(state=State.VERIFYING)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert Journal(path).entry == Entry()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff" * 100, b"[" * 50_000])
def test_a_journal_of_garbage_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(content)
    assert Journal(path).entry == Entry()


def report(text: str) -> dict[str, object]:
    return {"id": str(uuid4()), "detail": text}


def test_reports_wait_in_order_and_once(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox")
    assert (box.reports(), len(box)) == ([], 0)
    made = [report(str(number)) for number in range(5)]
    for item in (*made, made[0]):
        box.put(item)
    assert Outbox(tmp_path / "outbox").reports() == made
    box.remove(str(made[2]["id"]))
    box.remove(str(made[2]["id"]))
    assert box.reports() == [made[0], made[1], made[3], made[4]]


def test_the_oldest_report_gives_way(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    made = [report(str(number)) for number in range(MAX_REPORTS + 3)]
    for item in made:
        box.put(item)
    assert box.reports() == made[3:]


def test_damaged_reports_are_passed_over(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    good = report("good")
    box.put(report("bad"))
    box.put(good)
    first = sorted(tmp_path.iterdir())[0]
    first.write_bytes(b"{")
    (tmp_path / "0000000003-notes.txt").write_bytes(b"not a report")
    assert box.reports() == [good]
    assert not first.exists()


def test_only_an_ordinary_file_is_opened_as_a_bundle(tmp_path: Path) -> None:
    """A pipe that nobody writes to would hold up the whole supervisor."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ""):
        with pytest.raises(UpdateRefusedError, match="no ordinary file"), open_bundle_file(str(tmp_path / name)):
            pass
    (tmp_path / "file").write_bytes(b"x")
    with open_bundle_file(str(tmp_path / "file")) as fd:
        assert fd is not None
        assert os.read(fd, 9) == b"x"


def test_the_largest_fault_fits_and_a_larger_report_is_refused(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    frames = [{"module": "\n" * 200, "build_id": "f" * 64, "address": 2**64 - 1}] * 32
    fault = {"id": REPORT_ID, "fault": {"frames": frames, "text": "\x1b" * 4096}}
    outbox.put(fault)
    assert outbox.reports() == [fault]
    with pytest.raises(OSError, match=f"at most {MAX_REPORT_BYTES} bytes"):
        outbox.put({"id": str(uuid4()), "detail": "x" * MAX_REPORT_BYTES})
    assert len(outbox) == 1
