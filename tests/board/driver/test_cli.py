"""`scripts/board` as people and scripts call it, on a real QEMU with the stand-in firmware."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from scripts.board_driver.board import Board

BOARD = Path(__file__).resolve().parents[3] / "scripts" / "board"
VERBS = ("up", "down", "status", "send", "console", "ssh", "log", "power", "reset", "button", "led")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(name: str, stand_in_image: Path, tmp_path: Path) -> Iterator[Run]:
    """Call scripts/board for a board of this test; it is down afterwards."""
    environment = {**os.environ, "ZENTRI_IMAGE_DIR": str(stand_in_image), "NO_COLOR": "1"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(BOARD), words[0], "--name", name, *words[1:]]
        # From another folder: the command must not depend on where it is called.
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    yield call
    board = Board(name)
    board.down()
    board.remove_run_folder()


def up(run: Run, tmp_path: Path, *words: str) -> dict[str, Any]:
    done = run("up", "--json", "--state-dir", str(tmp_path / "state"), *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_up_status_send_down(run: Run, tmp_path: Path, name: str):
    found = up(run, tmp_path)
    assert found["state"] == "running"
    assert found["version"].startswith("TEST-BARE_FIRMWARE")
    told = json.loads(run("status", "--json").stdout)
    assert (told["name"], told["state"], told["pid"]) == (name, "running", found["pid"])
    assert told["disk"] == str(tmp_path / "state" / "disk.qcow2")
    assert set(told["ports"]) == {"ssh", "http", "dms"}
    assert Path(told["run_folder"]).is_dir()
    assert "running" in run("status").stdout

    done = run("send", "version")
    assert (done.returncode, done.stdout) == (0, "TEST-BARE_FIRMWARE-1.0.0, Board:virt\n")
    done = run("send", "fail")
    assert (done.returncode, done.stdout, done.stderr) == (1, "Command failed\n", "the reason\n")
    done = run("send", "--json", "fail")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"code": 1, "body": "Command failed", "log": ["the reason"], "safe_mode": False}
    assert "U-Boot 2025.01 (stand-in)" in run("log").stdout

    assert run("down").returncode == 0
    assert json.loads(run("status", "--json").stdout)["state"] == "down"
    assert "stand-in" in run("log").stdout  # what it said is still there


def test_power_reset_button_and_lamp(run: Run, tmp_path: Path):
    up(run, tmp_path)
    assert json.loads(run("power", "cut", "--json").stdout)["state"] == "off"
    done = run("send", "version")
    assert done.returncode == 20
    assert "has no power" in done.stderr
    assert run("power", "on", "--button-hold", "0.2").returncode == 0
    assert run("power", "cycle").returncode == 0
    assert run("reset").returncode == 0
    assert run("button", "--hold", "0.2").returncode == 0
    assert run("led").stdout == "off\n"
    assert json.loads(run("led", "--json").stdout)["led"] == "off"
    log = run("log").stdout
    assert "button=1" in log
    assert "warm=1" in log


def test_up_tells_how_to_reach_the_board_and_how_long_it_took(run: Run, tmp_path: Path):
    done = run("up", "--state-dir", str(tmp_path / "state"))
    assert "scripts/board console" in done.stdout
    assert "s] ready: TEST-BARE_FIRMWARE" in done.stderr


def test_up_leaves_a_board_up_that_is_in_safe_mode_and_says_so(run: Run, tmp_path: Path):
    up(run, tmp_path)
    assert run("send", "safe").returncode == 0
    done = run("up")
    assert done.returncode == 0
    assert "SAFE MODE" in done.stderr


def test_up_says_when_the_board_does_not_answer(run: Run, tmp_path: Path):
    up(run, tmp_path)
    assert run("send", "--timeout", "1", "silent").returncode == 21
    done = run("up", "--timeout", "3")
    assert done.returncode == 21
    assert "scripts/board log" in done.stderr
    assert json.loads(run("status", "--json").stdout)["state"] == "running"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("up", "--image", "/nonexistent"), 20, "make image"),
        (("up", "--identity", "/nonexistent"), 20, "scripts/provision device"),
        (("log",), 20, "has not been up"),
        (("console",), 20, "has no power"),
        (("ssh", "true"), 20, "has no power"),
        (("button", "--hold", "0"), 2, "hold"),
        (("button",), 2, "hold"),
        (("power", "maybe"), 2, "maybe"),
        (("power", "on"), 20, "is down"),
        (("send", "two\nlines"), 20, "is down"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(run: Run, words: tuple[str, ...], status: int, message: str):
    done = run(*words)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_with_a_path_in_it_is_refused():
    done = subprocess.run(
        [str(BOARD), "status", "--name", "../x"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 20
    assert "no name for a board" in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_name_json_and_help(run: Run, verb: str):
    done = run(verb, "--help")
    assert done.returncode == 0
    assert {"--name", "--json", "--help"} <= set(done.stdout.replace("│", " ").split())


def test_console_carries_bytes_both_ways_and_ends_at_its_key(run: Run, tmp_path: Path, name: str):
    up(run, tmp_path)
    child = pexpect.spawn(str(BOARD), ["console", "--name", name], timeout=20, encoding="utf-8")
    try:
        child.expect_exact("Leave with Ctrl-]")
        child.send("version\r")
        child.expect_exact("TEST-BARE_FIRMWARE")
        busy = run("console")
        assert busy.returncode == 20
        assert "Ctrl-]" in busy.stderr
        child.send("\x1d")
        child.expect(pexpect.EOF)
        assert child.wait() == 0
    finally:
        child.close()
    assert run("send", "version").returncode == 0


def test_follow_goes_on_with_what_comes(run: Run, tmp_path: Path, name: str):
    up(run, tmp_path)
    child = pexpect.spawn(str(BOARD), ["log", "-f", "--name", name], timeout=20, encoding="utf-8")
    try:
        child.expect_exact("warm=0")
        run("reset")
        child.expect_exact("warm=1")
        child.sendintr()
        child.expect(pexpect.EOF)
        assert child.wait() == 0
    finally:
        child.close()


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "scripts.board_driver", "--help"],
        cwd=BOARD.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "scripts/board" in done.stdout
