"""`help` and completion: all from the declarations."""

from __future__ import annotations

import re

import pytest

from scripts import manual
from tests.support.console import Caller
from zentrid.commands.catalog import build_registry
from zentrid.commands.help import complete
from zentrid.core.framing import Code
from zentrid.core.variable_list import VARIABLES


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
        "file_create : fcr",
        "file_delete : fde",
        "file_open : fop",
        "file_stat : fst",
        "force_safemode : force_safemode",
        "get : get",
        "gpio_dir : gdi",
        "gpio_get : gge",
        "gpio_set : gse",
        "gpios_get : gges",
        "help : help",
        "http_download : hdo",
        "http_get : hge",
        "http_post : hpo",
        "http_read_status : hre",
        "items : items",
        "load : load",
        "log : log",
        "ls : ls",
        "mark_good : mgo",
        "network_down : ndo",
        "network_restart : nre",
        "network_up : nup",
        "network_verify : nve",
        "nslookup : nlo",
        "ota : ota",
        "ping : ping",
        "reboot : reboot",
        "save : save",
        "set : set",
        "setup : setup",
        "slots : slots",
        "stream_close : close",
        "stream_list : list",
        "stream_poll : poll",
        "stream_read : read",
        "stream_write : write",
        "version : ver",
        "webapp_recover : wre",
    ]


async def test_help_variables(call: Caller) -> None:
    lines = (await call.body("help variables")).split("\n")
    assert "system.uuid : sy u" in lines
    assert all(re.fullmatch(r"[a-z0-9_.]+ : [a-z0-9 ]+", line) for line in lines)


async def test_help_of_a_command(call: Caller) -> None:
    text = await call.body("help ota")
    assert text.startswith("ota [-f] [-b version] [-u url|file] [-c] [cancel|upload]\n")
    assert text.endswith("\nExample: ota -b 1.4.0")
    assert await call.body("help dms claim") == await call.body("help dms_claim")
    assert "dms claim <user|product> <password|token>" in await call.body("help dms claim")


async def test_help_is_a_manual(call: Caller) -> None:
    assert (await call.body("help network_restart")).split("\n")[0] == "network_restart"
    text = await call.body("help gdi")
    assert text.startswith("gpio_dir <gpio> in|out|low|high|none\n")
    for part in (
        "\n  gpio: its number, 0 to 7\n", "\n  direction: in; out or low", "\nGPIO 0 stays the factory reset button",
        "\nShort: gdi. In safe mode: no. Given up after 120 s.\n",
        "\nCodes: 0 success, 1 command failed, 4 too few arguments, 5 too many arguments, 7 bad argument, 9 out of bounds.\n",
    ):  # fmt: skip
        assert part in text
    assert "6 unknown option" in await call.body("help ping")
    assert "Goes on until Ctrl-C" in await call.body("help events")
    assert "Ends by its own limits" in await call.body("help ota")


def test_the_manuals_page_is_up_to_date() -> None:
    assert manual.PAGE.read_text() == manual.page(build_registry()), "write it anew: make manual"


def test_the_page_tells_everything_and_hides_nothing_from_markdown() -> None:
    text = manual.page(build_registry())
    for command in build_registry():
        assert f"\n### {command.name}\n\n    {command.signature.usage(command.name)}\n" in text
    for variable in VARIABLES:
        assert f"\n| `{variable.name}` | `{variable.short}` |" in text
    rows = [line for line in text.split("\n") if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (4, 5, 6) for row in rows)
    prose = [re.sub(r"`[^`]*`", "", line) for line in text.split("\n") if not line.startswith("    ")]
    assert not any("<" in line for line in prose)


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
        ("ota -f u", "upload"),
        ("ota -", "-u"),
        ("ota -b 1.0.0 ", "cancel"),
        ("gpio_dir 3 ", "high"),
        ("gdi 3 h", "high"),
        ("gpio_set 3 ", "1"),
        ("set gp i 3 ", "low"),
        ("set network.default_interface ", "wlan"),
        ("app ", "restart"),
    ],
)
def test_completion(call: Caller, before: str, expected: str) -> None:
    assert expected in complete(call.executor.registry, call.device.ctx, before)


@pytest.mark.parametrize(
    ("before", "missing"), [
        ("set ", "system.uuid"), ("version ", "version"), ("x y ", "all"), ("gpio_dir ", "high"), ("ota -b ", "cancel"),
        ("ota cancel ", "cancel"), ("set network.ip ", "1"), ("gpio_dir 3 in ", "in"),
    ],
)  # fmt: skip
def test_no_completion(call: Caller, before: str, missing: str) -> None:
    assert missing not in complete(call.executor.registry, call.device.ctx, before)


def test_safe_mode_completes_only_what_can_be_used(safe_call: Caller) -> None:
    assert "system.boot.healthy_after" not in complete(safe_call.executor.registry, safe_call.device.ctx, "set ")
    assert "gpio_dir" not in complete(safe_call.executor.registry, safe_call.device.ctx, "gp")
    for before in ("gpio_dir 3 ", "set gpio.init.3 "):
        assert not complete(safe_call.executor.registry, safe_call.device.ctx, before)
