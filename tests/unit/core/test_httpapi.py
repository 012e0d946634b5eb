"""Commands by HTTP as values: flags, what is refused, what an answer looks like."""

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.httpapi import (
    MAX_LOG_BYTES,
    BadRequestError,
    CommandRequest,
    answer_json,
    request_from_body,
    request_from_target,
)


def body(**value: object) -> bytes:
    return json.dumps(value).encode()


@given(st.text(), st.binary(), st.integers(0, 7))
def test_what_a_client_codes_is_what_the_command_line_gets(line: str, data: bytes, flags: int):
    raw = line.encode("utf-8", "surrogatepass")
    sent = {
        "command": base64.b64encode(raw).decode() if flags & 1 else line,
        "data": base64.b64encode(data).decode() if flags & 4 else data.decode("latin-1"),
        "flags": flags,
    }
    found = request_from_body(body(**sent))
    assert found.line == raw.rstrip(b"\r\n")
    assert found.data == (data if flags & 4 else data.decode("latin-1").encode())
    assert found.flags == flags


@given(st.binary(max_size=300))
def test_no_body_raises_anything_else(raw: bytes):
    with suppress(BadRequestError):
        request_from_body(raw)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("/command/version", b"version"), ("/command/get%20sy%20u", b"get sy u"), ("/command/get sy u", b"get sy u"),
        ("/command/set%20a%20%22%C3%BC%22", 'set a "ü"'.encode()), ("/command/a?b=c%3Fd", b"a?b=c?d"), ("/command/", b""),
        ("/command/a+b", b"a+b"), ("/command/a%2Fb/c", b"a/b/c"), ("/command/%zz%", b"%zz%"),
    ],
)  # fmt: skip
def test_a_get_means_its_line(target: str, line: bytes):
    assert request_from_target(target) == CommandRequest(line)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"a\nb", Code.PARSE_ERROR), (b"a\rb", Code.PARSE_ERROR), (b"\x00", Code.PARSE_ERROR), (b"\x1b[A", Code.PARSE_ERROR),
        (b"\xff", Code.PARSE_ERROR), (b" \t ", Code.PARSE_ERROR), (b"x" * 2049, Code.BUFFER_OVERFLOW),
    ],
)  # fmt: skip
def test_lines_that_are_none(line: bytes, code: Code):
    with pytest.raises(CommandError) as refused:
        CommandRequest(line).check()
    assert refused.value.code is code


def test_lines_that_are_some():
    for line in (b"x" * 2048, "set a ü".encode(), b"a\tb"):
        CommandRequest(line).check()


def test_answers():
    assert answer_json(7, 0, 0, b"Success\r\n") == {"id": 7, "code": 0, "flags": 0, "response": "Success\r\n"}
    assert answer_json(1, 1, 2, b"a\r\n", ["why"]) == {
        "id": 1, "code": 1, "flags": 2, "response": "YQ0K", "log": ["why"],
    }  # fmt: skip
    assert answer_json(1, 0, 5, b"\xff") == {"id": 1, "code": 0, "flags": 7, "response": "/w=="}
    kept = answer_json(1, 0, 0, b"", [f"{n}" + "x" * 1000 for n in range(100)])["log"]
    assert kept[-1].startswith("99x")
    assert sum(len(line) + 1 for line in kept) <= MAX_LOG_BYTES
