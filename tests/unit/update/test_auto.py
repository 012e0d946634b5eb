"""Automatic mode on a whole device: what is installed without a person, what never again, and when it restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fakes import FixedClock, MemoryPower
from tests.support.fleet import Fleet, Release, make_release, make_rootfs
from zentrid.commands.updaterun import UpdateRunner
from zentrid.core.bootstate import Fault, add_fault, clear_faults
from zentrid.core.events import DeviceEvent, UpdateAvailable, UpdateChanged
from zentrid.core.schedule import AGAIN_S, Action, Settings, Windows, parse_windows
from zentrid.ports import UpdateOptions, UpdateProgress
from zentrid.update.auto import AutoUpdates, TimeOfDay

SETTINGS = Settings("install", Windows(), 300, restarts=True)
NIGHT = replace(SETTINGS, windows=parse_windows("22:00-04:00"))
NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)


class Owner:
    """A device that updates by itself; time goes by as it sleeps, and a restart restarts the files' device."""

    def __init__(self, device: Device, settings: Settings = SETTINGS, utc: datetime = NOON) -> None:
        self.device = device
        self.settings = settings
        self.uptime_s = 100.0
        self.utc = utc
        self.good = True
        self.power = MemoryPower()
        self.waits: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.runner = UpdateRunner(self.device.manager, self.power, lambda: self.settings.restarts, reboot_delay_s=0.0)
        self.auto = AutoUpdates(
            self.device.manager, self.runner, lambda: self.settings, lambda: self.uptime_s, lambda: self.utc,
            boot_good=lambda: self.good and not self.device.manager.on_trial, restart=self.power.reboot, chance=lambda: 0.5,
            way_out=self.forget_faults,
        )  # fmt: skip

    async def forget_faults(self) -> None:
        if self.device.running == "r":
            self.device.store.update(clear_faults)

    async def live(self, seconds: float) -> None:
        """Let the time go by, without restarting."""
        end_s = self.uptime_s + seconds
        while self.uptime_s < end_s and not self.power.reboots:
            decision = self.auto.decide()
            self.waits += [decision.reason] if decision.action is Action.WAIT else []
            pause_s = await self.auto._step()
            self.uptime_s += pause_s
            self.utc += timedelta(seconds=pause_s)

    async def restart(self, *, healthy: bool = True) -> None:
        self.power.reboots.clear()
        await self.device.boot().start()
        self.begin()
        if healthy:
            await self.device.manager.on_healthy()


@pytest.fixture
async def owner(device: Device) -> Owner:
    await device.manager.start()
    return Owner(device)


async def test_a_new_release_is_installed_once_and_the_board_restarted(
    owner: Owner, device: Device, doorman: Doorman, published: Release
) -> None:
    await owner.live(3600)
    assert owner.power.reboots == ["update installed"]
    await owner.restart(healthy=False)
    assert device.version == "1.1.0"
    await owner.live(3600)
    assert (owner.power.reboots, set(owner.waits[-50:])) == ([], {"this boot is not good yet"})
    await device.manager.on_healthy()
    checks = len(doorman.checks)
    await owner.live(3600)
    assert owner.power.reboots == []
    assert 9 <= len(doorman.checks) - checks <= 13, "an hour at five minutes"
    assert [report["event"] for report in await waiting(device)] == ["installed"]


async def test_a_release_that_was_taken_back_is_not_installed_again_until_there_is_another(
    owner: Owner, device: Device, doorman: Doorman, published: Release, fleet: Fleet
) -> None:
    await owner.live(600)
    for _ in range(3):
        await owner.restart(healthy=False)
    assert device.running == "b"
    await owner.restart()
    assert (device.running, device.manager.failed_version) == ("a", "1.1.0")
    before = device.snapshot()
    await owner.live(86_400)
    assert owner.power.reboots == []
    assert device.snapshot() == before
    assert [report["event"] for report in await waiting(device)] == ["rolled_back"], "passing it over is not reported"
    await owner.restart()
    await owner.live(3600)
    assert owner.power.reboots == [], "not after a restart either"
    newer = make_release("1.2.0", make_rootfs(9, blocks=240))
    fleet.publish(newer)
    device.known["1.2.0"] = newer
    doorman.offer = "1.2.0"
    await owner.live(3600)
    await owner.restart()
    assert device.version == "1.2.0"


