"""The `items` command."""

from __future__ import annotations

from tests.support.console import Caller
from zentrid.core.items import Held, ItemSet

HELD = ItemSet(
    "1.0.2",
    "1.0.0",
    (
        Held("app", "arm", "3.1.0", "1.0.1", "aa.app-1"),
        Held("file", "etc_rules", "1.0.2", "1.0.2", "bb.file", "etc/rules"),
    ),
)


async def test_what_bundles_brought_is_a_table(call: Caller) -> None:
    call.device.ctx.held_items = lambda: HELD
    lines = (await call.body("items")).split("\n")
    assert [line.split() for line in lines] == [
        ["#", "type", "name", "version", "release", "path"],
        ["app", "arm", "3.1.0", "1.0.1", "-"],
        ["file", "etc_rules", "1.0.2", "1.0.2", "etc/rules"],
    ]


async def test_none_is_said(call: Caller) -> None:
    assert await call.body("items") == "No applications or files of bundles"
    call.device.ctx.held_items = lambda: ItemSet("1.0.1", "1.0.0")
    assert await call.body("items") == "No applications or files of bundles"


async def test_in_safe_mode_it_works_too(safe_call: Caller) -> None:
    assert "No applications" in await safe_call.body("items")
