"""The `items` command: the applications and files that bundles brought."""

from __future__ import annotations

import asyncio

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.commands.table import columns
from zentrid.core.items import ItemSet


async def _items(call: Call) -> str:
    held = await asyncio.to_thread(call.ctx.held_items)
    return item_lines(held) if held is not None and held.items else "No applications or files of bundles"


def item_lines(held_set: ItemSet) -> str:
    """Return what a set holds as a table: the header begins with `#`, columns are separated by blanks."""
    rows = [("# type", "name", "version", "release", "path")]
    rows += [(f"  {held.type}", held.name, held.version, held.release, held.path or "-") for held in held_set.items]
    return columns(rows)


COMMANDS = (
    Command(
        "items",
        "the applications and files that bundles brought: type, name, version, the release that brought it, path",
        _items,
        "items",
    ),
)
