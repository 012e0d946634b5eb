"""The line editor: what a person sees while typing, which lines come out, and that nothing makes it fail or grow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.grammar import MAX_LINE_BYTES
from zentrid.core.lineedit import MAX_HISTORY, Event, LineEditor

WORDS = ("get", "version", "reboot", "reload", "system.uuid", "system.uptime")
UP, DOWN, RIGHT, LEFT, HOME, END, DELETE = (
    b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[H", b"\x1b[F", b"\x1b[3~",
)  # fmt: skip


def complete(before: str) -> Sequence[str]:
    return WORDS


def lines(editor: LineEditor, data: bytes) -> list[str]:
    """Feed everything; return the finished lines, with other events as `<name>`."""
    found = []
    while data:
        step = editor.feed(data)
        data = step.rest
        if step.event is Event.LINE:
            found.append(step.line)
            editor.remember(step.line)
        elif step.event is not Event.NONE:
            found.append(f"<{step.event.value}>")
    return found


def screen(output: bytes) -> str:
    """Return the last screen line after this output, as a simple terminal would show it."""
    cells: list[str] = []
    at = 0
    text = output.decode()
    for char in text.rsplit("\n", 1)[-1]:
        if char == "\b":
            at -= 1
        elif char == "\r":
            at = 0
        elif char != "\a":
            cells[at : at + 1] = [char]
            at += 1
    return "".join(cells).rstrip()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"version\r", ["version"]),
        (b"a\r\nb\nc\r", ["a", "b", "c"]),
        (b"\r\n\r\n", ["", ""]),
        (b"versoin\x7f\x7f\x7fion\r", ["version"]),
        (b"vers\x08\x08rs\r", ["vers"]),
        (b"ab" + LEFT + b"x\r", ["axb"]),
        (b"abc" + HOME + b"x" + END + b"y\r", ["xabcy"]),
        (b"abc\x01x\x05y\r", ["xabcy"]),
        (b"abc" + LEFT + LEFT + DELETE + b"\r", ["ac"]),
        (b"abc" + LEFT + RIGHT + b"d\r", ["abcd"]),
        (b"one two\x17x\r", ["one x"]),
        (b"abc\x15x\r", ["x"]),
        (b"abc" + LEFT + b"\x0b\r", ["ab"]),
        (b"abc\x03x\r", ["<interrupt>", "x"]),
        (b"\x04", ["<end>"]),
        (b"ab\x01\x04\r", ["b"]),
        (b"gr\xc3\xbcn\r", ["grün"]),
        (b"gr\xc3\xbc\x7fu\r", ["gru"]),
        (b"\xff\r", ["<invalid>"]),
        (b"a\xc3\r", ["<invalid>"]),
        (b"a\xc3b\r", ["<invalid>"]),
        (b"\xed\xa0\x80\r", ["<invalid>"]),
        (b"\xf4\x90\x80\x80x\rok\r", ["<invalid>", "ok"]),
        (b"a\x00b\x1b[99;99~c\x1bOPd\r", ["abcd"]),
        (b"a\x1b[" + b"1;" * 40 + b"\rb\r", ["a" + "1;" * 33, "b"]),
    ],
)
def test_lines(data: bytes, expected: list[str]) -> None:
    assert lines(LineEditor(), data) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_of_any_size_give_the_same(size: int) -> None:
    data = b"ab" + LEFT + "ü€😀".encode() + b"\r\nversion\r\n"
    editor = LineEditor()
    found = []
    for start in range(0, len(data), size):
        found += lines(editor, data[start : start + size])
    assert found == ["aü€😀b", "version"]


def test_the_line_that_is_too_long_is_thrown_away_whole() -> None:
    editor = LineEditor()
    assert lines(editor, b"x" * (MAX_LINE_BYTES + 1) + b"\rversion\r") == ["<overflow>", "version"]
    assert lines(editor, b"x" * MAX_LINE_BYTES + b"\r") == ["x" * MAX_LINE_BYTES]


def test_too_long_a_line_can_be_started_again() -> None:
    assert lines(LineEditor(), b"x" * (MAX_LINE_BYTES + 9) + b"\x15version\r") == ["version"]


def test_feeding_stops_after_each_line() -> None:
    step = LineEditor().feed(b"one\rtwo\r")
    assert (step.event, step.line, step.rest) == (Event.LINE, "one", b"two\r")


def test_echo_shows_what_was_typed() -> None:
    editor = LineEditor()
    assert editor.feed(b"ver").output == b"ver"
    assert editor.feed(b"\x7f").output == b"\b \b"
    assert editor.feed(b"\r").output == b"\r\n"
    assert LineEditor().feed(b"ab\x03").output == b"ab^C\r\n"


def test_no_echo_sends_nothing_back() -> None:
    editor = LineEditor(complete)
    editor.echo = False
    assert editor.feed(b"ver\t\x7f" + UP + b"\x03").output == b""
    assert editor.redraw() == b""


def test_editing_in_the_middle_looks_right() -> None:
    editor = LineEditor()
    output = editor.feed(b"get all" + LEFT * 3 + b"x \x7f" + HOME + DELETE + b"G").output
    assert editor.text == "Get xall"
    assert screen(output) == "Get xall"


def test_wide_characters_take_two_columns() -> None:
    editor = LineEditor()
    editor.feed("漢".encode())
    assert editor.feed(b"\x7f").output == b"\b\b  \b\b"


# --- history ----------------------------------------------------------------------------------------------------------
def test_history_goes_back_and_forth() -> None:
    editor = LineEditor()
    lines(editor, b"one\rtwo\r")
    assert lines(editor, b"dra" + UP + UP + b"\r") == ["one"]
    assert lines(editor, b"dra" + UP + UP + DOWN + DOWN + b"ft\r") == ["draft"]
    assert lines(editor, b"\x10\x10\x0e\r") == ["draft"]


def test_history_has_ends() -> None:
    editor = LineEditor()
    lines(editor, b"one\r")
    assert editor.feed(UP + UP + UP).output.endswith(b"\a")
    assert editor.text == "one"
    assert editor.feed(DOWN + DOWN).output.endswith(b"\a")
    assert editor.text == ""


def test_history_is_bounded_and_without_repetition() -> None:
    editor = LineEditor()
    for number in range(MAX_HISTORY + 10):
        lines(editor, b"%d\r%d\r" % (number, number))
    assert lines(editor, UP * 1000 + b"\r") == ["10"]


def test_blank_lines_are_not_remembered() -> None:
    editor = LineEditor()
    lines(editor, b"one\r  \r\r")
    assert lines(editor, UP + b"\r") == ["one"]


# --- completion -------------------------------------------------------------------------------------------------------
def test_one_candidate_is_put_in() -> None:
    assert lines(LineEditor(complete), b"ver\t\r") == ["version "]


def test_common_start_is_put_in_then_the_candidates_are_shown() -> None:
    editor = LineEditor(complete)
    editor.prompt = "> "
    editor.feed(b"get sy\t")
    assert editor.text == "get system.u"
    assert editor.feed(b"\t").output == b"\r\nsystem.uuid  system.uptime\r\n> get system.u"


def test_no_candidate_rings() -> None:
    assert LineEditor(complete).feed(b"zz\t").output == b"zz\a"


# --- machine mode -----------------------------------------------------------------------------------------------------
def test_machine_mode_knows_no_editing_keys() -> None:
    editor = LineEditor(complete)
    editor.echo = editor.editing = False
    assert lines(editor, b"get\tall\x7f\x7fll\r\n\x04" + b"x\x03\r\n") == ["get all", "<interrupt>", ""]


# --- anything ---------------------------------------------------------------------------------------------------------
KEYS = st.sampled_from(
    [UP, DOWN, LEFT, RIGHT, HOME, END, DELETE, b"\t", b"\x7f", b"\x17", b"\x15", b"\r", b"\xc3", b"ab"]
)


@given(st.lists(KEYS | st.binary(max_size=6), max_size=60), st.booleans(), st.booleans())
def test_no_bytes_make_it_fail_or_grow(pieces: list[bytes], echo: bool, editing: bool) -> None:
    editor = LineEditor(complete)
    editor.echo, editor.editing = echo, editing
    for piece in pieces:
        rest = piece
        while rest:
            step = editor.feed(rest)
            assert len(step.rest) < len(rest)
            rest = step.rest
            if step.event is Event.LINE:
                assert len(step.line.encode()) <= MAX_LINE_BYTES
                editor.remember(step.line)
            assert len(editor.text.encode()) <= MAX_LINE_BYTES


@given(
    st.lists(
        st.sampled_from([LEFT, RIGHT, HOME, END, DELETE, b"\x7f", b"\x17", b"\x0b", b"a", b"bc", b" "]), max_size=40
    )
)
def test_the_screen_shows_the_line(pieces: list[bytes]) -> None:
    editor = LineEditor()
    output = editor.feed(b"".join(pieces)).output
    assert screen(output) == editor.text.rstrip()
