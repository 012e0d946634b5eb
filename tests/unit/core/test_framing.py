"""Answers on the wire: exactly the headers of the command language, and nothing that a terminal would obey."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.framing import (
    MAX_BODY_BYTES,
    MAX_DATA_BYTES,
    MAX_LOG_BYTES,
    TEXTS,
    Code,
    Frame,
    FrameError,
    FrameReader,
    body_bytes,
    encode_answer,
    encode_data,
    encode_log,
)


@pytest.mark.parametrize(
    ("code", "text", "wire"),
    [
        (Code.SUCCESS, "Success", b"R000009\r\nSuccess\r\n"),
        (Code.SUCCESS, "Set OK", b"R000008\r\nSet OK\r\n"),
        (Code.SUCCESS, "File created", b"R000014\r\nFile created\r\n"),
        (Code.FAILED, "Command failed", b"R100016\r\nCommand failed\r\n"),
        (Code.SUCCESS, "", b"R000000\r\n"),
        (Code.SUCCESS, "a\nb", b"R000006\r\na\r\nb\r\n"),
        (Code.SUCCESS, "grün", b"R000007\r\ngr\xc3\xbcn\r\n"),
    ],
)
def test_answers_to_the_byte(code: Code, text: str, wire: bytes) -> None:
    assert encode_answer(code, text, safe_mode=False) == wire


def test_bytes_go_out_as_they_are() -> None:
    assert encode_data(b"\x00\x03\r\n", safe_mode=False) == b"R000006\r\n\x00\x03\r\n\r\n"
    assert encode_data(b"", safe_mode=True) == b"S000000\r\n"
    assert len(encode_data(bytes(MAX_DATA_BYTES), safe_mode=False)) == MAX_BODY_BYTES + 9
    with pytest.raises(ValueError, match="do not fit"):
        encode_data(bytes(MAX_DATA_BYTES + 1), safe_mode=False)


def test_safe_mode_has_its_own_letter() -> None:
    assert encode_answer(Code.UNKNOWN_COMMAND, "Unknown command", safe_mode=True) == b"S300017\r\nUnknown command\r\n"


def test_every_code_has_a_text() -> None:
    assert set(TEXTS) == set(Code)
    assert [int(c) for c in Code] == list(range(10))


def test_too_long_an_answer_becomes_a_buffer_overflow() -> None:
    longest = "x" * (MAX_BODY_BYTES - 2)
    assert encode_answer(Code.SUCCESS, longest, safe_mode=False).startswith(b"R099999\r\n")
    assert encode_answer(Code.SUCCESS, longest + "x", safe_mode=False) == b"R800017\r\nBuffer overflow\r\n"


def test_control_characters_never_reach_a_terminal() -> None:
    hostile = "ok\x1b[2J\x07\x9b31m\x00\udc80 end\r\nnext\rlast"
    assert body_bytes(hostile) == b"ok?[2J??31m?? end\r\nnext\r\nlast\r\n"


@given(st.text())
def test_log_blocks_are_bounded_and_lose_nothing(text: str) -> None:
    frames = FrameReader().feed(encode_log(text))
    assert all(f.kind == "L" and len(f.body) <= MAX_LOG_BYTES and f.body.endswith(b"\r\n") for f in frames)
    assert b"".join(f.body for f in frames) == body_bytes(text)


def test_long_log_lines_are_split_between_characters() -> None:
    frames = FrameReader().feed(encode_log("ü" * 5000))
    assert len(frames) == 3
    assert "".join(f.body.decode().removesuffix("\r\n") for f in frames) == "ü" * 5000


@given(st.lists(st.tuples(st.sampled_from(Code), st.text(max_size=40)), max_size=6), st.data())
def test_reader_takes_any_cut(answers: list[tuple[Code, str]], data: st.DataObject) -> None:
    wire = b"".join(encode_answer(code, text, safe_mode=False) for code, text in answers)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    reader = FrameReader()
    frames: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        frames += reader.feed(wire[start:end])
    assert frames == [Frame("R", int(code), body_bytes(text)) for code, text in answers]


@given(st.binary(max_size=64))
def test_reader_raises_only_its_own_error(data: bytes) -> None:
    try:
        frames = FrameReader().feed(data)
    except FrameError:
        assert len(data) >= 9
    else:
        assert sum(len(f.body) + 9 for f in frames) <= len(data)


def test_reader_refuses_what_is_no_header() -> None:
    with pytest.raises(FrameError, match="R000009"):
        FrameReader().feed(b"> version\r\n")
