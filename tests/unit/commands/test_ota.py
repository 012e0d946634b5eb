"""`ota`: progress, outcomes, cancelling from here and from elsewhere, and who restarts the board."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.console import Caller
from zentrid.core.framing import Code
from zentrid.errors import ZentriError
from zentrid.ports import UpdateOptions, UpdateProgress

CHECKING = UpdateProgress("checking", 0, "")
LOADING = UpdateProgress("downloading", 42, "1.5.0", received_bytes=1000)
INSTALLED = UpdateProgress("rebooting", 100, "DEMO-VIRT_SENSOR 1.5.0 installed", 2000, done=True, reboot=True, result=1)
NOTHING = UpdateProgress("idle", 0, "No update required", done=True, result=2)


@pytest.fixture(autouse=True)
def quick(call: Caller) -> None:
    call.device.ctx.update_runner._reboot_delay_s = 0.01


async def settle(call: Caller) -> None:
    """Wait until the update's task, with a restart after it, has ended."""
    task = call.device.ctx.update_runner._task
    assert task is not None
    await asyncio.wait([task], timeout=5)


async def test_update_shows_progress_and_restarts(call: Caller) -> None:
    call.device.updates.script = [CHECKING, LOADING, INSTALLED]
    assert await call.body("ota") == "DEMO-VIRT_SENSOR 1.5.0 installed\nRebooting"
    assert call.out.steps[0] == (0, "checking")
    assert (42, "downloading: 1.5.0") in call.out.steps
    await settle(call)
    assert call.device.power.reboots == ["update installed"]
    assert await call.body("get ota.bytes") == "2000"


async def test_manual_restart(call: Caller) -> None:
    call.device.updates.script = [INSTALLED]
    await call.body("set ota.reboot manual")
    assert (await call.body("ota")).endswith("\nUse 'reboot' to start it.")
    await settle(call)
    assert call.device.power.reboots == []


async def test_nothing_to_do(call: Caller) -> None:
    call.device.updates.script = [CHECKING, NOTHING]
    assert await call.body("ota") == "No update required"
    await settle(call)
    assert call.device.power.reboots == []


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("ota", UpdateOptions()),
        ("ota -f", UpdateOptions(force=True)),
        ("ota -b 1.2.3", UpdateOptions(version="1.2.3")),
        ("ota -u /data/x.zb", UpdateOptions(source="/data/x.zb")),
        ("ota -fc", UpdateOptions(force=True, check_only=True)),
    ],
)
async def test_switches(call: Caller, line: str, options: UpdateOptions) -> None:
    call.device.updates.script = [NOTHING]
    await call.body(line)
    assert call.device.updates.asked == [options]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ota -x", Code.UNKNOWN_OPTION),
        ("ota -b", Code.TOO_FEW_ARGUMENTS),
        ("ota -b newest", Code.BAD_ARGUMENT),
        ("ota -b 1.2.3 -u x.zb", Code.BAD_ARGUMENT),
        ("ota stop", Code.BAD_ARGUMENT),
        ("ota cancel -f", Code.TOO_MANY_ARGUMENTS),
        ("ota cancel now", Code.TOO_MANY_ARGUMENTS),
        ("ota cancel", Code.FAILED),
    ],
)
async def test_mistakes_start_nothing(call: Caller, line: str, code: Code) -> None:
    answer = await call(line)
    assert answer.code == code
    assert answer.reason
    assert call.device.updates.asked == []


@pytest.mark.parametrize(
    "ending",
    [
        ZentriError('{"result":"fail","message":"device not claimed"}'),
        UpdateProgress("failed", 0, '{"result":"fail","message":"device not claimed"}', done=True, ok=False, result=7),
        UpdateProgress("failed", 0, "device not claimed", done=True, ok=False, result=7),
    ],
)
async def test_unclaimed_device_to_the_letter(call: Caller, ending: UpdateProgress | ZentriError) -> None:
    call.device.updates.script = [CHECKING, ending]
    answer = await call("ota")
    assert (answer.code, answer.body) == (Code.FAILED, "Command failed")
    assert answer.reason == '{"result":"fail","message":"device not claimed"}'


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ([CHECKING, ZentriError("The DMS cannot be reached.")], "The DMS cannot be reached."),
        ([UpdateProgress("failed", 9, "Bad signature.", done=True, ok=False)], "Bad signature."),
        ([CHECKING, ValueError("bug")], "ValueError"),
        ([CHECKING], "without a result"),
        ([], "without a result"),
    ],
)
async def test_failures_say_why_and_do_not_restart(
    call: Caller, script: list[UpdateProgress | Exception], part: str
) -> None:
    call.device.updates.script = script
    answer = await call("ota")
    assert answer.code == Code.FAILED
    assert part in answer.reason
    await settle(call)
    assert call.device.power.reboots == []


async def running(call: Caller, interrupt: asyncio.Event | None = None) -> asyncio.Task[object]:
    """Start an update that stops before its end, and return the command's task."""
    call.device.updates.script = [LOADING, INSTALLED]
    call.device.updates.gate = asyncio.Event()
    task: asyncio.Task[object] = asyncio.create_task(call("ota", interrupt))
    while not call.out.steps:
        await asyncio.sleep(0)
    return task


