"""`help` and completion: all from the declarations."""

from __future__ import annotations

import re

import pytest

from tests.support.console import Caller
from zentrid.commands.help import complete
from zentrid.core.framing import Code


async def test_help_commands(call: Caller) -> None:
    lines = (await call.body("help commands")).split("\n")
    assert lines == [
        "app : app",
        "dms activate : dms_activate",
        "dms claim : dms_claim",
        "dms status : dms_status",
        "events : events",
        "factory_reset : fac",
        "faults_print : faup",
        "faults_reset : faur",
        "force_safemode : force_safemode",
        "get : get",
        "help : help",
        "items : items",
        "load : load",
        "mark_good : mgo",
        "ota : ota",
        "reboot : reboot",
        "save : save",
        "set : set",
        "slots : slots",
        "version : ver",
    ]


async def test_help_variables(call: Caller) -> None:
    lines = (await call.body("help variables")).split("\n")
    assert "system.uuid : sy u" in lines
    assert all(re.fullmatch(r"[a-z_.]+ : [a-z ]+", line) for line in lines)


async def test_help_of_a_command(call: Caller) -> None:
    text = await call.body("help ota")
    assert text.startswith("ota [-f] [-b version] [-u url|file] [-c] [cancel|upload]\n")
    assert text.endswith("\nExample: ota -b 1.4.0")
    assert await call.body("help dms claim") == await call.body("help dms_claim")
    assert "dms claim <user|product> <password|token>" in await call.body("help dms claim")


async def test_every_command_and_variable_is_explained(call: Caller) -> None:
    for command in call.executor.registry:
        assert f"Example: {command.example}" in await call.body(f"help {command.name}")
    for variable in call.executor.registry.variables:
        text = await call.body(f"help {variable.name}")
        assert variable.help in text
        assert "Example: " in text


async def test_help_of_a_variable(call: Caller) -> None:
    text = await call.body("help sy b d")
    assert "20 to 3600 s" in text
    assert "Default: 120" in text
    assert "Example: set system.boot.deadline 180" in text
    assert "read-only" in await call.body("help system.uuid")


async def test_help_overview_and_groups(call: Caller) -> None:
    assert "help commands" in await call.body("help")
    assert "dms claim: " in await call.body("help dms")
    assert "system.boot.healthy_after: " in await call.body("help system.boot")


async def test_help_of_nothing(call: Caller) -> None:
    answer = await call("help nonsense")
    assert answer.code == Code.BAD_ARGUMENT
    assert "'nonsense'" in answer.reason


async def test_safe_mode_lists_what_can_be_used(safe_call: Caller) -> None:
    assert "system.boot.healthy_after" not in await safe_call.body("help variables")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", "version"),
        ("ver", "version"),
        ("dm", "dms"),
        ("dms ", "claim"),
        ("get ", "all"),
        ("get sy", "system.uuid"),
        ("set ", "system.name"),
        ("set ota.reboot ", "manual"),
        ("set ssh.enabled ", "1"),
        ("help ", "commands"),
        ("ota c", "cancel"),
        ("ota u", "upload"),
    ],
)
def test_completion(call: Caller, before: str, expected: str) -> None:
    assert expected in complete(call.executor.registry, call.device.ctx, before)


@pytest.mark.parametrize(("before", "missing"), [("set ", "system.uuid"), ("version ", "version"), ("x y ", "all")])
def test_no_completion(call: Caller, before: str, missing: str) -> None:
    assert missing not in complete(call.executor.registry, call.device.ctx, before)


def test_safe_mode_completes_only_what_can_be_used(safe_call: Caller) -> None:
    assert "system.boot.healthy_after" not in complete(safe_call.executor.registry, safe_call.device.ctx, "set ")
