"""The faults that lead to safe mode: listing and clearing them."""

from __future__ import annotations

import asyncio

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.core.bootstate import BootState, Fault, clear_faults

_UNKNOWN = "?"


def fault_lines(state: BootState) -> str:
    """Return one line for each fault counted, numbered from 0, oldest first."""
    lines = [f"{number}: {_line(fault)}" for number, fault in enumerate(state.fault_records)]
    lines += [f"{number}: no record was left" for number in range(len(lines), state.faults)]
    return "\n".join(lines) or "No faults"


def _line(fault: Fault) -> str:
    """Return cause, slot, version, uptime, time and detail; what is not known is said to be so, in the same place."""
    slot = "slot not known" if fault.slot == _UNKNOWN else f"slot {fault.slot}"
    version = "version not known" if fault.version == _UNKNOWN else f"version {fault.version}"
    uptime = f"up {fault.uptime_s} s" if fault.uptime_s else "uptime not known"
    utc = "time not known" if fault.utc == _UNKNOWN else fault.utc
    detail = fault.detail or ("not explained yet" if fault.cause == "reset" else "")
    return ", ".join(part for part in (fault.cause, slot, version, uptime, utc, detail) if part)


async def _print(call: Call) -> str:
    return fault_lines(await asyncio.to_thread(call.ctx.boot_state.read))


async def _reset(call: Call) -> None:
    await asyncio.to_thread(call.ctx.boot_state.update, clear_faults)


COMMANDS = (
    Command("faults_print", "list the faults counted; eight lead to safe mode", _print, "faults_print", "faup"),
    Command(
        "faults_reset", "forget all faults, so that the next restart is a normal one", _reset, "faults_reset", "faur"
    ),
)