async def test_only_one_at_a_time(call: Caller) -> None:
    first = await running(call)
    second = await Caller(call.device)("ota")
    assert second.code == Code.FAILED
    assert "ota cancel" in second.reason
    assert len(call.device.updates.asked) == 1
    assert await call.body("ota cancel") == "Success"
    await first


async def test_cancel_from_another_session(call: Caller) -> None:
    first = await running(call)
    assert await Caller(call.device).body("ota cancel") == "Success"
    answer = await first
    assert "cancelled" in answer.reason  # type: ignore[attr-defined]
    assert call.device.power.reboots == []


async def test_ctrl_c_cancels(call: Caller) -> None:
    interrupt = asyncio.Event()
    first = await running(call, interrupt)
    interrupt.set()
    answer = await asyncio.wait_for(first, 5)
    assert answer.code == Code.FAILED  # type: ignore[attr-defined]
    assert "cancelled" in answer.reason  # type: ignore[attr-defined]


async def test_ctrl_c_that_cannot_be_heeded_is_told_and_the_outcome_too(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full() -> bool:
        raise ZentriError("the disk is full")

    interrupt = asyncio.Event()
    first = await running(call, interrupt)
    monkeypatch.setattr(call.device.updates, "cancel", full)
    interrupt.set()
    async with asyncio.timeout(5):
        while not call.out.lines:
            await asyncio.sleep(0)
    assert call.out.lines == ["The update cannot be taken back: the disk is full"]
    assert call.device.updates.gate is not None
    call.device.updates.gate.set()
    assert (await first).code == Code.SUCCESS  # type: ignore[attr-defined]


async def test_ctrl_c_too_late_is_told_and_the_update_goes_on(call: Caller) -> None:
    interrupt = asyncio.Event()
    first = await running(call, interrupt)
    call.device.updates.past_cancelling = True
    interrupt.set()
    while not call.out.lines:
        await asyncio.sleep(0)
    assert "past cancelling" in call.out.lines[0]
    assert call.device.updates.gate is not None
    call.device.updates.gate.set()
    answer = await first
    assert answer.code == Code.SUCCESS  # type: ignore[attr-defined]


async def test_a_lost_session_does_not_stop_the_update(call: Caller) -> None:
    first = await running(call)
    first.cancel()
    await asyncio.wait([first])
    assert call.device.updates.gate is not None
    call.device.updates.gate.set()
    await asyncio.wait_for(call.device.power.rebooted.wait(), 5)
    assert call.device.power.reboots == ["update installed"]


async def test_a_restart_that_fails_is_logged(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    call.device.updates.script = [INSTALLED]
    call.device.power.error = ZentriError("the boot state could not be written")
    await call.body("ota")
    await settle(call)
    assert "could not be written" in caplog.text


async def test_stopping_the_runner_ends_its_task(call: Caller) -> None:
    first = await running(call)
    await call.device.ctx.update_runner.stop()
    answer = await asyncio.wait_for(first, 5)
    assert answer.code == Code.FAILED  # type: ignore[attr-defined]


# --- installed, but not started -------------------------------------------------------------------------------------------------
async def test_an_installed_release_is_taken_back(call: Caller) -> None:
    call.device.updates.script = [INSTALLED]
    await call.body("set ota.reboot manual")
    await call.body("ota")
    await settle(call)
    assert await call.body("get ota.state") == "rebooting"
    call.device.updates.installed = True
    assert await call.body("ota cancel") == "The installed release was taken back; the one that runs stays."
    assert (await call("ota cancel")).code == Code.FAILED


async def test_a_release_that_is_taken_back_in_the_last_moment_is_not_restarted_into(call: Caller) -> None:
    call.device.ctx.update_runner._reboot_delay_s = 0.3
    call.device.updates.script = [INSTALLED]
    await call.body("ota")
    call.device.updates.installed = True
    await call.body("ota cancel")
    await settle(call)
    assert call.device.power.reboots == []


async def test_an_update_that_nobody_asked_for_does_not_restart_by_itself(call: Caller) -> None:
    call.device.updates.script = [INSTALLED]
    call.device.ctx.update_runner.start(UpdateOptions(by_itself=True))
    await settle(call)
    assert call.device.power.reboots == []


@pytest.mark.parametrize("value", ['"mon-fri 22:00-04:00; sat,sun 01:00-05:00"', '""', "22:00-04:00"])
async def test_windows_can_be_set(call: Caller, value: str) -> None:
    await call.body(f"set dms.window {value}")
    assert (await call.body("get dms.window")).strip() == value.strip('"')


async def test_bad_windows_are_refused_with_an_example(call: Caller) -> None:
    answer = await call('set dms.window "at night"')
    assert answer.code == Code.BAD_ARGUMENT
    assert answer.reason.endswith("An example: mon-fri 22:00-04:00; sat,sun 01:00-05:00")
