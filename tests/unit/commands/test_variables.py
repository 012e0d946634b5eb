"""`get`, `set`, `save`, `load`: to the letter, checked by type and range, and durable only after `save`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.console import Caller
from tests.support.fakes import Device
from zentrid.adapters.hostinfo import LinuxHost
from zentrid.core.bootstate import BootState
from zentrid.core.framing import Code
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import Text, Variable, VariableTable


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("system.uuid", "6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11"),
        ("sy u", "6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11"),
        ("system.uptime", "61"),
        ("system.utc", "2026-11-02T12:00:00Z"),
        ("system.memory", "67108864"),
        ("system.build", "2026-11-01T10:00:00Z"),
        ("system.safemode.status", "0"),
        ("system.boot.slot", "a"),
        ("system.boot.deadline", "120"),
        ("system.boot.healthy_after", "10"),
        ("system.fault.count", "0"),
        ("system.factory_reset.gpio", "0"),
        ("system.cmd.format", "human"),
        ("system.cmd.mode", "human"),
        ("dms.host", "dms.zentri.local"),
        ("dms.port", "8443"),
        ("dms.claimed", "0"),
        ("dms.bundle_id", "DEMO-VIRT_SENSOR-1.4.0"),
        ("dms.ota_result", "0"),
        ("ota.state", "idle"),
        ("ota.progress", "0"),
        ("ota.bytes", "0"),
        ("ota.reboot", "auto"),
        ("network.ip", "10.0.2.15"),
        ("network.mac", "52:54:00:12:34:56"),
        ("ssh.enabled", "1"),
    ],
)
async def test_get_one(call: Caller, name: str, text: str) -> None:
    assert await call.body(f"get {name}") == text


async def test_an_empty_value_is_an_empty_line(call: Caller) -> None:
    assert await call.body("get system.name") == "\n"


async def test_get_all_and_groups(call: Caller) -> None:
    everything = (await call.body("get all")).split("\n")
    assert all(re.fullmatch(r"[a-z0-9_.]+:( .+)?", line) for line in everything)
    assert [line.split(":")[0] for line in everything] == [v.name for v in call.executor.registry.variables]
    assert await call.body("get") == await call.body("get all")
    group = (await call.body("get system.boot")).split("\n")
    assert group == [line for line in everything if line.startswith("system.boot.")]
    assert await call.body("get sy c") == await call.body("get system.cmd")


async def test_the_fault_count_comes_from_the_boot_state(call: Caller) -> None:
    call.device.boot_state.state = replace(BootState(), faults=5)
    assert await call.body("get system.fault.count") == "5"


async def test_a_value_that_cannot_be_had_fails_alone(call: Caller) -> None:
    call.device.boot_state.state = None
    answer = await call("get system.fault.count")
    assert (answer.code, answer.body) == (Code.FAILED, "Command failed")
    assert "both copies" in answer.reason
    everything = await call.body("get all")
    assert "system.fault.count: not available (both copies" in everything
    assert "system.uuid: 6f1e3c52" in everything


async def test_set_then_get(call: Caller) -> None:
    assert await call.body("set system.boot.deadline 300") == "Set OK"
    assert await call.body("get system.boot.deadline") == "300"
    assert await call.body('set sy n "boiler room"') == "Set OK"
    assert await call.body("get system.name") == "boiler room"
    assert await call.body("set dms.host dms.example.com") == "Set OK"
    assert await call.body("get dms.host") == "dms.example.com"
    assert await call.body('set dms.host ""') == "Set OK"
    assert await call.body("get dms.host") == "dms.zentri.local"


async def test_an_address_is_empty_while_there_is_no_network(call: Caller) -> None:
    call.device.host.addresses = None
    assert await call.body("get network.ip") == "\n"


@pytest.mark.parametrize(
    ("line", "code", "part"),
    [
        ("get system.nothing", Code.BAD_ARGUMENT, "help variables"),
        ("get sy", Code.SUCCESS, ""),
        ("get system.uuid now", Code.BAD_ARGUMENT, "no variable"),
        ("set", Code.TOO_FEW_ARGUMENTS, "name"),
        ("set system.name", Code.TOO_FEW_ARGUMENTS, "value"),
        ("set sy n", Code.TOO_FEW_ARGUMENTS, "value"),
        ("set system.name two words", Code.TOO_MANY_ARGUMENTS, "quotes"),
        ("set system.uuid x", Code.BAD_ARGUMENT, "read-only"),
        ("set system.factory_reset.gpio 0", Code.BAD_ARGUMENT, "read-only"),
        ("set nothing x", Code.BAD_ARGUMENT, "'nothing'"),
        ("set system.boot.deadline 19", Code.OUT_OF_BOUNDS, "20 to 3600"),
        ("set system.boot.deadline 3601", Code.OUT_OF_BOUNDS, "20 to 3600"),
        ("set system.boot.deadline soon", Code.BAD_ARGUMENT, "no whole number"),
        ("set ota.reboot never", Code.BAD_ARGUMENT, "auto, manual"),
        ("save now", Code.TOO_MANY_ARGUMENTS, "Usage: save"),
    ],
)
async def test_mistakes(call: Caller, line: str, code: Code, part: str) -> None:
    answer = await call(line)
    assert answer.code == code
    assert part in answer.reason
    assert call.device.settings.values.to_saved() == {}


async def test_nothing_is_kept_without_save(call: Caller, tmp_path: Path) -> None:
    await call.body("set system.name kept")
    assert await call.body("save") == "Success"
    await call.body("set system.name lost")
    again = Caller(Device(tmp_path / "zentri"))
    assert await again.device.settings.reload() == ()
    assert await again.body("get system.name") == "kept"
    assert await call.body("load") == "Success"
    assert await call.body("get system.name") == "kept"


async def test_save_that_fails_says_why(call: Caller, tmp_path: Path) -> None:
    (tmp_path / "zentri").write_text("a file where the folder should be")
    await call.body("set system.name x")
    answer = await call("save")
    assert (answer.code, answer.body) == (Code.FAILED, "Command failed")
    assert "could not be saved" in answer.reason


async def test_load_tells_of_damage(call: Caller, tmp_path: Path) -> None:
    await call.body("set system.name x")
    await call.body("save")
    (tmp_path / "zentri" / "settings.json").write_bytes(b"{}")
    await call.body("load")
    assert any("settings.json" in line for line in call.out.lines)


async def test_session_switches_are_the_sessions_own_until_saved(call: Caller) -> None:
    await call.body("set system.cmd.format machine")
    assert await call.body("get system.cmd") == "\n".join(
        [
            "system.cmd.buffered: 0",
            "system.cmd.echo: 0",
            "system.cmd.format: machine",
            "system.cmd.header_enabled: 1",
            "system.cmd.prompt_enabled: 0",
        ]
    )
    other = Caller(call.device)
    assert await other.body("get system.cmd.format") == "human"
    await other.body("save")
    assert await Caller(call.device).body("get system.cmd.format") == "human"
    await call.body("save")
    later = Caller(call.device)
    assert await later.body("get system.cmd.format") == "machine"
    assert await later.body("get system.cmd.echo") == "0"


async def test_a_format_that_is_set_and_saved_takes_its_switches_along(call: Caller) -> None:
    await call.body("set system.cmd.echo 0")
    await call.body("save")
    other = Caller(call.device)
    assert await other.body("get system.cmd.echo") == "0"
    await other.body("set system.cmd.format human")
    await other.body("save")
    assert await Caller(call.device).body("get system.cmd.echo") == "1"


async def test_secrets_are_neither_shown_nor_repeated(tmp_path: Path) -> None:
    secret = Variable("trial.password", "tr p", Text(12), "", "a password", "x", secret=True)
    table = VariableTable([*VARIABLES, secret])
    call = Caller(Device(tmp_path / "zentri", table=table), table)
    for line in ("set trial.password hunter2hunter2", "set tr p hunter2\\x07"):
        answer = await call(line)
        assert answer.code in (Code.OUT_OF_BOUNDS, Code.BAD_ARGUMENT)
        assert "hunter2" not in answer.reason
        assert call.executor.registry.keeps_secret(line)
    assert await call.body("set tr p hunter2") == "Set OK"
    assert await call.body("get trial.password") == "********"
    assert "hunter2" not in await call.body("get all")
    assert "hunter2" not in await call.body("help trial.password")
    assert call.device.settings.values.text("trial.password") == "hunter2"


async def test_what_blocks_is_asked_off_the_event_loop(call: Caller, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 2000 kB\nMemAvailable: 1000 kB\n")
    call.device.ctx.host = LinuxHost(root=tmp_path)
    assert await call.body("get system.memory") == "1024000"
    assert "system.memory: 1024000" in await call.body("get all")


async def test_safe_mode_knows_fewer_variables(safe_call: Caller) -> None:
    assert await safe_call.body("get system.safemode.status") == "1"
    assert await safe_call.body("get system.boot.slot") == "r"
    for line in ("get system.boot.healthy_after", "set system.boot.healthy_after 20"):
        answer = await safe_call(line)
        assert answer.code == Code.BAD_ARGUMENT
        assert "safe mode" in answer.reason
    assert "system.boot.healthy_after" not in await safe_call.body("get all")
