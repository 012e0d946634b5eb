"""What every attack must come to: the device is as it was, works on, and says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.device import Device, waiting
from zentrid.ports import UpdateProgress
from zentrid.update import tlstime, truststore

SETTINGS = b'{"dms.tag": "release"}'


async def attacked(
    device: Device, reason: str | None, says: str, *, writing: bool = False, **options: Any
) -> UpdateProgress:
    """Run an update under attack; it must fail, change nothing that runs, and give its reason.

    `reason`: of the report to the server; None: none is made, because the server that would get it did not answer.
    `writing`: the attack shows only while the other slot is filled, which then lost its tries.
    """
    settings = device.folder / "data" / "settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_bytes(SETTINGS)
    partitions, state, running = device.snapshot(), device.store.read(), device.running
    reported = len(await waiting(device))
    last = await device.update(**options)
    assert (last.ok, last.reboot) == (False, False), last.message
    assert says in last.message, last.message
    after = device.snapshot()
    changed = {label for label in partitions if after[label] != partitions[label]}
    assert changed <= ({"kernel_b", "rootfs_b"} if writing else set())
    expected = replace(state, seq=0, b_left=0, b_good=False, order=("a", "b")) if writing else replace(state, seq=0)
    assert replace(device.store.read(), seq=0) == expected
    assert settings.read_bytes() == SETTINGS
    reports = (await waiting(device))[reported:]
    assert [report["reason"] for report in reports] == ([] if reason is None else [reason])
    assert device.manager.state == "idle"
    assert device.is_whole(running)
    return last


async def recovers(device: Device) -> None:
    """After the attack an honest update goes through."""
    last = await device.update()
    assert last.ok, last.message


def flip(path_part: str, position: int) -> Callable[[str, bytes], bytes]:
    """A server that flips one bit in each answer for such a path."""

    def tamper(path: str, data: bytes) -> bytes:
        if path_part not in path:
            return data
        changed = bytearray(data)
        changed[position % len(data)] ^= 1
        return bytes(changed)

    return tamper


def set_clock(monkeypatch: pytest.MonkeyPatch, moment: datetime | timedelta) -> None:
    """Let the device's clock say `moment`, or be so far ahead of the true one."""

    def now() -> datetime:
        return datetime.now(UTC) + moment if isinstance(moment, timedelta) else moment

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return now()

    fake = SimpleNamespace(time=lambda: now().timestamp(), strftime=time.strftime, gmtime=time.gmtime)
    monkeypatch.setattr(truststore, "datetime", Clock)
    monkeypatch.setattr(tlstime, "time", fake)
