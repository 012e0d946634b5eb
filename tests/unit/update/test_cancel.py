"""Cancelling: at once wherever an update waits, and after it was installed until it is started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Release
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.core.bootstate import BootStateWriteError
from zentrid.core.events import DeviceEvent, UpdateChanged
from zentrid.ports import UpdateProgress
from zentrid.update.errors import UpdateError

AT_ONCE_S = 3.0
"""Starting and ending a process included, on a busy machine."""


@pytest.fixture
def patient(device: Device) -> Device:
    """A device with real worker processes, whose waits are long."""
    device.launcher = SubprocessLauncher()
    device.parts_changes = {
        "limits": {"connect_s": 60.0, "read_s": 60.0, "rate_window_s": 60.0, "total_s": 600.0},
        "retries": {"most": 50, "first_pause_s": 60.0, "longest_pause_s": 60.0},
    }
    device.boot()
    return device


async def cancelled_after(device: Device, ready: Callable[[], bool]) -> UpdateProgress:
    """Start an update, cancel it once `ready`; return its last word, which must come at once."""
    update = asyncio.create_task(device.update())
    async with asyncio.timeout(30):
        while not ready():
            await asyncio.sleep(0.02)
    begin_s = time.monotonic()
    assert await device.manager.cancel()
    last = await update
    assert time.monotonic() - begin_s < AT_ONCE_S
    assert (last.ok, last.reason, device.manager.state) == (False, "cancelled", "idle")
    return last


async def test_while_the_server_is_asked_for_an_update(patient: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.before_check = lambda: doorman.hold.wait(30)
    await cancelled_after(patient, lambda: bool(doorman.asked("check")))
    doorman.hold.set()


async def test_while_the_server_makes_a_payload_ready(patient: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.refuse = {"payload/": (503, "the patch is being made")}
    await cancelled_after(patient, lambda: bool(doorman.asked("payload/")) and patient.manager.state == "downloading")
    assert patient.store.read().b_left == 0


async def test_in_the_middle_of_a_payload(patient: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.before_payload = lambda: print(doorman.hold.wait(30))
    await cancelled_after(patient, lambda: bool(doorman.asked("payload/")))
    doorman.hold.set()


async def test_while_another_question_to_the_server_is_under_way(patient: Device, published: Release) -> None:
    """Reports are being delivered, say: they hold the line for a while."""
    async with patient.manager._link._one_at_a_time:
        await cancelled_after(patient, lambda: patient.manager.state == "checking")


@pytest.mark.parametrize("kind", ["pre_install", "post_install"])
async def test_in_a_hook(device: Device, published: Release, kind: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(_manifest: Any) -> str | None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return None

    device.parts_changes = {kind: slow}
    device.boot()
    await cancelled_after_hook(device, begun)
    assert ended.is_set(), "the hook goes on without anybody who waits for it"
    assert (device.store.read().order[0], device.store.read().b_good) == ("a", False)
    device.parts_changes = {}
    device.boot()
    assert device.running == "a"


async def cancelled_after_hook(device: Device, begun: asyncio.Event) -> None:
    """The same with workers in threads, which cannot be stopped and need not be: none runs during a hook."""
    update = asyncio.create_task(device.update())
    await asyncio.wait_for(begun.wait(), 30)
    device.manager._attempt._worker = None
    begin_s = time.monotonic()
    assert await device.manager.cancel()
    last = await update
    assert time.monotonic() - begin_s < AT_ONCE_S
    assert (last.reason, device.manager.state) == ("cancelled", "idle")


async def test_a_post_install_hook_keeps_a_release_from_being_activated(device: Device, published: Release) -> None:
    async def no(manifest: Any) -> str | None:
        assert device.slot_holds("b", published), "asked before everything was there"
        assert device.store.read().b_left == 0, "asked after it was activated"
        return f"post-install hook 10-no: {manifest.version} is not for us"

    device.parts_changes = {"post_install": no}
    device.boot()
    last = await device.update()
    assert (last.ok, last.reason) == (False, "hook")
    assert "1.1.0 is not for us" in last.message
    state = device.store.read()
    assert (state.order[0], state.b_left) == ("a", 0)
    [report] = await waiting(device)
    assert (report["event"], report["reason"]) == ("failed", "hook")
    device.parts_changes = {}
    device.boot()
    assert device.running == "a"
    assert (await device.update()).ok


# --- after it was installed ---------------------------------------------------------------------------------------------------
async def test_an_installed_release_is_taken_back_before_it_is_started(device: Device, published: Release) -> None:
    told: list[DeviceEvent] = []
    device.parts_changes = {"tell": told.append}
    device.boot()
    assert (await device.update()).reboot
    assert device.manager.state == "rebooting"
    assert await device.manager.cancel()
    state = device.store.read()
    assert (state.order, state.b_left, state.b_good, state.a_good) == (("a", "b"), 0, False, True)
    assert device.manager.state == "idle"
    [report] = await waiting(device)
    assert (report["event"], report["reason"], report["to"], report["version"]) == (
        "cancelled",
        "cancelled",
        "1.1.0",
        "1.0.0",
    )
    changes = [(event.state, event.outcome) for event in told if isinstance(event, UpdateChanged)]
    assert changes[-2:] == [("reverting", ""), ("idle", "cancelled")]
    assert not await device.manager.cancel(), "there is nothing left to cancel"
    device.boot()
    await device.manager.start()
    assert (device.running, device.manager.state, device.manager.failed_version) == ("a", "idle", "")
    assert (await device.update()).ok, "nothing stands in the way of installing it after all"


async def test_a_restart_of_the_supervisor_in_between_confuses_nothing(device: Device, published: Release) -> None:
    await device.update()
    manager = device.start()
    await manager.start()
    assert manager.state == "rebooting"
    assert await manager.cancel()
    device.boot()
    assert device.running == "a"


async def test_a_release_that_runs_is_not_taken_back(device: Device, published: Release) -> None:
    await device.update()
    await device.boot().start()
    assert (device.running, device.manager.state) == ("b", "confirming")
    assert not await device.manager.cancel()
    await device.manager.on_healthy()
    assert not await device.manager.cancel()


async def test_a_boot_state_that_takes_no_writes_leaves_it_installed(device: Device, published: Release) -> None:
    await device.update()
    device.store.broken_from = 0
    with pytest.raises(BootStateWriteError):
        await device.manager.cancel()
    device.store.broken_from = None
    assert device.manager.state == "rebooting"
    await device.boot().start()
    assert (device.running, device.manager.state) == ("b", "confirming")


async def test_a_journal_that_takes_no_writes_leaves_it_installed(
    device: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    await device.update()
    with monkeypatch.context() as broken:
        broken.setattr("zentrid.update.journal.write_durable", full)
        with pytest.raises(UpdateError, match="cannot write its update journal"):
            await device.manager.cancel()
    assert device.store.read().order[0] == "b"
    assert await device.manager.cancel()
