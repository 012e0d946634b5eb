"""`factory_reset` and `force_safemode`: only for this device's MAC, and only if the boot state could be written."""

from __future__ import annotations

import pytest

from tests.support.console import Caller
from zentrid.core.bootstate import BootState, Fault
from zentrid.core.framing import Code
from zentrid.core.names import MAX_FAULTS
from zentrid.factoryreset import request_reset, write_request

MAC = "52:54:00:12:34:56"
FAULT = Fault("panic", "a", "1.4.0", 12, "?")


@pytest.mark.parametrize(
    ("line", "tier"),
    [
        (f"factory_reset {MAC}", 1),
        (f"fac {MAC.lower()}", 1),
        ("factory_reset 525400123456", 1),
        ("factory_reset 52-54-00-12-34-56", 1),
        (f"factory_reset -s {MAC}", 2),
        (f"fac -s {MAC}", 2),
    ],
)
async def test_it_is_written_before_the_answer_and_the_restart(call: Caller, line: str, tier: int) -> None:
    before = BootState(a_left=2, faults=1, fault_records=(FAULT,))
    call.device.boot_state.state = before
    answer = await call(line)
    assert answer.body == "Rebooting"
    state = call.device.boot_state.read()
    assert (state.factory_reset, state.a_left, state.fault_records) == (tier, 2, (FAULT,))
    assert call.device.power.reboots == []
    await call.executor.afterwards(answer)
    assert len(call.device.power.reboots) == 1


@pytest.mark.parametrize("command", ["factory_reset", "fac -s", "force_safemode"])
@pytest.mark.parametrize(
    ("mac", "code"),
    [
        ("", Code.TOO_FEW_ARGUMENTS),
        ("52:54:00:12:34:57", Code.BAD_ARGUMENT),
        ("52:54:00:12:34:5", Code.BAD_ARGUMENT),
        ("52:54:00:12:34:56:00", Code.BAD_ARGUMENT),
        ('""', Code.BAD_ARGUMENT),
        ("-", Code.BAD_ARGUMENT),
        (f"{MAC} {MAC}", Code.TOO_MANY_ARGUMENTS),
    ],
)
async def test_a_wrong_or_missing_mac_changes_nothing(call: Caller, command: str, mac: str, code: Code) -> None:
    before = call.device.boot_state.read()
    answer = await call(f"{command} {mac}")
    assert answer.code == code
    assert answer.then is None
    assert call.device.boot_state.read() is before


@pytest.mark.parametrize("command", ["factory_reset", "force_safemode"])
async def test_a_boot_state_that_cannot_be_written_is_a_failure_and_no_restart(call: Caller, command: str) -> None:
    call.device.boot_state.broken = True
    answer = await call(f"{command} {MAC}")
    assert answer.code == Code.FAILED
    assert "could not be written" in answer.reason
    assert answer.then is None


async def test_in_safe_mode_there_is_a_way_to_the_factory_but_not_deeper_into_safe_mode(safe_call: Caller) -> None:
    assert await safe_call.body(f"fac {MAC}") == "Rebooting"
    assert (await safe_call(f"force_safemode {MAC}")).code == Code.UNKNOWN_COMMAND


async def test_force_safemode_leaves_eight_records(call: Caller) -> None:
    call.device.boot_state.state = BootState(faults=1, fault_records=(FAULT,))
    answer = await call(f"force_safemode {MAC}")
    assert answer.body == "Rebooting"
    state = call.device.boot_state.read()
    assert state.faults == MAX_FAULTS
    assert [fault.cause for fault in state.fault_records] == ["forced"] * MAX_FAULTS
    await call.executor.afterwards(answer)
    assert len(call.device.power.reboots) == 1
    assert (await call.body("faults_print")).startswith(
        "0: forced, slot a, version 1.4.0, up 61 s, 2026-11-02T12:00:00Z"
    )


async def test_the_way_that_button_and_server_take(call: Caller) -> None:
    store, power = call.device.boot_state, call.device.power
    await request_reset(store, power, settings_only=False, why="the button was held")
    assert store.read().factory_reset == 1
    assert power.reboots == ["factory reset: the button was held"]


async def test_settings_only_does_not_weaken_a_reset_of_everything(call: Caller) -> None:
    store = call.device.boot_state
    await write_request(store, settings_only=False)
    await write_request(store, settings_only=True)
    assert store.read().factory_reset == 1
    store.state = BootState(factory_reset=2)
    await write_request(store, settings_only=False)
    assert store.read().factory_reset == 1
