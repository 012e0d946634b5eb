"""`faults_print` and `faults_reset`: the list is what the boot state holds, and a reset that was not written is a failure."""

from __future__ import annotations

from dataclasses import replace

from tests.support.console import Caller
from zentrid.core.bootstate import BootState, Fault, add_fault
from zentrid.core.framing import Code

PANIC = Fault("panic", "a", "1.4.0", 12, "2026-11-02T00:00:00Z", "Kernel panic: x")
EXIT = Fault("application", "a", "1.4.0", 40, "?")


async def test_no_faults(call: Caller) -> None:
    assert await call.body("faults_print") == "No faults"


async def test_faults_are_listed_from_zero(call: Caller) -> None:
    call.device.boot_state.state = add_fault(add_fault(BootState(), PANIC), EXIT)
    assert (await call.body("faup")).split("\n") == [
        "0: panic, slot a, version 1.4.0, up 12 s, 2026-11-02T00:00:00Z, Kernel panic: x",
        "1: application, slot a, version 1.4.0, up 40 s, time not known",
    ]


async def test_what_nobody_knows_is_said_to_be_so(call: Caller) -> None:
    call.device.boot_state.state = add_fault(BootState(), Fault("reset", "?", "?", 0, "?", ""))
    assert await call.body("faup") == (
        "0: reset, slot not known, version not known, uptime not known, time not known, not explained yet"
    )


async def test_eight_faults_print_even_if_hangs_left_no_record(call: Caller) -> None:
    call.device.boot_state.state = replace(add_fault(BootState(), PANIC), faults=8)
    lines = (await call.body("faults_print")).split("\n")
    assert [line.split(":")[0] for line in lines] == list("01234567")
    assert lines[7] == "7: no record was left"


async def test_reset_clears_list_and_counter(safe_call: Caller) -> None:
    state = BootState()
    for _ in range(8):
        state = add_fault(state, PANIC)
    safe_call.device.boot_state.state = state
    assert await safe_call.body("get system.fault.count") == "8"
    assert await safe_call.body("faur") == "Success"
    assert await safe_call.body("faults_print") == "No faults"
    assert await safe_call.body("get system.fault.count") == "0"


async def test_reset_that_cannot_be_written_fails(call: Caller) -> None:
    call.device.boot_state.state = add_fault(BootState(), PANIC)
    call.device.boot_state.broken = True
    answer = await call("faults_reset")
    assert answer.code == Code.FAILED
    assert "could not be written" in answer.reason
    assert (await call.body("faults_print")).startswith("0: panic")


async def test_a_lost_boot_state_is_told_and_can_be_written_anew(call: Caller) -> None:
    call.device.boot_state.state = None
    assert "both copies" in (await call("faults_print")).reason
    assert await call.body("faults_reset") == "Success"
    assert await call.body("faults_print") == "No faults"
