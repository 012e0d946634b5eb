"""The faults that lead to safe mode: listing and clearing them."""

from __future__ import annotations

import asyncio

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.core.bootstate import BootState, clear_faults


def fault_lines(state: BootState) -> str:
    """Return one line for each fault counted, numbered from 0; a hang is counted but leaves no record."""
    lines = [
        f"{number}: {fault.cause}, slot {fault.slot}, version {fault.version}, up {fault.uptime_s} s, {fault.utc}"
        + (f", {fault.detail}" if fault.detail else "")
        for number, fault in enumerate(state.fault_records)
    ]
    lines += [f"{number}: no record was left" for number in range(len(lines), state.faults)]
    return "\n".join(lines) or "No faults"


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
