"""The `log` command: the supervisor's journal, its last lines or as it grows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from zentrid.commands.call import Call
from zentrid.commands.options import whole_number
from zentrid.commands.registry import Command
from zentrid.commands.table import fitting
from zentrid.core.grammar import Option

DEFAULT_LINES: Final = 40
MAX_LINES: Final = 1000
FOLLOW_S: Final = 0.5


async def _log(call: Call) -> str | None:
    count = whole_number(call.arguments.options.get("n", str(DEFAULT_LINES)), "-n", 1, MAX_LINES, "lines")
    lines, place = await asyncio.to_thread(call.ctx.journal.tail, count)
    if not call.arguments.flag("f"):
        return "\n".join(fitting(lines)) or "The log is empty"
    while not call.interrupt.is_set():
        for line in lines:
            call.out.log(line)
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_S):
                await call.interrupt.wait()
        lines, place = await asyncio.to_thread(call.ctx.journal.news, place)
    return None


COMMANDS = (
    Command(
        "log",
        "print the last lines of the device's journal, or follow it until Ctrl-C",
        _log,
        "log -n 100",
        options=(
            Option("f", "go on with every new line"),
            Option("n", f"so many lines, at most {MAX_LINES}; {DEFAULT_LINES} if left out", "lines"),
        ),
        timeout_s=None,
        interruptible=True,
        ends_with_session=lambda given: given.flag("f"),
    ),
)
