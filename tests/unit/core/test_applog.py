"""Output becomes whole, clean lines; a flood is cut, counted and told once."""

from zentrid.core import applog
from zentrid.core.applog import MAX_LINE_BYTES, TAIL_BYTES, WINDOW_BYTES, WINDOW_S, OutputLines, clean


def test_lines_are_put_together_from_pieces():
    lines = OutputLines()
    assert lines.feed(b"one\ntw", 0) == ["one"]
    assert lines.feed(b"o\n\nthree", 1) == ["two", ""]
    assert lines.end(2) == ["three"]
    assert lines.tail == "one\ntwo\n\nthree"


def test_a_line_without_an_end_is_cut():
    kept = OutputLines().feed(b"x" * (3 * MAX_LINE_BYTES + 5), 0)
    assert [len(line) for line in kept] == [MAX_LINE_BYTES] * 3


def test_nothing_that_a_terminal_obeys_comes_through():
    assert clean(b"\x1b[2Jred\x07\r") == "?[2Jred?"
    assert clean(b"a\tb \xff \xc3\xa4") == "a    b � ä"


def test_a_flood_is_bounded_and_told_in_one_line():
    lines = OutputLines()
    kept = [line for _ in range(100) for line in lines.feed(b"0123456789\n" * 1000, 1)]
    assert len("".join(kept)) < WINDOW_BYTES
    assert len(kept) > 1000
    assert lines.flooded
    later = lines.feed(b"calm again\n", 1 + WINDOW_S)
    assert later == [
        f"[{100_000 - len(kept)} more lines, {11 * (100_000 - len(kept))} bytes, were not kept]",
        "calm again",
    ]
    assert not lines.flooded
    assert len(lines.tail) <= TAIL_BYTES


def test_after_the_bound_no_short_line_slips_in_between():
    lines = OutputLines()
    kept = lines.feed(b"".join(b"%d " % number + b"x" * (number % 900) + b"\n" for number in range(1000)), 0)
    numbers = [int(line.split()[0]) for line in kept]
    assert numbers == list(range(len(kept)))


def test_a_flood_of_empty_lines_is_bounded_too():
    assert len(OutputLines().feed(b"\n" * 100_000, 0)) <= WINDOW_BYTES // 32


def test_a_flood_that_falls_silent_is_told_of():
    lines = OutputLines()
    lines.feed(b"x\n" * 10_000, 0)
    assert lines.settle(WINDOW_S - 1) == []
    assert "were not kept" in lines.settle(WINDOW_S)[0]
    assert lines.settle(3 * WINDOW_S) == []


def test_the_end_tells_of_a_flood_and_keeps_the_last_words():
    lines = OutputLines()
    lines.feed(b"x\n" * 10_000 + b"last words\n", 0)
    assert "were not kept" in lines.end(1)[-1]
    assert lines.tail.endswith("\nlast words")


def test_beyond_the_bound_lines_are_counted_and_not_looked_at(monkeypatch):
    looked_at = []

    def noted(line):
        looked_at.append(line)
        return clean(line)

    monkeypatch.setattr(applog, "clean", noted)
    lines = OutputLines()
    kept = [line for _ in range(16) for line in lines.feed(b"\n" * 65_536, 0)]
    assert len(looked_at) == len(kept) + 1 <= WINDOW_BYTES // 32 + 1
    left = 16 * 65_536 - len(kept)
    assert lines.end(1) == [f"[{left} more lines, {left} bytes, were not kept]"]


def test_a_line_over_several_reads_of_a_flood_counts_once():
    lines = OutputLines()
    kept = lines.feed(b"x\n" * 10_000, 0)
    for part in (b"be", b"gin", b"ning\nhalf"):
        assert lines.feed(part, 1) == []
    assert lines.feed(b" done\n", WINDOW_S) == [
        f"[{10_001 - len(kept)} more lines, {2 * (10_000 - len(kept)) + 10} bytes, were not kept]",
        "half done",
    ]


def test_a_flood_without_a_line_end_takes_no_memory():
    lines = OutputLines()
    for _ in range(100):
        lines.feed(b"x" * 10_000, 0)
    assert len(lines._rest) <= MAX_LINE_BYTES
    [*_, told] = lines.end(1)
    dropped = 1_000_000 - WINDOW_BYTES // (MAX_LINE_BYTES + 32) * MAX_LINE_BYTES
    assert told == f"[{dropped // MAX_LINE_BYTES} more lines, {dropped} bytes, were not kept]"


def test_the_tail_is_whole_lines_and_bounded_where_text_grows():
    lines = OutputLines()
    lines.feed(b"".join(b"%04d\n" % number for number in range(5000)), 0)
    assert lines.tail == "\n".join(f"{number:04}" for number in range(5000 - TAIL_BYTES // 5, 5000))
    lines.feed(b"\xff" * 900 + b"\n" + b"\xff" * 900 + b"\nend", 1)
    assert lines.tail.split("\n")[1:] == ["end"]
    assert len(lines.tail.encode()) <= TAIL_BYTES
    lines.feed(b"y" * 10_000 + b"\n", 1)
    assert set(lines.tail) == {"y", "\n"}
    assert 3000 < len(lines.tail) <= TAIL_BYTES
