"""The device door: check, signed metadata, payloads with ranges, reports; and what is refused there."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater  # type: ignore[attr-defined]  # not listed by the package

from tests.server.helpers import PRODUCT, Device, Dms, Person, ask
from tests.server.making import Publisher, payload
from zentrid.bundle.manifest import Removal, parse_manifest
from zentrid.bundle.patch import unpack_full


async def publish(owner: Person, publisher: Publisher, version: str, tag: str | None = "release", **more: Any) -> None:
    """Upload a release and tag it."""
    assert (await owner.api("POST", "bundles", data=publisher.make(version, **more))).status == 201
    if tag is not None:
        path = f"bundles/{publisher.product}/{version}/tag"
        assert (await owner.api("POST", path, json={"tag": tag})).status == 200


# --- check --------------------------------------------------------------------------------------------------------------
async def test_check_offers_the_release(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    assert (await device.check("1.0.0")).body["update"] is None
    await publish(owner, Publisher(fleet, PRODUCT), "1.1.0")
    offered = {"product": PRODUCT, "version": "1.1.0", "target": f"{PRODUCT}/1.1.0/manifest.json"}
    assert (await device.check("1.0.0")).body == {"result": "ok", "update": offered}
    assert (await device.check("1.1.0")).body["update"] is None
    assert (await device.check("1.1.0", force=True)).body["update"] == offered
    assert (await device.check("1.1.0", safemode=True)).body["update"] == offered


async def test_a_device_in_safe_mode_gets_firmware(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    rules = {"rules": b"only a file"}
    await publish(owner, publisher, "1.0.1", payloads=rules)
    assert (await device.check("1.0.0", safemode=True)).body["update"]["version"] == "1.0.1", "there is nothing else"
    await publish(owner, publisher, "1.0.2", payloads={}, remove=(Removal("file", "rules"),))
    assert (await device.check("1.0.1")).body["update"]["version"] == "1.0.2", "it only takes away"
    await publish(owner, publisher, "1.1.0")
    await publish(owner, publisher, "1.1.1", payloads=rules)
    await publish(owner, publisher, "1.2.0", tag=None)
    assert (await device.check("1.1.0")).body["update"]["version"] == "1.1.1"
    assert (await device.check("1.1.1")).body["update"] is None
    assert (await device.check("1.0.0", safemode=True)).body["update"]["version"] == "1.1.0", "not beyond the target"
    assert (await device.check("1.0.0", safemode=True, want="1.1.1")).body["update"]["version"] == "1.1.1"


async def test_check_without_a_product(dms: Dms) -> None:
    await dms.person("ann")
    device = dms.device()
    await device.post("claim", user="ann", password="correct horse battery")
    answer = await device.check()
    assert answer.status == 403
    assert answer.body["message"].startswith("no product activated")


async def test_wanted_version(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    for version in ("1.1.0", "1.2.0"):
        await publish(owner, publisher, version)
    assert (await device.check("1.2.0", want="1.1.0")).body["update"]["version"] == "1.1.0"
    assert (await device.check("1.1.0", want="1.1.0")).body["update"] is None
    assert (await device.check("1.2.0", want="7.7.7")).status == 404
    await owner.api("POST", f"bundles/{PRODUCT}/1.1.0/archive")
    assert (await device.check("1.2.0", want="1.1.0")).status == 404


async def test_draft_is_not_given_out(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    data = publisher.make("1.1.0")
    assert (await owner.api("POST", "bundles?draft=1", data=data)).status == 201
    root = (await owner.api("GET", f"bundles/{PRODUCT}/1.1.0")).body["items"][0]["root_hash"]
    assert (await device.check("1.0.0", want="1.1.0")).status == 404
    assert (await device.get(f"payload/{root}?base=none")).status == 404


async def test_tags_and_their_fallback(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await owner.api("PATCH", f"devices/{device.uuid}", json={"tag": "beta"})
    await publish(owner, publisher, "1.1.0", "release")
    assert (await device.check()).body["update"]["version"] == "1.1.0", "no beta: falls back to release"
    await publish(owner, publisher, "1.2.0", "beta")
    assert (await device.check()).body["update"]["version"] == "1.2.0"
    await owner.api("PATCH", f"devices/{device.uuid}", json={"tag": "release"})
    assert (await device.check()).body["update"]["version"] == "1.1.0"


async def test_release_for_other_boards_is_not_offered(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    await publish(owner, Publisher(fleet, PRODUCT), "1.1.0", compatible=("other",))
    answer = (await device.check()).body
    assert answer["update"] is None
    assert "for other" in answer["message"]


async def test_archived_product(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    await owner.api("PATCH", f"products/{PRODUCT}", json={"state": "archived"})
    assert (await device.check()).status == 403


async def test_check_updates_the_inventory(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    slots = [{"slot": "a", "version": "1.0.0", "state": "running"}]
    await device.check("1.0.0", faults=3, slots=slots)
    await dms.core.sightings.flush()
    shown = (await owner.api("GET", f"devices/{device.uuid}")).body
    assert (shown["version"], shown["board"], shown["faults"], shown["slots"]) == ("1.0.0", "virt", 3, slots)
    assert shown["ip"] == "127.0.0.1"
    assert shown["online"] is True


# --- bad requests -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"uuid": 5}', 400),
        (b'{"uuid": "not a uuid"}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 30_000, 400),
        (b'{"uuid": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
async def test_bad_body_is_refused(dms: Dms, data: bytes, status: int) -> None:
    device = dms.device()
    answer = await ask(dms.session, "POST", f"{dms.device_url}/device/v1/check", data=data, ssl=device.tls)
    assert answer.status == status
    assert set(answer.body) == {"result", "message"}


@pytest.mark.parametrize(
    "fields",
    [{"version": "1"}, {"version": "1.0.0'; DROP TABLE devices"}, {"faults": -1}, {"slots": [{}] * 9}, {"want": "x"}],
)
async def test_field_out_of_range_is_refused_and_named(dms: Dms, fields: dict[str, object]) -> None:
    answer = await dms.device().post("check", **{"version": "1.0.0", **fields})
    assert answer.status == 400
    assert next(iter(fields)) in answer.body["message"]


async def test_field_of_a_newer_device_is_left_aside(dms: Dms) -> None:
    await dms.owner()
    device = await dms.ready_device()
    assert (await device.check(battery=77)).status == 200


async def test_unknown_address_and_method(dms: Dms) -> None:
    device = dms.device()
    assert (await device.get("nothing")).status == 404
    assert (await device.get("check")).status == 405


async def test_pages_and_api_are_not_on_the_device_door(dms: Dms) -> None:
    device = dms.device()
    for path in ("/signin", "/api/v1/devices", "/healthz"):
        assert (await ask(dms.session, "GET", dms.device_url + path, ssl=device.tls)).status == 404


async def test_device_door_is_not_on_the_web_door(dms: Dms) -> None:
    answer = await ask(dms.session, "GET", f"{dms.web_url}/device/v1/metadata/timestamp.json")
    assert answer.status == 404


# --- payloads -----------------------------------------------------------------------------------------------------------
async def published_payload(dms: Dms, fleet: Path) -> tuple[Device, str, bytes]:
    """Publish a release; return a device, the payload's root hash and its stream."""
    owner = await dms.owner()
    device = await dms.ready_device()
    await publish(owner, Publisher(fleet, PRODUCT), "1.1.0")
    root = (await owner.api("GET", f"bundles/{PRODUCT}/1.1.0")).body["items"][0]["root_hash"]
    answer = await device.get(f"payload/{root}?base=none")
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) == len(answer.raw)
    return device, root, answer.raw


