"""Watching a growing log: bad patterns, starts that are in order, waiting, and whether the board is starting."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import BadConsoleError, DeadlineError
from scripts.board_driver.starting import QUIET_S, Phase, StartWatch, next_phase
from scripts.board_driver.watch import BAD_PATTERNS, ConsoleWatch

BANNER = "U-Boot 2025.01 (Jan 01 2026)\r\n"
LINES = {
    "panic": "[    1.0] Kernel panic - not syncing: VFS\r\n",
    "oops": "[    1.0] Internal error: Oops: 96000004 [#1] SMP\r\n",
    "call-trace": "[    1.0] Call trace:\r\n",
    "traceback": "Traceback (most recent call last):\r\n",
    "state-lost": "zentri: boot state lost, using defaults\r\n",
    "reset": BANNER,
}


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def say(self, text: str) -> None:
        with self.path.open("ab") as stream:
            stream.write(text.encode())


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "serial.log")


@pytest.fixture
def watch(log: Log) -> Iterator[ConsoleWatch]:
    watch = ConsoleWatch(log.path)
    yield watch
    watch.stop()


def test_every_bad_pattern_has_its_line_here():
    assert set(LINES) == set(BAD_PATTERNS)


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_noticed_and_stays_noticed(log: Log, watch: ConsoleWatch, name: str):
    log.say("fine\r\n")
    watch.check()
    log.say(LINES[name])
    for _ in range(2):
        with pytest.raises(BadConsoleError) as caught:
            watch.check()
        assert caught.value.pattern == name
    log.say("fine again\r\n")
    with pytest.raises(BadConsoleError):
        watch.check()


@pytest.mark.parametrize(
    "text", ["a panic\r\n", "call trace\r\n", "the U-Boot 2025.01 of today\r\n", "zentri: boot state is fine\r\n"]
)
def test_harmless_lines_are_harmless(log: Log, watch: ConsoleWatch, text: str):
    log.say(text)
    watch.check()


def test_a_bad_line_in_pieces_is_one_line(log: Log, watch: ConsoleWatch):
    for piece in ("Ker", "nel pa", "nic"):
        log.say(piece)
        watch.check()
    log.say("\r\n")
    with pytest.raises(BadConsoleError):
        watch.check()


def test_a_bad_line_without_end_counts_when_the_watch_ends(log: Log, watch: ConsoleWatch):
    log.say("Kernel panic - not sync")
    watch.check()
    watch.stop()
    with pytest.raises(BadConsoleError):
        watch.check()


def test_expecting_mutes_only_what_it_names_and_only_inside(log: Log, watch: ConsoleWatch):
    with watch.expecting("panic", "call-trace") as seen:
        log.say(LINES["panic"] + LINES["call-trace"])
    assert [hit.pattern for hit in seen] == ["panic", "call-trace"]
    watch.check()
    log.say(LINES["panic"])
    with pytest.raises(BadConsoleError):
        watch.check()


def test_expecting_one_thing_does_not_excuse_another(log: Log, watch: ConsoleWatch):
    with watch.expecting("panic"):
        log.say(LINES["oops"])
    with pytest.raises(BadConsoleError) as caught:
        watch.check()
    assert caught.value.pattern == "oops"


def test_what_was_there_before_expecting_is_not_excused(log: Log, watch: ConsoleWatch):
    log.say(LINES["panic"])
    with watch.expecting("panic") as seen:
        pass
    assert seen == []
    with pytest.raises(BadConsoleError):
        watch.check()


def test_expecting_what_nobody_knows_is_a_mistake(watch: ConsoleWatch):
    with pytest.raises(ValueError, match="there is no bad pattern called panik"), watch.expecting("panik"):
        pass


def test_one_banner_for_each_start_and_no_more(log: Log, watch: ConsoleWatch):
    for cold in (True, False, True):
        watch.allow_start(cold=cold)
        log.say(BANNER)
        watch.check()
    log.say(BANNER)
    with pytest.raises(BadConsoleError):
        watch.check()


def test_a_start_that_was_cut_before_its_banner_excuses_no_later_reset(log: Log, watch: ConsoleWatch):
    watch.allow_start(cold=True)  # and cut at once
    watch.allow_start(cold=True)
    log.say(BANNER)
    watch.check()
    log.say(BANNER)
    with pytest.raises(BadConsoleError):
        watch.check()


def test_waiting_goes_on_after_the_last_match(log: Log, watch: ConsoleWatch):
    log.say("one 1\r\none 2\r\n")
    for number in "12":
        assert watch.wait_for(r"^one (\d)", Deadline(5, "it"))[1] == number
    with pytest.raises(DeadlineError, match=r"the console said last: 'one 1"):
        watch.wait_for(r"^one (\d)", Deadline(0.2, "it"))
    log.say("one 3\r\n")
    watch.skip()
    with pytest.raises(DeadlineError):
        watch.wait_for(r"^one (\d)", Deadline(0.2, "it"))


def test_waiting_ends_at_once_when_something_bad_comes(log: Log, watch: ConsoleWatch):
    log.say(LINES["panic"])
    began_s = time.monotonic()
    with pytest.raises(BadConsoleError):
        watch.wait_for("never", Deadline(60, "it"))
    assert time.monotonic() - began_s < 10


def test_a_watch_begins_where_it_is_told(log: Log):
    log.say(LINES["panic"])
    watch = ConsoleWatch(log.path, log.path.stat().st_size)
    watch.stop()
    watch.check()
    assert watch.text == ""


# --- is the board starting? -------------------------------------------------------------------------------------------------


def start_watch(log: Log, since_unix_s: float | None = None) -> StartWatch:
    return StartWatch(log.path, 0, time.time() if since_unix_s is None else since_unix_s)


def test_a_board_starts_until_its_prompt_and_again_after_each_banner(log: Log):
    watch = start_watch(log)
    assert watch.starting()
    for prompt in ("\r\n> ", "\r\nSAFEMODE> "):
        log.say(BANNER)
        assert watch.starting()
        log.say("=> \r\nkernel -> ok\r\n")
        assert watch.starting()
        log.say(prompt)
        assert not watch.starting()


def test_a_board_that_says_it_restarts_is_starting_whatever_prompts_come_before_the_banner(log: Log):
    watch = start_watch(log)
    log.say(BANNER + "\r\n> reboot\r\n")
    assert not watch.starting()
    log.say("R000011\r\nRebooting\r\nSet OK\r\n> ")
    assert watch.starting()
    log.say(BANNER)
    assert watch.starting()
    log.say("version\r\n> ")
    assert not watch.starting()


@given(st.lists(st.sampled_from([BANNER, "\r\n> ", "\r\nRebooting\r\n", "text\r\n"]), max_size=12), st.integers(1, 40))
def test_pieces_of_any_size_give_the_same(signs: list[str], size: int):
    path = Path("/dev/shm") / f"zentri-test-log-{os.getpid()}"
    data = "".join(signs)
    try:
        whole, pieces = Log(path), StartWatch(path, 0, time.time())
        for at in range(0, len(data), size):
            whole.say(data[at : at + size])
            pieces.starting()
        assert pieces.starting() == StartWatch(path, 0, time.time()).starting()
    finally:
        path.unlink()


def test_a_silent_board_counts_as_started_after_a_while(log: Log):
    log.say(BANNER)
    past = time.time() - QUIET_S - 1
    os.utime(log.path, (past, past))
    assert not start_watch(log, past).starting()
    assert start_watch(log).starting()  # the power is on only now


def test_waiting_for_a_start_has_its_limit(log: Log):
    log.say(BANNER)
    with pytest.raises(DeadlineError, match="still starting"):
        start_watch(log).wait(Deadline(0.2, "the prompt"))


def test_phases():
    assert next_phase(Phase.STARTING, "prompt") is Phase.STARTED
    assert next_phase(Phase.ENDING, "prompt") is Phase.ENDING
    assert next_phase(Phase.STARTED, "ends") is Phase.ENDING
    assert next_phase(Phase.ENDING, "starts") is Phase.STARTING
