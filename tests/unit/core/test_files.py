"""Rules for files: names that lead nowhere else, what is stored with one, and room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.files import (
    FLAG_ESSENTIAL,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_NAME_CHARS,
    MAX_TOTAL_BYTES,
    RESERVE_BYTES,
    RESERVE_INODES,
    FileError,
    FileMeta,
    Room,
    check_change,
    check_growth,
    check_name,
    check_room,
    check_version,
    parse_crc,
    parse_meta,
    parse_type,
)
from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError

PLENTY = Room(0, 0, 1 << 40, 1 << 20)


@pytest.mark.parametrize("name", ["a", "webapp/index.html", "a/b/c/d/e/f/g/h", "x" * MAX_NAME_CHARS, "_1+2@3=4~.js"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/", "/etc/passwd", "a/", "a//b", "../a", "a/../b", "a/./b", ".hidden", "a/.b", "-rf", "a/-b",
        "a b", "a\\b", "a\0b", "ä", "a\nb", "a:b", "a*", "x" * (MAX_NAME_CHARS + 1), "a/b/c/d/e/f/g/h/i",
    ],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(CommandError) as caught:
        check_name(name)
    assert caught.value.code is Code.BAD_ARGUMENT


@given(st.text(alphabet="ab./-\\\0~ ", max_size=12))
def test_a_name_never_leads_out(name: str) -> None:
    try:
        check_name(name)
    except CommandError:
        return
    parts = PurePosixPath(name).parts
    assert str(PurePosixPath(name)) == name
    assert not name.startswith("/")
    assert all(part not in (".", "..") and not part.startswith((".", "-")) for part in parts)


def test_what_is_stored_with_a_file_comes_back() -> None:
    meta = FileMeta("2.0.1-rc1", 0x45, FLAG_ESSENTIAL, 0x6F91)
    assert parse_meta(meta.to_bytes()) == meta
    assert meta.essential


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"null", b"{}", b"[]", b"[1,2,3,4]", b'["1.0",1,0]', b'["1.0",256,0,null]', b'["1.0",1,0,65536]',
        b'["1.0",1,0,true]', b'["1 0",1,0,null]', b'["1.0","1",0,null]', b"[" * 200, b"\xff", b'"abcd"', b"[" + b"1," * 300,
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_forgotten(data: bytes) -> None:
    assert parse_meta(data) == FileMeta()


def test_flags_of_other_versions_are_left_out() -> None:
    assert parse_meta(b'["1.0",1,65535,null]').flags & 0x0001 == 0


@pytest.mark.parametrize(("text", "number"), [("fe", 0xFE), ("FE", 0xFE), ("0xfe", 0xFE), ("0", 0)])
def test_types_are_hexadecimal(text: str, number: int) -> None:
    assert parse_type(text) == number


@pytest.mark.parametrize(
    ("text", "code"), [("100", Code.OUT_OF_BOUNDS), ("", 7), ("g", 7), ("12345", 7), ("-1", 7), ("0x", 7)]
)
def test_what_is_no_type(text: str, code: int) -> None:
    with pytest.raises(CommandError) as caught:
        parse_type(text)
    assert caught.value.code == code


def test_checksums_and_versions() -> None:
    assert parse_crc("0x6F91") == parse_crc("6f91") == 0x6F91
    assert check_version("1.4.0-rc1") == "1.4.0-rc1"
    for bad in ("", "1 0", "x" * 33, "-1", "é"):
        with pytest.raises(CommandError):
            check_version(bad)


def test_room() -> None:
    check_room(PLENTY, MAX_FILE_BYTES)
    check_room(Room(MAX_FILES - 1, MAX_TOTAL_BYTES - 5, RESERVE_BYTES + 5, RESERVE_INODES + 1), 5)
    for room, size_bytes in (
        (PLENTY, MAX_FILE_BYTES + 1),
        (Room(MAX_FILES, 0, 1 << 40, 1 << 20), 0),
        (Room(0, MAX_TOTAL_BYTES - 4, 1 << 40, 1 << 20), 5),
        (Room(0, 0, RESERVE_BYTES + 4, 1 << 20), 5),
        (Room(0, 0, 1 << 40, RESERVE_INODES), 0),
    ):
        with pytest.raises(FileError):
            check_room(room, size_bytes)
    with pytest.raises(FileError, match="room for 0 bytes"):
        check_room(Room(0, 0, 5, 1 << 20), 1)


def test_a_change_of_many_files() -> None:
    there = {"a": 10, "b/c": 20}
    tight = Room(2, MAX_TOTAL_BYTES - 5, 1 << 40, 1 << 20)
    check_change(tight, there, [], {"a": 5, "new": 10})  # one after the other, each in place of its own
    check_change(tight, there, ["b/c"], {"new": 25})
    check_change(tight, there, ["b/c"], {"b": 1})
    check_change(tight, there, ["a"], {"a/d": 15})
    check_change(replace(tight, files=MAX_FILES), there, ["a"], {"new": 1})
    check_change(Room(0, 0, RESERVE_BYTES + 8192, RESERVE_INODES + 1), {"a": 1}, [], {"a": 8192})
    refused: list[tuple[Room, list[str], dict[str, int], str]] = [
        (tight, [], {"new": 5, "a": 5}, "room for 0 bytes"),
        (tight, [], {"a": 10}, "room for 5 bytes"),
        (replace(tight, files=MAX_FILES), [], {"new": 0}, "512 files already"),
        (Room(0, 0, RESERVE_BYTES + 8191, RESERVE_INODES + 9), [], {"x": 1, "y": 4096}, "room for 4095"),
        (tight, [], {"a/d": 1}, "'a' is a file"),
        (tight, [], {"n": 1, "n/m": 1}, "'n' is a file"),
        (tight, [], {"b": 1}, "'b/c' is in a folder"),
    ]
    for room, gone, new, said in refused:
        with pytest.raises(FileError, match=said):
            check_change(room, there, gone, new)


def test_a_file_that_grows_ends_somewhere() -> None:
    check_growth(PLENTY, MAX_FILE_BYTES - 1, 1)
    with pytest.raises(FileError):
        check_growth(PLENTY, MAX_FILE_BYTES, 1)
