"""The owner's limits on what an update takes from the network: `ota.rate_limit`, and what `ota.budget` hands on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.device import IMPATIENT, Device
from tests.support.doorman import Doorman
from tests.support.fleet import UUID, Fleet, Release
from zentrid.update.transport import Endpoint, Limits, Throttle, Transport, client_context


class FakeTime:
    """A clock that goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize("rate", [1024.0, 5000.0, 1_000_000.0])
def test_the_limit_holds_over_many_pieces_of_any_size(rate: float) -> None:
    fake = FakeTime()
    throttle = Throttle(rate, fake.clock, fake.sleep)
    sizes = [1, 65536, 700, 0, 16384, 3] * 20
    for size in sizes:
        throttle.received(size)
    assert fake.now_s - 100.0 == pytest.approx(sum(sizes) / rate)


def test_time_that_was_not_used_is_not_saved_up() -> None:
    fake = FakeTime()
    throttle = Throttle(1000.0, fake.clock, fake.sleep)
    throttle.received(500)
    fake.now_s += 3600
    before_s = fake.now_s
    throttle.received(2000)
    assert fake.now_s - before_s == pytest.approx(2.0)


def test_without_a_limit_nothing_waits() -> None:
    fake = FakeTime()
    Throttle(0.0, fake.clock, fake.sleep).received(10**9)
    assert fake.now_s == 100.0


@pytest.mark.parametrize(("rate", "most"), [(0.0, 65536), (1024.0, 512), (16 * 1024.0, 4096), (10**9, 65536)])
def test_what_is_read_at_once(rate: float, most: int) -> None:
    assert Limits(max_rate_bytes_s=rate).chunk_bytes == most


def test_a_low_limit_holds_on_the_wire_over_several_answers(fleet: Fleet, doorman: Doorman, published: Release) -> None:
    """Four answers of 4 KiB at 8 KiB/s: two seconds together, although each is less than one buffer of the kernel."""
    root = published.tree.root.hex()
    limits = Limits(max_rate_bytes_s=8192.0, min_rate_bytes_s=100_000.0, rate_window_s=0.3)
    transport = Transport(
        Endpoint("127.0.0.1", doorman.port, UUID, "1.0.0"), client_context(fleet.identity_dir), limits
    )
    begin_s = time.monotonic()
    for start in range(0, 16384, 4096):
        with transport.stream(f"/device/v1/payload/{root}?base=none", start, start + 4096) as chunks:
            assert sum(len(chunk) for chunk in chunks) == 4096
    took_s = time.monotonic() - begin_s
    transport.close()
    assert 1.9 < took_s < 4.0


async def test_the_settings_reach_the_worker(device: Device, published: Release) -> None:
    changes: dict[str, Any] = {"rate_limit_kib_s": lambda: 512, "budget_bytes": lambda: 40 * 1024 * 1024}
    device.parts_changes = {**changes, "limits": {k: v for k, v in IMPATIENT.items() if k != "total_s"}}
    device.boot()
    assert (await device.update()).ok
    request = device.launcher.requests[-1]
    assert (request.op, request.limits["max_rate_bytes_s"]) == ("install", 512 * 1024.0)
    assert request.install.budget_bytes == 40 * 1024 * 1024
    assert request.limits["total_s"] == 3600 + 512, "a slow update has longer"


@pytest.mark.parametrize(("rate_kib_s", "at_least_s"), [(0, 400), (1, 2400)])
def test_a_worker_at_a_low_limit_may_be_silent_for_longer(device: Device, rate_kib_s: int, at_least_s: int) -> None:
    device.parts_changes = {"rate_limit_kib_s": lambda: rate_kib_s}
    assert device.boot()._link.install_silence_s >= at_least_s


# --- the budget: the worker counts, see test_spool and test_patches ----------------------------------------------------------
async def test_force_and_a_file_have_no_budget(device: Device, fleet: Fleet, new: Release, published: Release) -> None:
    device.parts_changes = {"budget_bytes": lambda: 1}
    device.boot()
    last = await device.update()
    assert (last.ok, last.reason) == (False, "budget")
    assert (await device.update(force=True)).ok
    assert await device.manager.cancel()
    assert (await device.update(source=str(fleet.bundle(new, device.folder / "x.zb")))).ok
    assert device.launcher.requests[-1].install.budget_bytes == 0
