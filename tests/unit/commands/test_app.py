"""`app`: the table, starting and stopping, the log, and what safe mode leaves of it."""

from __future__ import annotations

import pytest

from tests.support.console import Caller
from zentrid.core.framing import MAX_BODY_BYTES, Code


async def test_list_is_a_table(call: Caller) -> None:
    lines = (await call.body("app")).split("\n")
    assert await call.body("app list") == "\n".join(lines)
    assert lines[0].split() == [
        "#",
        "name",
        "version",
        "boot",
        "state",
        "pid",
        "since",
        "restarts",
        "source",
        "description",
    ]
    assert lines[1].split()[:7] == ["broken", "-", "no", "bad", "-", "-", "0"]
    assert lines[2].split()[:7] == ["sample-arm", "1.0.0", "yes", "running", "77", "2026-11-02T11:59:00Z", "2"]
    assert lines[2].endswith("moves an arm")
    assert lines[3].split() == ["sample-python", "0.1.0", "no", "off", "-", "-", "0", "-"]


async def test_start_stop_restart(call: Caller) -> None:
    assert await call.body("app stop") == "sample-arm: stop"
    assert "stopped" in await call.body("app list")
    assert await call.body("app start sample-arm") == "sample-arm: start"
    assert await call.body("app restart") == "sample-arm: restart"
    assert call.device.apps.did == ["stop", "start", "restart"]


async def test_what_keeps_it_from_running_is_the_reason(call: Caller) -> None:
    call.device.apps.problem = "The boot application x cannot be started: x."
    for action in ("start", "stop", "restart"):
        answer = await call(f"app {action}")
        assert (answer.code, answer.reason) == (Code.FAILED, "The boot application x cannot be started: x.")


async def test_only_the_boot_application_has_actions(call: Caller) -> None:
    answer = await call("app start sample-python")
    assert answer.code == Code.BAD_ARGUMENT
    assert "only the boot application 'sample-arm' does" in answer.reason
    call.device.apps.name = ""
    assert "no boot application is set" in (await call("app log sample-python")).reason
    assert call.device.apps.did == []


async def test_log(call: Caller) -> None:
    assert (await call.body("app log")).split("\n") == call.device.apps.lines[-40:]
    assert (await call.body("app log -n 2 sample-arm")).split("\n") == call.device.apps.lines[-2:]
    call.device.apps.lines.clear()
    assert await call.body("app log") == "The log is empty"


async def test_a_long_log_is_cut_at_the_old_end(call: Caller) -> None:
    call.device.apps.lines = [f"{number} {'x' * 1000}" for number in range(500)]
    body = await call.body("app log -n 500")
    assert len(body.replace("\n", "\r\n")) <= MAX_BODY_BYTES
    assert body.split("\n")[-1].startswith("499 ")
    assert len(body) > 90_000


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("app log -n 0", Code.OUT_OF_BOUNDS), ("app log -n 1001", Code.OUT_OF_BOUNDS), ("app log -n x", Code.BAD_ARGUMENT),
        ("app log -n -1", Code.BAD_ARGUMENT), ("app log -n " + "9" * 50, Code.OUT_OF_BOUNDS),
        ("app log -n", Code.TOO_FEW_ARGUMENTS), ("app list -n 5", Code.UNKNOWN_OPTION), ("app start -n 5", Code.UNKNOWN_OPTION),
        ("app begin", Code.BAD_ARGUMENT), ("app start a b", Code.TOO_MANY_ARGUMENTS), ("app log -x", Code.UNKNOWN_OPTION),
    ],
)  # fmt: skip
async def test_bad_arguments(call: Caller, line: str, code: Code) -> None:
    assert (await call(line)).code == code
    assert call.device.apps.did == []


async def test_safe_mode_lists_and_logs_only(safe_call: Caller) -> None:
    assert "sample-arm" in await safe_call.body("app")
    assert await safe_call.body("app log -n 1") == safe_call.device.apps.lines[-1]
    for action in ("start", "stop", "restart"):
        answer = await safe_call(f"app {action}")
        assert answer.code == Code.FAILED
        assert "safe mode" in answer.reason
        assert "faults_reset" in answer.reason
    assert safe_call.device.apps.did == []
