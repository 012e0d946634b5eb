"""The lab's voice and its command line: a step that does not hold ends a story, and what can be mended is one sentence."""

import io
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from scripts.lab.__main__ import main
from scripts.lab.dms import LabDms, choose_port
from scripts.lab.narrate import Narrator, StepFailedError, hold
from scripts.lab.run import end_as_by_ctrl_c
from scripts.lab.tools import LabError, call


def test_steps_are_numbered_and_timed():
    voice = io.StringIO()
    tell = Narrator(voice)
    for sentence in ("first", "second"):
        with tell.step(sentence):
            tell.note("seen")
    tell.end()
    assert [sentence for sentence, _ in tell.steps] == ["first", "second"]
    lines = [line.strip() for line in voice.getvalue().splitlines() if line.strip()]
    assert lines[:4] == ["1. first", "| seen", lines[2], "2. second"]
    assert lines[2].startswith("done in ")
    assert lines[-1].startswith("All 2 steps held")


def test_a_step_that_does_not_hold_is_told_and_ends_the_story():
    voice = io.StringIO()
    tell = Narrator(voice)
    with pytest.raises(StepFailedError), tell.step("the sky is green"):
        hold(False, "it is blue")
    assert tell.steps == []
    assert "did not hold" in voice.getvalue()
    assert "it is blue" in voice.getvalue()


def test_a_story_that_is_not_there(capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "--story", "nope"]) == 2
    assert "there are: update, safe-mode, factory-reset" in capsys.readouterr().err


def _end_self(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_is_taken_as_ctrl_c(number: signal.Signals):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    end_as_by_ctrl_c()
    try:
        with pytest.raises(KeyboardInterrupt):
            _end_self(number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_program_that_fails_is_told_in_its_own_words(tmp_path: Path):
    with pytest.raises(LabError, match="is no complete fleet folder"):
        call("scripts.provision_tool", "device", "--fleet", tmp_path, "--out", tmp_path / "out")


def test_a_port_that_another_program_has_is_told_before_the_server_starts(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (tmp_path / "chosen-ports.json").write_text(json.dumps({"device": choose_port(0), "web": taken}))
        dms = LabDms(tmp_path, tmp_path)
        with pytest.raises(LabError, match=rf"port {taken} .* is taken by another program; .*chosen-ports.json"):
            dms.start()
    assert dms.pid() is None
