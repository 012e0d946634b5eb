"""Sessions on a door in memory: what a person and a program see, to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from blockbuster import blockbuster_ctx

from tests.support.console import MemoryDoor
from tests.support.fakes import Device
from zentrid.adapters.sessions import MAX_TYPED_AHEAD_BYTES, Session
from zentrid.adapters.terminal import LINE_CHARS, MAX_BUFFERED_LINES, Terminal, bar
from zentrid.commands.call import SessionState
from zentrid.commands.catalog import build_registry
from zentrid.commands.execute import Executor, failure
from zentrid.core.framing import Code, Frame, FrameReader
from zentrid.core.grammar import MAX_LINE_BYTES
from zentrid.core.network import NetworkError
from zentrid.errors import ZentriError
from zentrid.ports import UpdateProgress

T = TypeVar("T")
VERSION = b"DEMO-VIRT_SENSOR-1.4.0, 2026-11-01T10:00:00Z, Zentri-1.4.0, Board:virt\r\n"
INSTALLED = UpdateProgress("rebooting", 100, "1.5.0 installed", done=True, reboot=True)


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[None]:
    with blockbuster_ctx("zentrid"):
        yield


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@asynccontextmanager
async def session(device: Device, *, machine: bool = False, idle_s: float | None = None) -> AsyncIterator[MemoryDoor]:
    """Run a session on a door in memory."""
    door = MemoryDoor()
    task = asyncio.create_task(
        Session(door, Executor(build_registry(), device.ctx), machine=machine, idle_s=idle_s).run()
    )
    try:
        yield door
    finally:
        door.type(b"")
        await asyncio.wait_for(task, 5)
        assert door.closed


# --- a session in human mode ------------------------------------------------------------------------------------------
async def test_greeting_prompt_echo_answer(device: Device) -> None:
    async with session(device) as door:
        assert await door.until(b"> ") == VERSION + b"> "
        door.type(b"get sy u\r")
        assert await door.until(b"> ") == b"get sy u\r\n6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11\r\n> "


async def test_failure_says_why_and_then_that(device: Device) -> None:
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"dms claim demo wrong\r")
        assert (await door.until(b"> ")).endswith(
            b'\r\n{"result":"fail","message":"wrong user name or password"}\r\nCommand failed\r\n> '
        )


async def test_safe_mode_greets_and_prompts(tmp_path: Path) -> None:
    async with session(Device(tmp_path, safe_mode=True)) as door:
        assert await door.until(b"> ") == b"*** Max faults exceeded. Entering Safe Mode.\r\nSAFEMODE> "
        door.type(b"get system.safemode.status\r")
        assert (await door.until(b"SAFEMODE> ")).endswith(b"\r\n1\r\nSAFEMODE> ")
        door.type(b"gpio_get 0\r")
        answer = await door.until(b"SAFEMODE> ")
        assert b"safe mode" in answer
        assert answer.endswith(b"\r\nUnknown command\r\nSAFEMODE> ")


async def test_changing_to_machine_mode_and_back(device: Device) -> None:
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"set system.cmd.format machine\r\n")
        assert await door.until(b"Set OK\r\n") == b"set system.cmd.format machine\r\nR000008\r\nSet OK\r\n"
        door.type(b"verson\r\n")
        log, answer = FrameReader().feed(await door.until(b"command\r\n"))
        assert log.kind == "L"
        assert answer == Frame("R", 3, b"Unknown command\r\n")
        door.type(b"set system.cmd.mode human\r\n")
        assert await door.until(b"> ") == b"Set OK\r\n> "


async def test_lines_that_come_at_once_are_taken_one_after_the_other(device: Device) -> None:
    async with session(device) as door:
        door.type(b"set system.cmd.format machine\rget sy s s\r\nget ota.state\n\r\n")
        output = await door.until(b"idle\r\n")
        assert output.endswith(b"R000008\r\nSet OK\r\nR000003\r\n0\r\nR000006\r\nidle\r\n")


async def test_ctrl_c_at_the_prompt_drops_the_line(device: Device) -> None:
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"reboot\x03")
        assert await door.until(b"> ") == b"reboot^C\r\n> "
    assert device.power.reboots == []


async def test_completion_and_history(device: Device) -> None:
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"get system.uu\t\r")
        assert b"6f1e3c52" in await door.until(b"> ")
        door.type(b"dms claim demo hunter2\r")
        await door.until(b"> ")
        door.type(b"\x1b[A")
        assert b"get system.uuid" in await door.until(b"uuid ")
        door.type(b"\x1b[A\r")
        assert b"hunter2" not in await door.until(b"> ")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x" * (MAX_LINE_BYTES + 1), b"Buffer overflow\r\n"),
        (b"get \xff\xfe", b"Parse error\r\n"),
        (b'get "', b"Parse error\r\n"),
    ],
)
async def test_bad_lines_are_answered_and_the_session_lives(device: Device, data: bytes, text: bytes) -> None:
    async with session(device) as door:
        await door.until(b"> ")
        door.type(data + b"\r")
        assert (await door.until(text)).endswith(b".\r\n" + text)
        door.type(b"version\r")
        assert VERSION in await door.until(b"Board:virt\r\n")


async def test_idle_sessions_are_closed(device: Device) -> None:
    async with session(device, idle_s=0.05) as door:
        await door.until(b"no input for a long time.\r\n")


async def test_ctrl_d_ends_a_session_that_can_be_opened_again_only(device: Device) -> None:
    async with session(device, idle_s=60) as door:
        await door.until(b"> ")
        door.type(b"\x04")
        while not door.closed:
            await asyncio.sleep(0)
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"\x04version\r")
        await door.until(VERSION)


async def test_print_level_and_buffering(device: Device) -> None:
    async with session(device, machine=True) as door:
        door.type(b"set system.print_level none\rnonsense\r")
        assert await door.until(b"command\r\n") == b"R000008\r\nSet OK\r\nR300017\r\nUnknown command\r\n"
        door.type(b"set system.print_level error\rset system.cmd.buffered 1\rnonsense\r")
        assert b"\r\nL0" in await door.until(b"command\r\n")


async def test_reboot_answers_then_restarts(device: Device) -> None:
    async with session(device) as door:
        door.type(b"reboot\r")
        assert b"reboot\r\nRebooting\r\n" in await door.until(b"Rebooting\r\n")
        await asyncio.wait_for(device.power.rebooted.wait(), 5)


async def test_the_restart_waits_for_its_answer_to_go_out(device: Device) -> None:
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"reboot")
        await door.until(b"reboot")
        door.gone.clear()
        door.type(b"\r")
        await door.until(b"Rebooting\r\n")
        await asyncio.sleep(0.02)
        assert device.power.reboots == []
        door.gone.set()
        await asyncio.wait_for(device.power.rebooted.wait(), 5)


async def test_a_restart_that_fails_is_told(device: Device) -> None:
    device.power.error = ZentriError("The restart was refused.")
    async with session(device) as door:
        door.type(b"reboot\r")
        await door.until(b"Rebooting\r\nThe restart was refused.\r\nCommand failed\r\n> ")


async def test_reading_stops_while_too_much_is_typed_ahead(device: Device) -> None:
    device.dms.delay_s = 0.2
    async with session(device, machine=True) as door:
        door.type(b"dms status\n")
        for _ in range(10):
            door.type((b" " * 1023 + b"\n") * (MAX_TYPED_AHEAD_BYTES // 1024))
        door.type(b"version\n")
        await asyncio.sleep(0.05)
        assert door.unread >= 8
        await door.until(VERSION)


async def test_a_flood_of_lines_leaves_others_their_turn(device: Device) -> None:
    async with session(device, machine=True) as door:
        door.type(b"\n" * 2000 + b"version\n")
        turns = 0
        while VERSION not in door.output:
            turns += 1
            await asyncio.sleep(0)
        assert turns > 1000


async def test_a_command_without_own_handling_is_ended_by_ctrl_c(device: Device) -> None:
    device.dms.delay_s = 60
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"dms status\rtyped ahead")
        await door.until(b"dms status\r\n")
        await asyncio.sleep(0.01)
        door.type(b"\x03version\r")
        assert b"Cancelled.\r\nCommand failed\r\n> version\r\n" + VERSION in await door.until(b"Board:virt\r\n")


# --- updates on a session ---------------------------------------------------------------------------------------------
async def test_progress_bar_and_cancelling(device: Device) -> None:
    device.updates.script = [UpdateProgress("downloading", 50, "1.5.0"), INSTALLED]
    device.updates.gate = asyncio.Event()
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"ota\r")
        assert await door.until(b"1.5.0") == b"ota\r\n\r\x1b[K[############------------]  50% downloading: 1.5.0"
        door.type(b"\x03")
        assert await door.until(b"> ") == b"\r\nThe update was cancelled.\r\nCommand failed\r\n> "


async def test_ctrl_c_that_came_with_the_line_counts(device: Device) -> None:
    device.updates.script = [UpdateProgress("downloading", 50, "1.5.0"), INSTALLED]
    device.updates.gate = asyncio.Event()
    async with session(device, machine=True) as door:
        door.type(b"ota\r\n\x03")
        assert b"cancelled" in await door.until(b"R100016\r\nCommand failed\r\n")


async def test_programs_get_log_blocks_and_then_the_answer(device: Device) -> None:
    device.updates.script = [*(UpdateProgress("downloading", n, "") for n in range(0, 100, 5)), INSTALLED]
    await device.ctx.settings.reload()
    device.settings.values.set("ota.reboot", "manual")
    async with session(device, machine=True) as door:
        door.type(b"ota\r\n")
        frames = FrameReader().feed(await door.until(b"start it.\r\n"))
    assert [f.kind for f in frames[:-1]] == ["L"] * (len(frames) - 1)
    assert 1 <= len(frames) - 1 <= 11
    assert frames[-1] == Frame("R", 0, b"1.5.0 installed\r\nUse 'reboot' to start it.\r\n")


async def test_unclaimed_device_prints_the_servers_answer(device: Device) -> None:
    device.updates.script = [UpdateProgress("failed", 0, "device not claimed", done=True, ok=False, result=7)]
    async with session(device) as door:
        await door.until(b"> ")
        door.type(b"ota\r")
        assert await door.until(b"> ") == (
            b'ota\r\n{"result":"fail","message":"device not claimed"}\r\nCommand failed\r\n> '
        )


def test_log_text_that_is_held_back_is_bounded(device: Device) -> None:
    door, state = MemoryDoor(), SessionState(device.settings.values)
    state.set("system.cmd.buffered", True)
    terminal = Terminal(door, state, safe_mode=False)
    for _ in range(2 * MAX_BUFFERED_LINES):
        terminal.log("line")
    assert not door.output
    terminal.answer(failure(Code.FAILED, "why"))
    assert bytes(door.output) == b"line\r\n" * MAX_BUFFERED_LINES + b"why\r\nCommand failed\r\n"


def test_the_bar_is_drawn_five_times_a_second_at_most(device: Device) -> None:
    door, now_s = MemoryDoor(), [0.0]
    terminal = Terminal(door, SessionState(device.settings.values), safe_mode=False, now_s=lambda: now_s[0])
    for step in range(101):
        now_s[0] = step * 0.01
        terminal.progress(step, "downloading")
    assert door.output.count(b"\r\x1b[K") <= 6
    terminal.log("done")
    assert bytes(door.output).endswith(b"100% downloading\r\ndone\r\n")


@pytest.mark.parametrize("percent", [-5, 0, 33, 100, 250])
def test_the_bar_fits_every_terminal(percent: int) -> None:
    line = bar(percent, "x\n\x1b[2J" * 100)
    assert len(line) <= LINE_CHARS
    assert line.isprintable()


async def test_what_fails_after_the_answer_is_no_second_answer(device: Device) -> None:
    device.network.error = NetworkError("The network cannot be changed.")
    async with session(device, machine=True) as door:
        door.type(b"network_down\nget ota.state\n")
        frames = FrameReader().feed(await door.until(b"idle\r\n"))
    assert [(frame.kind, frame.body) for frame in frames] == [
        ("R", b"Network down\r\n"), ("L", b"The network cannot be changed.\r\n"), ("R", b"idle\r\n"),
    ]  # fmt: skip
