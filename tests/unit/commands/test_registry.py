"""The registry: names, safe mode, secrets, and what happens when a command goes wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.console import Caller
from zentrid.commands.call import Call
from zentrid.commands.catalog import build_registry
from zentrid.commands.getters import GETTERS
from zentrid.commands.registry import Command, Registry
from zentrid.core.framing import TEXTS, Code
from zentrid.core.grammar import CommandError, split_words
from zentrid.core.variable_list import VARIABLES
from zentrid.errors import ZentriError


async def _crash(call: Call) -> str:
    raise RuntimeError("secret detail")


async def _refuse(call: Call) -> str:
    raise ZentriError("The door is open; close it and try again.")


async def _sleep(call: Call) -> str:
    await asyncio.sleep(60)
    return "too late"


async def _own_timeout(call: Call) -> str:
    raise TimeoutError("socket")


ANY_LINE = {Code.PARSE_ERROR, Code.UNKNOWN_COMMAND, Code.BUFFER_OVERFLOW}

TRIAL = Registry(
    [
        Command("crash", "c", _crash, "crash"),
        Command("refuse", "r", _refuse, "refuse"),
        Command("sleep", "s", _sleep, "sleep", timeout_s=0.01),
        Command("socket", "t", _own_timeout, "socket"),
        Command("normal_only", "n", _refuse, "normal_only", short="no", safe_mode=False),
    ],
    VARIABLES,
)


def trial(call: Caller) -> Caller:
    call.executor = replace(call.executor, registry=TRIAL)
    return call


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("version", "version"),
        ("ver", "version"),
        ("dms claim u p", "dms claim"),
        ("dms_claim u p", "dms claim"),
        ("dms_activate X", "dms activate"),
        ("dms status", "dms status"),
    ],
)
def test_long_and_short_names(line: str, name: str) -> None:
    found = build_registry().find(line.split())
    assert found is not None
    assert found[0].name == name


def test_two_commands_may_not_share_a_name() -> None:
    with pytest.raises(ValueError, match="called no"):
        Registry([*TRIAL, Command("no", "x", _crash, "no")], VARIABLES)


def test_every_dynamic_variable_has_a_getter_and_no_other() -> None:
    assert set(GETTERS) == {v.name for v in VARIABLES if v.dynamic}


async def test_every_example_is_understood(call: Caller) -> None:
    for command in call.executor.registry:
        found = call.executor.registry.find(split_words(command.example))
        assert found is not None, command.example
        assert found[0] is command
        arguments = found[0].signature.parse(found[1], command.name)
        # Some need a server, a file or a stream.
        if not command.name.startswith(("ota", "dms claim", "file_", "stream_", "http_")):
            interrupt = asyncio.Event()
            if command.ends_with_session(arguments):
                interrupt.set()  # it has no end of its own
            answer = await call(command.example, interrupt)
            assert answer.code == Code.SUCCESS, (command.example, answer)


async def test_unknown_command_says_what_to_do(call: Caller) -> None:
    answer = await call("verson")
    assert (answer.code, answer.body) == (Code.UNKNOWN_COMMAND, "Unknown command")
    assert "'verson'" in answer.reason
    assert "help commands" in answer.reason


async def test_half_a_command_names_the_others(call: Caller) -> None:
    assert "dms activate, dms claim, dms status" in (await call("dms unclaim")).reason
    assert (await call("dms")).code == Code.UNKNOWN_COMMAND


async def test_exit_says_how_to_leave(call: Caller) -> None:
    assert "Ctrl-D" in (await call("exit")).reason


async def test_safe_mode_is_named_as_the_reason(safe_call: Caller) -> None:
    trial(safe_call)
    for line in ("normal_only", "no", "nonsense"):
        answer = await safe_call(line)
        assert (answer.code, answer.body) == (Code.UNKNOWN_COMMAND, "Unknown command")
        assert "safe mode" in answer.reason
    assert (await safe_call("refuse")).code == Code.FAILED


async def test_the_same_command_works_outside_safe_mode(call: Caller) -> None:
    assert (await trial(call)("normal_only")).code == Code.FAILED


async def test_a_failed_command_says_why(call: Caller) -> None:
    answer = await trial(call)("refuse")
    assert (answer.code, answer.body) == (Code.FAILED, "Command failed")
    assert answer.reason == "The door is open; close it and try again."
    assert call.crashes == []


async def test_a_bug_in_a_command_is_contained_and_reported(call: Caller) -> None:
    answer = await trial(call)("crash")
    assert answer.code == Code.FAILED
    assert "RuntimeError" in answer.reason
    assert "secret detail" not in answer.reason
    assert [type(e) for e in call.crashes] == [RuntimeError]


async def test_a_command_that_takes_too_long_is_given_up(call: Caller) -> None:
    answer = await trial(call)("sleep")
    assert answer.code == Code.FAILED
    assert "0.01 s" in answer.reason
    assert call.crashes == []


async def test_a_timeout_inside_is_no_timeout_of_the_command(call: Caller) -> None:
    assert "TimeoutError" in (await trial(call)("socket")).reason


async def test_blank_lines_are_nothing(call: Caller) -> None:
    assert await call.executor.execute("   ", call.state, call.out) is None


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("version", False),
        ("get all", False),
        ("set system.name x", False),
        ("verson", False),
        ("dms status", False),
        ("dms activate A-B", False),
        ("dms claim me pw", True),
        ("dms_claim me", True),
        ("  dms   claim  me pw too many", True),
        ("dms cliam me pw", True),
        ('dms claim me "unclosed', True),
        ("dsm claim me pw", True),
        ("set wlan.password pw", True),
        ("http_get http://192.168.1.5/state", False),
        ("http_get admin:secret@192.168.1.5/state", True),
        ("hge 192.168.1.5/state?token=1", True),
        ("http_post -l 3 me:pw@h text/plain", True),
        ("http_download me:pw@h file", True),
        ("htp_get admin:pw@192.168.1.5/state", True),
        ('http_get "me:pw@h', True),
        ("ota -u me:pw@h/new.zb", True),
        ("ota -fu h/new.zb?key=1", True),
    ],
)
def test_lines_with_secrets_are_recognised(line: str, secret: bool) -> None:
    assert build_registry().keeps_secret(line) is secret


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.text(max_size=80) | st.lists(st.sampled_from(
    ["get", "set", "help", "dms", "claim", "status", "all", "sy", "u", "system.name", "-f", "x", '"', "\\", "commands"]
), max_size=6).map(" ".join))  # fmt: skip
async def test_any_line_gets_an_answer(call: Caller, line: str) -> None:
    answer = await call.executor.execute(line, call.state, call.out)
    if answer is None:
        assert not line.strip()
        return
    try:
        found = call.executor.registry.find(split_words(line))
    except CommandError:
        found = None
    declared = ANY_LINE | set(found[0].codes if found else ())
    assert answer.code in declared, "what its help says"
    if answer.code == Code.SUCCESS:
        assert answer.body
    else:
        assert answer.body == TEXTS[answer.code]
        assert answer.reason
    assert call.crashes == []
