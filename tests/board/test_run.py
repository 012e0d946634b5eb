"""`make run` without a terminal: the board in the background, healthy, reachable; and ended again."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from scripts.board_driver.board import Board
from scripts.lab.places import PRODUCT, TOP
from scripts.lab.run import places_of
from scripts.lab.world import World

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]

NAME = "t-run"


def command(*words: str, timeout_s: float = 400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=TOP, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip


@pytest.fixture
def ended(world: World) -> Iterator[None]:
    """Nothing of this test's board and server is left, whatever happens."""
    yield
    command("scripts.lab", "stop", "--name", NAME)
    Board(NAME).remove_run_folder()


def test_run_in_the_background_and_stop(ended: None):
    done = command("scripts.lab", "run", "--name", NAME)
    assert done.returncode == 0, done.stderr
    assert f"The board is healthy and runs {PRODUCT}-1.0.0" in done.stdout
    account = json.loads((places_of(NAME).dms / "demo.json").read_text())
    assert account["password"] in done.stdout

    status = json.loads(command("scripts.board_driver", "status", "--name", NAME, "--json").stdout)
    assert status["state"] == "running"
    assert set(status["ports"]) == {"ssh", "http", "dms"}
    address = f"http://127.0.0.1:{status['ports']['http']}/"
    assert f"The device's Web App: {address}\n" in done.stdout
    with urllib.request.urlopen(address, timeout=60) as page:
        assert b"js/app.js" in page.read()
    for line, code in (("version", 0), ("ota", 1), ("no_such_command", 3)):
        assert command("scripts.board_driver", "send", "--name", NAME, line).returncode == code

    assert command("scripts.lab", "stop", "--name", NAME).stdout == "board: stopped; DMS: stopped\n"
    assert "was not running" in command("scripts.lab", "stop", "--name", NAME).stdout

    start_s = time.monotonic()
    again = command("scripts.lab", "run", "--name", NAME)
    assert again.returncode == 0, again.stderr
    prompt = re.search(r"\[ *([0-9.]+) s\] the console is there", again.stderr)
    assert prompt, again.stderr
    # Six seconds alone; other boards beside it may take most of the processor.
    assert float(prompt[1]) <= 40, f"the second run took {prompt[1]} s to the prompt"
    assert time.monotonic() - start_s < 180
