"""Fault reports: kept once, bounded, shown only to the device's owner, escaped."""

from __future__ import annotations

import html
import json
from typing import Any
from uuid import uuid4

import pytest

from dms_server.faults import backtraces
from tests.server.helpers import Browser, Device, Dms, ask

FRAME = {"module": "/usr/lib/libc.so.6", "build_id": "ab" * 20, "address": 4096}
FAULT: dict[str, Any] = {
    "cause": "app",
    "slot": "a",
    "version": "1.0.0",
    "uptime_s": 77,
    "utc": "2026-01-01T00:00:00Z",
    "frames": [FRAME, {**FRAME, "build_id": "", "address": 2**64 - 1}],
    "text": "Traceback\n  line\tone\x1b[31m",
}


async def report(device: Device, **changes: Any) -> Any:
    more = {"version": "1.0.0", "reason": "app", "detail": "ended by signal 11", "fault": FAULT, **changes}
    return await device.report("fault", **more)


def but(**changes: Any) -> dict[str, Any]:
    return {**FAULT, **changes}


async def shown(owner: Any, device: Device, query: str = "") -> Any:
    return (await owner.api("GET", f"devices/{device.uuid}/faults{query}")).body["faults"]


async def test_a_fault_is_kept_and_shown(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    assert (await report(device)).status == 200
    [fault] = await shown(owner, device)
    assert (fault["number"], fault["cause"], fault["slot"], fault["version"], fault["uptime_s"], fault["time"]) == (
        1, "app", "a", "1.0.0", 77, "2026-01-01T00:00:00Z",
    )  # fmt: skip
    assert fault["detail"] == "ended by signal 11"
    assert fault["text"] == "Traceback\n  line\tone?[31m"
    assert fault["frames"] == FAULT["frames"]
    assert fault["backtrace"] == [
        f"#0 0x1000 in libc.so.6 (the symbol file {'ab' * 20} is missing)",
        "#1 0xffffffffffffffff in libc.so.6 (it has no build-id)",
    ]
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["version"] == "1.0.0"
    assert (await owner.api("GET", f"devices/{device.uuid}/reports")).body["reports"] == []


async def test_the_same_report_again_is_the_same_fault(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    same = str(uuid4())
    assert (await report(device, id=same)).body["message"] == "report kept"
    assert (await report(device, id=same, fault=but(cause="other"))).body["message"] == "report was here before"
    assert [fault["cause"] for fault in await shown(owner, device)] == ["app"]
    other = await dms.ready_device(1)
    await report(other, id=same)
    assert len(await shown(owner, other)) == 1, "another device's ids are its own"


async def test_only_so_many_are_kept(dms: Dms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dms_server.faults.services.FAULTS_KEPT", 3)
    owner = await dms.owner()
    device, other = await dms.ready_device(), await dms.ready_device(1)
    await report(other)
    for number in range(5):
        assert (await report(device, detail=str(number))).status == 200
    found = await shown(owner, device)
    assert [(fault["number"], fault["detail"]) for fault in found] == [(5, "4"), (4, "3"), (3, "2")]
    assert len(await shown(owner, device, "?limit=2")) == 2
    assert len(await shown(owner, other)) == 1


@pytest.mark.parametrize("event", ["fault", "boot"])
async def test_too_many_in_a_minute_wait(dms: Dms, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    monkeypatch.setattr("dms_server.faults.services.FAULTS_A_MINUTE", 2)
    monkeypatch.setattr("dms_server.updates.services.REPORTS_A_MINUTE", 2)
    device, other = dms.device(), dms.device(1)
    same = str(uuid4())
    assert (await device.report(event, fault=FAULT, id=same)).status == 200
    assert (await device.report(event, fault=FAULT)).status == 200
    refused = await device.report(event, fault=FAULT)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
    assert (await device.report(event, fault=FAULT, id=same)).status == 200, "one that is here already costs nothing"
    assert (await other.report(event, fault=FAULT)).status == 200


@pytest.mark.parametrize(
    "fault",
    [
        None,
        [],
        "app",
        {},
        but(cause=""),
        but(cause="x" * 65),
        but(slot="c"),
        but(version="x" * 21),
        but(uptime_s=-1),
        but(uptime_s="7"),
        but(uptime_s=2**70),
        but(text="x" * 4097),
        but(text=5),
        but(frames=[FRAME] * 33),
        but(frames=[{**FRAME, "address": -1}]),
        but(frames=[{**FRAME, "address": 2**64}]),
        but(frames=[{**FRAME, "address": 1.5}]),
        but(frames=[{**FRAME, "build_id": "../../etc/passwd"}]),
        but(frames=[{**FRAME, "build_id": "AB"}]),
        but(frames=[{**FRAME, "module": "x" * 201}]),
        but(frames=[{"address": 1}]),
        but(frames={"0": FRAME}),
    ],
)
async def test_a_garbled_fault_is_refused(dms: Dms, fault: Any) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    refused = await report(device, fault=fault)
    assert refused.status == 400
    assert "fault" in refused.body["message"]
    assert await shown(owner, device) == []


async def test_the_largest_fault_fits(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    frames = [{"module": "é" * 200, "build_id": "f" * 64, "address": 2**64 - 1}] * 32
    largest = await report(device, detail="d" * 4096, fault=but(frames=frames, text="\n" * 4096, cause="c" * 64))
    assert largest.status == 200
    [fault] = await shown(owner, device)
    assert (len(fault["frames"]), len(fault["text"]), len(fault["detail"])) == (32, 4096, 160)


async def test_half_a_character_is_no_reason_to_fail(dms: Dms) -> None:
    device = dms.device()
    body = json.dumps({"uuid": device.uuid, "id": str(uuid4()), "time": "x", "event": "fault", "fault": FAULT})
    raw = body.replace("Traceback", "\\ud800\\u0000").encode()
    answer = await ask(dms.session, "POST", f"{dms.device_url}/device/v1/report", data=raw, ssl=device.tls)
    assert answer.status in (200, 400)


async def test_faults_are_for_the_owner_alone(dms: Dms) -> None:
    await dms.owner()
    device = await dms.ready_device()
    await report(device)
    stranger = await dms.person("eve")
    assert (await stranger.api("GET", f"devices/{device.uuid}/faults")).status == 404
    assert (await ask(dms.session, "GET", f"{dms.web_url}/api/v1/devices/{device.uuid}/faults")).status == 401
    nothing = await dms.person("bob", scopes=("publish",))
    assert (await nothing.api("GET", f"devices/{device.uuid}/faults")).status == 403


async def test_a_fault_of_another_device_cannot_be_reported(dms: Dms) -> None:
    device, other = dms.device(), dms.device(1)
    assert (await report(device, uuid=other.uuid)).status == 403


async def test_the_page_shows_faults_escaped_and_safe_mode(dms: Dms) -> None:
    attack = "<script>alert(1)</script>"
    await dms.owner()
    device = await dms.ready_device()
    page = f"/devices/{device.uuid}"
    frames = [{"module": f"/{attack.replace('/', '')}", "build_id": "", "address": 5}]
    async with Browser(dms) as browser:
        await browser.sign_in()
        assert "None reported." in (await browser.get(page)).body
        assert "Safe mode." not in (await browser.get(page)).body
        await report(
            device, detail=attack, fault=but(cause=attack, version=attack[:20], text=attack, utc=attack, frames=frames)
        )
        await device.get("status", params={"version": "1.0.0", "safemode": "1", "faults": "8"})
        await dms.core.sightings.flush()
        body = (await browser.get(page)).body
    assert "<script" not in body
    assert body.count(html.escape(attack)) >= 3
    assert "<details><summary>" in body
    assert "#0 0x5 in" in body
    assert "<strong>Safe mode.</strong>" in body
    assert "8 faults" in body


@pytest.mark.parametrize("query", ["safemode=maybe", "faults=-1", "version=x", "faults=9999999999"])
async def test_nonsense_about_itself_is_refused(dms: Dms, query: str) -> None:
    assert (await dms.device().get(f"status?{query}")).status == 400


async def test_what_cannot_be_read_in_time_is_for_the_next_request(dms: Dms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dms_server.faults.backtraces.BUDGET_S", -1)
    owner = await dms.owner()
    device = await dms.ready_device()
    monkeypatch.setattr(dms.core.symbols, "known", _everything_known)
    await report(device)
    [fault] = await shown(owner, device)
    assert fault["backtrace"][0].endswith(f"({backtraces.NOT_YET})")


async def _everything_known(_owner: object, build_ids: set[str]) -> dict[str, str]:
    return dict.fromkeys(build_ids, "0" * 64)