async def test_a_person_may_install_it_all_the_same(owner: Owner, device: Device, published: Release) -> None:
    await owner.live(600)
    for _ in range(4):
        await owner.restart(healthy=False)
    await device.manager.on_healthy()
    assert (await device.update()).ok


@pytest.mark.parametrize("mode", ["off", "check"])
async def test_other_modes_install_nothing(
    owner: Owner, device: Device, doorman: Doorman, published: Release, mode: str
) -> None:
    told: list[DeviceEvent] = []
    device.parts_changes = {"tell": told.append}
    await device.boot().start()
    owner.begin()
    owner.settings = replace(SETTINGS, mode=mode)
    before = device.snapshot()
    await owner.live(3600)
    assert device.snapshot() == before
    assert bool(doorman.checks) == (mode == "check")
    assert device.manager.available == ("1.1.0" if mode == "check" else "")
    found = [event for event in told if isinstance(event, UpdateAvailable)]
    assert found == ([UpdateAvailable("1.1.0")] if mode == "check" else []), "told once, not at each look"
    assert all(event.routine for event in told if isinstance(event, UpdateChanged))


async def test_it_waits_for_its_window_and_restarts_in_one(
    owner: Owner, device: Device, doorman: Doorman, published: Release
) -> None:
    owner.settings = NIGHT
    await owner.live(9.9 * 3600)
    assert (doorman.checks, owner.power.reboots) == ([], [])
    await owner.live(3600)
    assert owner.power.reboots == ["update installed"]
    assert owner.utc.hour == 22


async def test_an_update_that_outlasts_its_window_restarts_in_the_next_one(
    owner: Owner, device: Device, published: Release
) -> None:
    owner.settings = NIGHT
    owner.utc = NOON.replace(hour=23)

    async def slow(_manifest: Any) -> str | None:
        owner.utc = NOON + timedelta(days=1)  # noon of the next day
        return None

    device.parts_changes = {"post_install": slow}
    await device.boot().start()
    owner.begin()
    await owner.live(600)
    assert (device.manager.state, owner.power.reboots) == ("rebooting", [])
    assert "outside the windows" in owner.waits
    await owner.live(12 * 3600)
    assert (owner.power.reboots, owner.utc.hour) == (["update installed"], 22)


async def test_with_a_manual_restart_a_person_has_the_last_word(
    owner: Owner, device: Device, doorman: Doorman, published: Release
) -> None:
    owner.settings = replace(SETTINGS, restarts=False)
    await owner.live(86_400)
    assert (device.manager.state, owner.power.reboots) == ("rebooting", [])
    assert await device.manager.cancel()
    checks = len(doorman.checks)
    await owner.live(2400)
    assert (device.manager.state, len(doorman.checks)) == ("idle", checks), (
        "who takes it back is not asked again at once"
    )
    await owner.live(4800)
    assert device.manager.state == "rebooting"


async def test_without_a_time_no_window_is_open(
    owner: Owner, device: Device, doorman: Doorman, published: Release
) -> None:
    owner.settings = NIGHT
    owner.auto.now = lambda: None
    await owner.live(86_400)
    assert doorman.checks == []
    owner.settings = SETTINGS
    await owner.live(600)
    assert owner.power.reboots == ["update installed"]


async def test_a_server_that_is_down_is_asked_ever_more_seldom(
    owner: Owner, doorman: Doorman, published: Release
) -> None:
    doorman.habits.refuse = {"check": (503, "back soon")}
    await owner.live(86_400)
    assert 8 <= len(doorman.asked("check")) <= 15
    doorman.habits.refuse = {}
    await owner.live(2 * 86_400)
    assert owner.power.reboots == ["update installed"]


