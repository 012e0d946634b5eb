"""`log`: the last lines, or the journal as it grows."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.console import Caller
from tests.support.fakes import Device
from zentrid.commands import journal
from zentrid.core.framing import MAX_BODY_BYTES


async def write(device: Device, *lines: str) -> None:
    def append() -> None:
        device.log.parent.mkdir(exist_ok=True)
        with device.log.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    await asyncio.to_thread(append)


async def test_last_lines(call: Caller, device: Device) -> None:
    assert await call.body("log") == "The log is empty"
    await write(device, *(f"line {number}" for number in range(100)))
    assert await call.body("log -n 2") == "line 98\nline 99"
    assert len((await call.body("log")).splitlines()) == 40
    await write(device, *("x" * 900 for _ in range(500)))
    assert len(await call.body("log -n 1000")) < MAX_BODY_BYTES


@pytest.mark.parametrize(("line", "code"), [("log -n x", 7), ("log -n 0", 9), ("log -n 1001", 9), ("log x", 5)])
async def test_wrong_uses(call: Caller, line: str, code: int) -> None:
    assert (await call(line)).code == code


async def test_following(call: Caller, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FOLLOW_S", 0.01)
    await write(device, "old", "last")
    interrupt = asyncio.Event()
    task = asyncio.create_task(call("log -f -n 1", interrupt))
    for number in range(3):
        await asyncio.sleep(0.03)
        await write(device, f"new {number}")
    async with asyncio.timeout(5):
        while len(call.out.lines) < 4:
            await asyncio.sleep(0.01)
    interrupt.set()
    answer = await asyncio.wait_for(task, 5)
    assert answer.code == 0
    assert call.out.lines == ["last", "new 0", "new 1", "new 2"]
