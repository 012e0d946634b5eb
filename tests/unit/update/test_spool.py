"""What an interruption leaves on the data partition: whole or not used, bounded, never needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from zentrid.update.errors import UpdateRefusedError
from zentrid.update.spool import Spool, clear

ROOT, OTHER, BASE = "ab" * 32, "cd" * 32, "ef" * 32


def test_a_head_is_kept_with_its_name(tmp_path: Path) -> None:
    place = Spool(tmp_path, "update").stream(ROOT, BASE)
    assert place.head() is None
    place.keep_head('"tag"', b"head" * 1000)
    again = Spool(tmp_path, "update")
    assert again.stream(ROOT, BASE).head() == ('"tag"', b"head" * 1000)
    assert again.stream(ROOT, None).head() is None
    assert again.knows(ROOT)
    assert not again.knows(OTHER)
    assert again.knows_others({OTHER})
    assert not again.knows_others({ROOT})


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"[]\nx", b"\xff\n", b'{"etag": 1, "sha256": 2}\n'])
def test_a_damaged_head_is_none(tmp_path: Path, damage: bytes) -> None:
    place = Spool(tmp_path, "update").stream(ROOT, None)
    place.keep_head("", b"head")
    [path] = tmp_path.glob("*.head")
    path.write_bytes(damage)
    assert place.head() is None


def test_one_wrong_bit_in_a_head_is_noticed(tmp_path: Path) -> None:
    place = Spool(tmp_path, "update").stream(ROOT, None)
    place.keep_head("", b"head")
    [path] = tmp_path.glob("*.head")
    path.write_bytes(path.read_bytes()[:-1] + b"D")
    assert place.head() is None


def test_the_frame_under_way(tmp_path: Path) -> None:
    place = Spool(tmp_path, "update").stream(ROOT, BASE)
    place.append("tag", 5000, 0, b"first ")
    place.append("tag", 5000, 6, b"second")
    again = Spool(tmp_path, "update").stream(ROOT, BASE)
    assert again.frame("tag", 5000) == b"first second"
    assert again.frame("tag", 5001) == b""
    assert again.frame("another", 5000) == b""
    again.append("tag", 5000, 12, b" third")
    assert again.frame("tag", 5000) == b"first second third"
    again.append("tag", 9000, 0, b"next")
    assert again.frame("tag", 9000) == b"next"
    assert len(list(tmp_path.glob("*.frame"))) == 1
    again.forget()
    assert again.frame("tag", 9000) == b""


def test_bytes_are_counted_over_all_runs_of_one_update(tmp_path: Path) -> None:
    for run in range(3):
        spool = Spool(tmp_path, "update")
        assert spool.received_bytes == run * 1000
        spool.count(1000)
        spool.close()
    assert Spool(tmp_path, "another").received_bytes == 0


def test_more_than_the_budget_ends_the_update(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "update", budget_bytes=1500)
    spool.count(1500)
    with pytest.raises(UpdateRefusedError, match="the budget is 1500") as caught:
        spool.count(1)
    assert caught.value.reason == "budget"
    with pytest.raises(UpdateRefusedError):
        Spool(tmp_path, "update", budget_bytes=1500).count(1)


@pytest.mark.parametrize("damage", [b"", b"x" * 48, b"x" * 1000])
def test_a_damaged_count_begins_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "received").write_bytes(damage)
    assert Spool(tmp_path, "update").received_bytes == 0


def test_only_what_belongs_to_the_update_stays(tmp_path: Path) -> None:
    Spool(tmp_path, "old").stream(OTHER, None).keep_head("", b"old")
    spool = Spool(tmp_path, "update")
    spool.stream(ROOT, BASE).keep_head("", b"new")
    spool.purge()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".head"]
    assert not spool.knows(OTHER)
    clear(tmp_path)
    assert not tmp_path.exists()


def test_it_works_without_a_folder_and_with_a_full_disk(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "missing", Path("/proc/self")):
        spool = Spool(folder, "update")
        place = spool.stream(ROOT, None)
        place.append("", 0, 0, b"x")
        spool.count(5)
        assert (place.frame("", 0), spool.received_bytes) == (b"", 5)
        spool.purge()
        spool.close()


def test_what_lies_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """The folder is the worker's; a link in it leads nowhere."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "ota"
    folder.mkdir()
    (folder / "received").symlink_to(victim)
    Spool(folder, "update").count(5)
    clear(folder)
    assert victim.read_bytes() == b"precious"