async def test_an_update_that_nobody_asked_for_can_be_seen_and_cancelled(
    owner: Owner, device: Device, doorman: Doorman, published: Release
) -> None:
    begun = asyncio.Event()

    async def slow(_manifest: Any) -> str | None:
        begun.set()
        await asyncio.sleep(30)
        return None

    device.parts_changes = {"pre_install": slow}
    await device.boot().start()
    owner.begin()
    task = asyncio.create_task(owner.live(400))
    await asyncio.wait_for(begun.wait(), 20)
    assert owner.runner.busy
    assert owner.runner.run is not None
    device.manager._attempt._worker = None  # a thread, which has ended, and cannot be stopped
    assert await device.manager.cancel()
    await asyncio.wait_for(task, 20)
    checks = len(doorman.checks)
    await owner.live(1800)
    assert len(doorman.checks) == checks, "a person who says no is not asked again at once"
    assert [report["event"] for report in await waiting(device)] == ["cancelled"]


async def test_it_goes_on_by_itself_to_where_a_person_sent_it(
    owner: Owner, device: Device, doorman: Doorman, fleet: Fleet
) -> None:
    first = make_release("1.5.0", make_rootfs(5, blocks=240))
    second = make_release("2.0.0", make_rootfs(6, blocks=240), min_version="1.5.0")
    fleet.publish(first, second)
    device.known |= {"1.5.0": first, "2.0.0": second}
    doorman.offer = "2.0.0"
    owner.settings = replace(NIGHT, mode="off")
    async for _ in owner.runner.start(UpdateOptions()).watch():
        pass
    await asyncio.wait_for(owner.power.rebooted.wait(), 5)
    await owner.restart()
    assert device.version == "1.5.0"
    owner.power.rebooted.clear()
    await owner.live(30)
    await asyncio.wait_for(owner.power.rebooted.wait(), 5)
    await owner.restart()
    assert device.version == "2.0.0"
    await owner.live(3600)
    assert owner.power.reboots == []


# --- safe mode ----------------------------------------------------------------------------------------------------------------
async def fall_into_safe_mode(device: Device) -> None:
    for _ in range(8):
        device.store.update(lambda state: add_fault(state, Fault("panic", "a", "1.0.0", 3, "?")))
    device.store.update(lambda state: replace(state, a_left=0, b_left=0))
    manager = device.boot()
    device.store.update(lambda state: replace(state, a_left=3, a_good=True))  # eight faults take no tries
    await manager.start()
    assert device.running == "r"


async def test_safe_mode_is_repaired_by_a_release_that_was_not_here(
    owner: Owner, device: Device, published: Release
) -> None:
    await fall_into_safe_mode(device)
    owner.begin()
    await owner.live(3600)
    assert owner.power.reboots == ["update installed"]
    await owner.restart()
    assert device.version == "1.1.0"


async def test_safe_mode_does_not_go_round_in_circles(owner: Owner, device: Device, doorman: Doorman) -> None:
    """What is in a slot led there: installing it again by itself would end in safe mode again."""
    doorman.offer = "1.0.0"
    await fall_into_safe_mode(device)
    owner.begin()
    before = device.snapshot()
    await owner.live(86_400)
    assert (owner.power.reboots, device.snapshot()) == ([], before)
    assert doorman.checks
    assert (await device.update()).ok, "a person may try"


# --- the task -----------------------------------------------------------------------------------------------------------------
class Broken:
    """A runner that fails inside."""

    busy = False

    def __init__(self) -> None:
        self.starts = 0

    def start(self, options: UpdateOptions) -> Broken:
        self.starts += 1
        return self

    async def watch(self) -> AsyncIterator[UpdateProgress]:
        raise RuntimeError("a mistake in the program")
        yield


