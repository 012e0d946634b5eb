"""The journal: its last lines, and every later line once, also when the file is put aside meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from zentrid.adapters import journal
from zentrid.adapters.journal import Journal
from zentrid.core.journal import Place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zentrid.log"


def add(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def put_aside(path: Path) -> None:
    path.rename(path.with_name("zentrid.log.1"))


def test_no_journal_is_an_empty_one(path: Path) -> None:
    lines, place = Journal(path).tail(5)
    assert (lines, place) == ([], Place())
    assert Journal(path).news(place) == ([], Place())
    add(path, "first")
    _, place = Journal(path).news(place)
    assert Journal(path).news(place)[0] == ["first"]


def test_last_lines_of_both_files(path: Path) -> None:
    add(path, "a", "b")
    put_aside(path)
    add(path, "c", "d")
    assert Journal(path).tail(3)[0] == ["b", "c", "d"]
    assert Journal(path).tail(1)[0] == ["d"]
    assert Journal(path).tail(100)[0] == ["a", "b", "c", "d"]


def test_news_come_once(path: Path) -> None:
    add(path, "a")
    one = Journal(path)
    _, place = one.tail(10)
    assert one.news(place) == ([], place)
    add(path, "b", "c")
    lines, place = one.news(place)
    assert lines == ["b", "c"]
    with path.open("a") as file:
        file.write("half a li")
    assert one.news(place) == ([], place)
    with path.open("a") as file:
        file.write("ne\n")
    lines, place = one.news(place)
    assert lines == ["half a line"]


def test_news_over_the_change_of_files(path: Path) -> None:
    one = Journal(path)
    add(path, "a")
    _, place = one.tail(10)
    add(path, "b")
    put_aside(path)
    add(path, "c")
    lines, place = one.news(place)
    assert lines == ["b"]
    lines, place = one.news(place)
    assert lines == ["c"]
    put_aside(path)
    assert one.news(place)[0] == []
    add(path, "d")
    lines = []
    for _ in range(3):
        more, place = one.news(place)
        lines += more
    assert lines == ["d"]


def test_a_flood_comes_in_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_STEP_BYTES", 25)
    one = Journal(path)
    _, place = one.tail(1)
    add(path, *(f"line {number}" for number in range(20)), "x" * 60, "last")
    lines: list[str] = []
    for _ in range(40):
        more, place = one.news(place)
        lines += more
    assert lines[:20] == [f"line {number}" for number in range(20)]
    assert "".join(lines[20:-1]) == "x" * 60
    assert lines[-1] == "last"


def test_no_line_commands_a_terminal(path: Path) -> None:
    add(path, "\x1b[2J", "y" * 5000)
    lines, _ = Journal(path).tail(2)
    assert lines == ["?[2J", "y" * 1000]
