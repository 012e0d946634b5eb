"""`version`, `slots`, `reboot`."""

from __future__ import annotations

import asyncio

from tests.support.console import Caller
from zentrid.core.bootstate import BootStateWriteError
from zentrid.core.framing import Code
from zentrid.errors import ZentriError


async def test_version_line(call: Caller) -> None:
    expected = "DEMO-VIRT_SENSOR-1.4.0, 2026-11-01T10:00:00Z, Zentri-1.4.0, Board:virt"
    assert await call.body("version") == expected
    assert await call.body("ver") == expected
    assert await call.body("get system.version") == expected


async def test_version_takes_no_arguments(call: Caller) -> None:
    assert (await call("version now")).code == Code.TOO_MANY_ARGUMENTS


async def test_slots_table(call: Caller) -> None:
    assert (await call.body("slots")).split("\n") == [
        "# slot  version  state      tries  good  runs",
        "  a     1.4.0    running    3      yes   yes",
        "  b     -        empty      0      no    no",
        "  r     1.0.0    safe-mode  -      yes   no",
    ]


async def test_reboot_answers_before_it_restarts(call: Caller) -> None:
    answer = await call("reboot")
    assert answer.body == "Rebooting"
    assert call.device.power.reboots == []
    assert await call.executor.afterwards(answer) == ""
    assert call.device.power.reboots == ["command"]


async def test_reboot_that_cannot_write_the_boot_state_says_so(call: Caller) -> None:
    call.device.power.error = BootStateWriteError("copy 1 reads back differently")
    assert "could not be written" in await call.executor.afterwards(await call("reboot"))
    assert call.device.power.reboots == []


async def test_restarting_goes_on_when_the_session_ends(call: Caller) -> None:
    answer = await call("reboot")
    session = asyncio.create_task(call.executor.afterwards(answer))
    await asyncio.sleep(0)
    session.cancel()
    await asyncio.wait_for(call.device.power.rebooted.wait(), 5)
    await asyncio.gather(session, return_exceptions=True)
    assert session.cancelled()


async def test_mark_good_says_what_keeps_a_boot_from_being_good(call: Caller) -> None:
    answers: list[str | ZentriError] = [
        "This boot is good.",
        ZentriError("This boot is not good: the data is read-only."),
    ]

    async def mark_good() -> str:
        answer = answers.pop(0)
        if isinstance(answer, ZentriError):
            raise answer
        return answer

    call.device.ctx.mark_good = mark_good
    assert await call.body("mark_good") == "This boot is good."
    answer = await call("mgo")
    assert (answer.code, answer.reason) == (Code.FAILED, "This boot is not good: the data is read-only.")


async def test_the_safe_mode_system_is_not_marked_good(safe_call: Caller) -> None:
    assert (await safe_call("mark_good")).code == Code.UNKNOWN_COMMAND