async def test_a_mistake_inside_is_logged_and_never_ends_the_task(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    broken, slept = Broken(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        owner.uptime_s += seconds
        await asyncio.sleep(0)

    owner.auto.runner, owner.auto.sleep = broken, sleep
    task = asyncio.create_task(owner.auto.run())
    async with asyncio.timeout(10):
        while broken.starts < 4:
            await asyncio.sleep(0)
    assert not task.done()
    assert "failed inside the device" in caplog.text
    assert sum(slept) > 300 + 600, "and not at once again"
    assert max(slept) <= AGAIN_S
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- what time it is ----------------------------------------------------------------------------------------------------------
def test_the_time_is_the_servers_once_it_was_heard_and_goes_on_with_the_uptime() -> None:
    clock = FixedClock()
    time_of_day = TimeOfDay(clock)
    assert time_of_day.now() == clock.now
    time_of_day.heard("2026-11-02T20:00:00Z")
    clock.up_s += 90
    clock.now += timedelta(days=300)  # somebody sets the clock
    assert time_of_day.now() == datetime(2026, 11, 2, 20, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "soon", "2026", "9999-99-99T00:00:00Z", "2026-10-01T00:00:00Z", "3026-01-01T00:00:00Z"]
)
def test_a_device_that_lost_the_time_believes_no_nonsense(text: str) -> None:
    clock = FixedClock()
    time_of_day = TimeOfDay(clock)
    time_of_day.known = False
    assert time_of_day.now() is None
    time_of_day.heard(text)
    assert time_of_day.now() is None
    time_of_day.heard("2026-11-05T00:00:00Z")
    assert time_of_day.now() == datetime(2026, 11, 5, tzinfo=UTC)


async def test_looking_asks_no_hook_and_reports_nothing(
    owner: Owner, device: Device, doorman: Doorman, fleet: Fleet
) -> None:
    async def never(_manifest: Any) -> str | None:
        raise AssertionError("nothing is going to be installed")

    device.parts_changes = {"pre_install": never}
    await device.boot().start()
    owner.begin()
    owner.settings = replace(SETTINGS, mode="check")
    fleet.publish(make_release("1.1.0", make_rootfs(5, blocks=240), compatible=("other",)))
    doorman.offer = "1.1.0"
    await owner.live(3600)
    assert doorman.checks
    assert await waiting(device) == [], "that this release is not for this board is told to whoever asks"


async def test_safe_mode_with_a_release_that_waits_for_its_restart_is_left(device: Device, published: Release) -> None:
    """The eighth fault came between the installation and the restart: another restart alone would lead to safe mode again."""
    assert (await device.update()).ok
    for _ in range(8):
        device.store.update(lambda state: add_fault(state, Fault("application", "a", "1.0.0", 9, "?")))
    await device.boot().start()
    assert (device.running, device.manager.state) == ("r", "rebooting")
    owner = Owner(device)
    await owner.live(600)
    assert owner.power.reboots == ["update installed"]
    await owner.restart()
    assert (device.running, device.manager.state) == ("b", "idle")


async def test_a_look_in_safe_mode_gives_up_no_installed_release(device: Device, published: Release) -> None:
    await device.update()
    for _ in range(8):
        device.store.update(lambda state: add_fault(state, Fault("application", "a", "1.0.0", 9, "?")))
    await device.boot().start()
    last = await device.update(check_only=True)
    assert (last.ok, last.reason, device.manager.state) == (False, "waiting", "rebooting")
    assert await waiting(device) == []


async def test_a_boot_state_that_takes_no_writes_is_no_reason_to_restart_for_ever(
    device: Device, published: Release
) -> None:
    await device.update()
    for _ in range(8):
        device.store.update(lambda state: add_fault(state, Fault("application", "a", "1.0.0", 9, "?")))
    await device.boot().start()
    device.store.broken_from = 0
    owner = Owner(device)
    await owner.live(600)
    assert owner.power.reboots == []
