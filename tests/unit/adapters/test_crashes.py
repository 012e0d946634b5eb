"""What a crash has left is believed only as far as it is well formed."""

import json

import pytest

from zentrid.adapters.crashes import take_crash
from zentrid.ports import Frame

FRAME = {"module": "/usr/bin/x", "build_id": "ab" * 20, "address": 64}


def put(folder, content) -> None:
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    (folder / "7.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_crash_is_taken_once(tmp_path):
    put(tmp_path, {"signal": 11, "executable": "/usr/bin/x", "frames": [FRAME, {**FRAME, "build_id": ""}]})
    assert take_crash(7, tmp_path) == (11, (Frame("/usr/bin/x", "ab" * 20, 64), Frame("/usr/bin/x", "", 64)))
    assert take_crash(7, tmp_path) is None
    assert take_crash(8, tmp_path) is None


def test_there_are_at_most_32_frames(tmp_path):
    put(tmp_path, {"signal": 6, "frames": [FRAME] * 100})
    taken = take_crash(7, tmp_path)
    assert taken is not None
    assert len(taken[1]) == 32


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff\xfe",
        "[" * 10_000,
        {"frames": []},
        {"signal": "11", "frames": []},
        {"signal": True, "frames": []},
        {"signal": 0, "frames": []},
        {"signal": 65, "frames": []},
        {"signal": 11, "frames": {}},
        {"signal": 11, "frames": [1]},
        {"signal": 11, "frames": [{**FRAME, "address": -1}]},
        {"signal": 11, "frames": [{**FRAME, "address": 1 << 64}]},
        {"signal": 11, "frames": [{**FRAME, "address": 1.5}]},
        {"signal": 11, "frames": [{**FRAME, "module": "x" * 201}]},
        {"signal": 11, "frames": [{**FRAME, "module": "\x1b[2J"}]},
        {"signal": 11, "frames": [{**FRAME, "build_id": "ABCD"}]},
        {"signal": 11, "frames": [{**FRAME, "build_id": "ab" * 33}]},
        json.dumps({"signal": 11, "frames": []}) + " " * 20_000,
    ],
)
def test_anything_else_counts_as_nothing_and_is_removed(content, tmp_path):
    put(tmp_path, content)
    assert take_crash(7, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_followed(tmp_path):
    put(tmp_path, {"signal": 11, "frames": []})
    (tmp_path / "9.json").symlink_to("7.json")
    assert take_crash(9, tmp_path) is None
    assert (tmp_path / "7.json").exists()
