"""The device itself: version, slots, restarting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from zentrid.commands.call import Call, Reply
from zentrid.commands.registry import Command
from zentrid.commands.table import columns
from zentrid.ports import SlotInfo


async def _version(call: Call) -> str:
    return call.ctx.version_line()


async def _reboot(call: Call) -> Reply:
    return Reply("Rebooting", then=lambda: call.ctx.power.reboot("command"))


async def _mark_good(call: Call) -> str:
    return await call.ctx.mark_good()


async def _slots(call: Call) -> str:
    return slot_lines(await asyncio.to_thread(call.ctx.slots.slots))


def slot_lines(slots: Sequence[SlotInfo]) -> str:
    """Return the slots as a table: the header begins with `#`, columns are separated by blanks."""
    rows = [("# slot", "version", "state", "tries", "good", "runs")]
    rows += [
        (
            f"  {info.slot}",
            info.version or "-",
            info.state,
            "-" if info.slot == "r" else str(info.tries_left),
            "yes" if info.good else "no",
            "yes" if info.running else "no",
        )
        for info in slots
    ]
    return columns(rows)


COMMANDS = (
    Command("version", "print product, version, build time, Zentri version and board", _version, "version", "ver"),
    Command("reboot", "restart the device cleanly", _reboot, "reboot"),
    Command(
        "mark_good",
        "this boot is good, now: without waiting any longer, nor for the server; refused while anything else is wrong",
        _mark_good,
        "mark_good",
        "mgo",
        safe_mode=False,
    ),
    Command("slots", "print the slots: version, state, tries left, and which one runs", _slots, "slots"),
)
