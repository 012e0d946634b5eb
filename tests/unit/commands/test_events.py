"""`events`: live, until Ctrl-C or the count; lines for people, JSON for programs; gone with its session."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.console import Caller, MemoryDoor
from zentrid.adapters.sessions import Session
from zentrid.commands.call import Answer
from zentrid.core.events import BootGood, FaultRecorded, UpdateChanged
from zentrid.core.framing import Code

GOOD = BootGood("a", "1.4.0")


async def following(call: Caller, line: str = "events", interrupt: asyncio.Event | None = None) -> asyncio.Task[Answer]:
    task: asyncio.Task[Answer] = asyncio.create_task(call(line, interrupt))
    while not call.device.ctx.events._followers:
        await asyncio.sleep(0)
    return task


async def test_people_read_lines_until_ctrl_c(call: Caller) -> None:
    interrupt = asyncio.Event()
    task = await following(call, interrupt=interrupt)
    call.device.ctx.events.tell(UpdateChanged("idle", "checking"))
    call.device.ctx.events.tell(FaultRecorded("panic", "Oops"))
    while len(call.out.lines) < 2:
        await asyncio.sleep(0)
    assert call.out.lines == [
        "2026-11-02T12:00:00Z update: idle -> checking",
        "2026-11-02T12:00:00Z fault: panic: Oops",
    ]
    interrupt.set()
    answer = await asyncio.wait_for(task, 5)
    assert (answer.code, answer.body) == (Code.SUCCESS, "Success")
    assert call.device.ctx.events._followers == []


async def test_programs_read_a_json_object_a_line(call: Caller) -> None:
    await call("set system.cmd.format machine")
    task = await following(call, "events -n 1")
    call.device.ctx.events.tell(GOOD)
    assert (await asyncio.wait_for(task, 5)).code == Code.SUCCESS
    [line] = call.out.lines
    assert json.loads(line) == {"time": "2026-11-02T12:00:00Z", "event": "boot_good", "slot": "a", "version": "1.4.0"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("events -n 0", Code.OUT_OF_BOUNDS),
        ("events -n 100000", Code.OUT_OF_BOUNDS),
        ("events -n x", Code.BAD_ARGUMENT),
        ("events now", Code.TOO_MANY_ARGUMENTS),
    ],
)
async def test_mistakes(call: Caller, line: str, code: Code) -> None:
    assert (await call(line)).code == code


async def test_one_that_does_not_read_is_told(call: Caller) -> None:
    task = await following(call)
    for _ in range(1000):
        call.device.ctx.events.tell(GOOD)
    answer = await asyncio.wait_for(task, 5)
    assert answer.code == Code.FAILED
    assert "faster than they were read" in answer.reason


async def test_it_ends_with_its_session(call: Caller) -> None:
    """Nobody could type Ctrl-C any more."""
    door = MemoryDoor()
    task = asyncio.create_task(Session(door, call.executor).run())
    door.type(b"events\r")
    while not call.device.ctx.events._followers:
        await asyncio.sleep(0)
    door.type(b"")
    await asyncio.wait_for(task, 5)
    assert call.device.ctx.events._followers == []


async def test_ctrl_c_in_a_session(call: Caller) -> None:
    door = MemoryDoor()
    task = asyncio.create_task(Session(door, call.executor).run())
    door.type(b"events\r")
    while not call.device.ctx.events._followers:
        await asyncio.sleep(0)
    call.device.ctx.events.tell(GOOD)
    await door.until(b"this boot is good: release 1.4.0 in slot a\r\n")
    door.type(b"\x03")
    await door.until(b"Success\r\n")
    door.type(b"version\r")
    await door.until(b"Zentri-1.4.0")
    door.type(b"")
    await asyncio.wait_for(task, 5)