async def test_payload_makes_the_image(dms: Dms, fleet: Path) -> None:
    _, root, stream = await published_payload(dms, fleet)
    image = bytearray(300_000 + 4096)

    def write(offset: int, block: bytes) -> None:
        image[offset : offset + len(block)] = block

    unpack_full(io.BytesIO(stream), bytes.fromhex(root), 300_000, write)
    assert image[:300_000] == payload("1.1.0")


@pytest.mark.parametrize(
    ("value", "start", "end"), [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None)]
)
async def test_ranges(dms: Dms, fleet: Path, value: str, start: int, end: int | None) -> None:
    device, root, stream = await published_payload(dms, fleet)
    answer = await device.get(f"payload/{root}?base=none", headers={"Range": value})
    assert answer.status == 206
    assert answer.raw == stream[start:end]
    assert answer.headers["Content-Range"].endswith(f"/{len(stream)}")


@pytest.mark.parametrize("value", ["bytes=99999999-", "bytes=9-3", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6"])
async def test_bad_range_is_refused(dms: Dms, fleet: Path, value: str) -> None:
    device, root, _ = await published_payload(dms, fleet)
    answer = await device.get(f"payload/{root}?base=none", headers={"Range": value})
    assert answer.status == 416
    assert answer.raw[:1] != b"Z"


async def test_payload_for_a_base_without_patch_is_the_full_one(dms: Dms, fleet: Path) -> None:
    device, root, stream = await published_payload(dms, fleet)
    assert (await device.get(f"payload/{root}?base={'ab' * 32}")).raw == stream
    assert (await device.get(f"payload/{root}?base=../../etc")).status == 404


async def test_unknown_payload(dms: Dms, fleet: Path) -> None:
    device, _, _ = await published_payload(dms, fleet)
    assert (await device.get(f"payload/{'ab' * 32}?base=none")).status == 404
    for bad in ("..%2f..%2fdms.sqlite3", "AB" * 32, "ab" * 31):
        assert (await device.get(f"payload/{bad}?base=none")).status == 404


async def test_payload_metadata_and_manifest_of_another_product_are_404(dms: Dms, fleet: Path) -> None:
    device, root, _ = await published_payload(dms, fleet)
    await dms.owner("eve", "EVIL-VIRT_SENSOR")
    spy = dms.device(1)
    await spy.post("claim", user="eve", password="correct horse battery")
    await spy.post("activate", product="EVIL-VIRT_SENSOR")
    unclaimed = dms.device(2)
    manifest = await asyncio.to_thread(lambda: next((dms.settings.data / "tuf" / "targets").rglob("*.json")))
    paths = [f"payload/{root}?base=none", f"metadata/1.{PRODUCT}.json", f"targets/{PRODUCT}/1.1.0/{manifest.name}"]
    for path in paths:
        assert (await device.get(path)).status == 200
        assert (await spy.get(path)).status == 404
        assert (await unclaimed.get(path)).status == 404


@pytest.mark.parametrize(
    "name", ["..%2f..%2fdms.sqlite3", "%2e%2e/dms.sqlite3", "1.root.json%00", "01.nothing.json", ".timestamp.json.x"]
)
async def test_metadata_names_lead_nowhere_else(dms: Dms, name: str) -> None:
    assert (await dms.device().get(f"metadata/{name}")).status == 404


# --- a real TUF client ---------------------------------------------------------------------------------------------------
class DeviceFetcher(FetcherInterface):
    """Fetches over the device's mutual TLS."""

    def __init__(self, device: Device) -> None:
        self.pool = urllib3.PoolManager(ssl_context=device.tls)

    def _fetch(self, url: str) -> Iterator[bytes]:
        response = self.pool.request("GET", url, preload_content=False)
        try:
            if response.status != 200:
                raise DownloadHTTPError("refused", response.status)
            yield from response.stream(65536)
        finally:
            response.release_conn()


def fetch_manifest(device: Device, folder: Path, version: str) -> bytes | None:
    """Do what a device does: refresh, find the target, download it; None if there is none."""
    folder.mkdir(exist_ok=True)
    root = (device.identity / "root.json").read_bytes()
    (folder / "root.json").write_bytes(root)
    fetcher = DeviceFetcher(device)
    try:
        updater = Updater(
            str(folder), f"{device.base}/device/v1/metadata/", str(folder), f"{device.base}/device/v1/targets/", fetcher
        )
        updater.refresh()
        target = updater.get_targetinfo(f"{PRODUCT}/{version}/manifest.json")
        return Path(updater.download_target(target)).read_bytes() if target else None
    finally:
        fetcher.pool.clear()


async def test_tuf_client_follows_releases(dms: Dms, fleet: Path, tmp_path: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    folder = tmp_path / "client"
    for version in ("1.1.0", "1.2.0"):
        await publish(owner, publisher, version)
        data = await asyncio.to_thread(fetch_manifest, device, folder, version)
        assert data is not None
        manifest = parse_manifest(data)
        assert await asyncio.to_thread(fetch_manifest, device, folder, "9.9.9") is None
        assert (manifest.product, str(manifest.version)) == (PRODUCT, version)


# --- reports ------------------------------------------------------------------------------------------------------------
async def test_report_is_on_the_device_and_in_its_history(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    fields = {"version": "1.0.0", "from": "1.0.0", "to": "1.1.0", "reason": "watchdog", "detail": "line 1\nline 2"}
    assert (await device.report("rolled_back", **fields)).status == 200
    shown = (await owner.api("GET", f"devices/{device.uuid}")).body
    assert shown["version"] == "1.0.0"
    assert (shown["outcome"], shown["outcome_reason"], shown["outcome_version"]) == ("rolled_back", "watchdog", "1.1.0")
    history = (await owner.api("GET", f"devices/{device.uuid}/reports")).body["reports"]
    assert [{key: entry[key] for key in fields} for entry in history] == [fields]


async def test_repeated_report_is_stored_once(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    key = str(uuid4())
    answers = await asyncio.gather(*(device.report("installed", id=key, version="1.1.0") for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert (await device.report("failed", id=key, version="9.9.9")).status == 200
    history = (await owner.api("GET", f"devices/{device.uuid}/reports")).body["reports"]
    assert len(history) == 1
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["version"] == "1.1.0"


async def test_two_devices_may_choose_the_same_report_id(dms: Dms) -> None:
    owner = await dms.owner()
    key = str(uuid4())
    for number in range(2):
        device = await dms.ready_device(number)
        await device.report("boot", id=key)
        assert len((await owner.api("GET", f"devices/{device.uuid}/reports")).body["reports"]) == 1


async def test_progress_does_not_replace_the_outcome(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    await device.report("failed", reason="no_space")
    await device.report("progress", detail="50")
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["outcome"] == "failed"


async def test_bad_report_is_refused(dms: Dms) -> None:
    device = dms.device()
    assert (await device.report("exploded")).status == 400
    assert (await device.report("boot", id="1")).status == 400
    assert (await device.report("boot", detail="x" * 5000)).status == 400


async def test_unclaimed_device_may_report(dms: Dms) -> None:
    assert (await dms.device().report("boot")).status == 200


async def test_history_is_bounded(dms: Dms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dms_server.updates.services.REPORTS_KEPT", 3)
    owner = await dms.owner()
    device = await dms.ready_device()
    for number in range(5):
        await device.report("boot", detail=str(number))
    history = (await owner.api("GET", f"devices/{device.uuid}/reports")).body["reports"]
    assert [entry["detail"] for entry in history] == ["4", "3", "2"]


async def test_answers_are_json_without_blanks(dms: Dms) -> None:
    raw = (await dms.device().get("status")).raw
    assert json.dumps(json.loads(raw), separators=(",", ":")).encode() == raw
