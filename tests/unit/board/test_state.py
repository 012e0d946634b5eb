"""State files: what is written is read, what is damaged is told; names, folders and ports."""

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.board_driver import places
from scripts.board_driver.errors import MachineError
from scripts.board_driver.ports import check_port, free_port
from scripts.board_driver.process import ProcessId
from scripts.board_driver.state import MAX_FILE_BYTES, RunState, StateDamagedError

STATE = RunState(
    name="main", pid=None, start_ticks=None, image="/i", state_dir="/s", ssh_port=1, http_port=2, log_offset=3,
    since_unix_s=4.5, bound=True,
)  # fmt: skip


def test_a_state_is_read_as_it_was_saved(tmp_path: Path):
    path = tmp_path / "state.json"
    assert RunState.load(path) is None
    STATE.save(path)
    assert RunState.load(path) == STATE
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def damaged() -> list[bytes]:
    good = json.loads(json.dumps({"format": 1, **STATE.__dict__}))
    cases: list[object] = [
        good | {"format": 2}, good | {"pid": "1"}, good | {"ssh_port": None}, good | {"ssh_port": True}, good | {"bound": 1},
        good | {"more": 1}, {key: value for key, value in good.items() if key != "image"}, [], None, 1,
    ]  # fmt: skip
    return [json.dumps(case).encode() for case in cases] + [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 5000,
        b" " * (MAX_FILE_BYTES + 1),
    ]


@pytest.mark.parametrize("content", damaged())
def test_damage_is_one_sentence_that_says_what_to_do(tmp_path: Path, content: bytes):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(StateDamagedError, match=r"is damaged .*scripts/board down"):
        RunState.load(path)


@given(st.binary(max_size=200))
def test_no_bytes_give_another_exception(content: bytes):
    path = Path("/dev/shm") / f"zentri-test-state-{os.getpid()}"
    path.write_bytes(content)
    try:
        with pytest.raises(StateDamagedError):
            RunState.load(path)
    finally:
        path.unlink()


def test_a_process_is_not_mistaken_for_a_later_one_with_its_number():
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.alive
    other = ProcessId(me.pid, me.start_ticks - 1)
    assert not other.alive
    other.kill()  # must not end this test
    assert ProcessId.of(2**22 + 1) is None


@pytest.mark.parametrize("name", ["main", "a", "t-0123", "a" * 31])
def test_names(name: str):
    assert places.check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a_b", "a/b", "..", "a b", "a" * 32, "a\n", "ä"])
def test_names_that_are_none(name: str):
    with pytest.raises(MachineError, match="no name for a board"):
        places.check_name(name)


def test_a_run_folder_is_private_short_and_one_per_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, other = (places.run_folder("main", Path(checkout)) for checkout in ("/a", "/b"))
    assert one != other
    assert one == places.run_folder("main", Path("/a"))
    assert one.path.stat().st_mode & 0o777 == 0o700
    assert len(str(one.path.relative_to(tmp_path) / "serial")) < 70


def test_a_run_folder_that_others_can_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    users = tmp_path / f"zentri-{os.getuid()}"
    users.mkdir(mode=0o700)
    users.chmod(0o755)
    with pytest.raises(MachineError, match="only you can use"):
        places.run_folder("main")
    users.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    users.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="only you can use"):
        places.run_folder("main")


def test_the_image_is_the_given_one_the_environments_or_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("rom.bin", "disk.img"):
            (tmp_path / name / file).touch()
    monkeypatch.setenv("ZENTRI_IMAGE_DIR", str(tmp_path / "b"))
    assert places.image_folder(tmp_path / "a") == tmp_path / "a"
    assert places.image_folder(None) == tmp_path / "b"
    (tmp_path / "b" / "disk.img").unlink()
    with pytest.raises(MachineError, match=r"disk.img does not exist; build the image"):
        places.image_folder(None)


def test_ports():
    assert check_port(free_port())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MachineError, match="is not free"):
            check_port(taken.getsockname()[1])
    for port in (0, -1, 65536):
        with pytest.raises(MachineError, match="is no port"):
            check_port(port)
