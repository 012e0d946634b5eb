"""Patches: made when a bundle is published and when a device asks, given out by ranges, never in a device's way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from dms_server.patches.models import Patch
from tests.server.conftest import StartDms
from tests.server.helpers import PRODUCT, Browser, Dms
from tests.server.making import Publisher, payload
from tests.server.patching import (
    SIZE_BYTES,
    apply,
    eventually,
    files_in,
    patches_of,
    path_of,
    publish_releases,
    release,
    root_of,
    settled,
    stop_worker,
    stream_of,
    unpacked,
    workers,
)
from zentrid.bundle.patch import PatchHeader


async def count_patches(dms: Dms) -> int:
    """Return how many patches the table knows."""
    async with dms.core.db.read() as session:
        return await session.scalar(select(func.count()).select_from(Patch)) or 0


def from_nothing(stream: bytes) -> bool:
    """Tell whether a stream is a full payload."""
    return PatchHeader.parse(stream).from_nothing


# --- made ---------------------------------------------------------------------------------------------------------------
async def test_patches_are_made_when_a_bundle_is_published(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1, 2)
    patch = (await settled(owner, 2))["1.1.0"]
    assert patch["state"] == "ready"
    answer = await device.get(path_of(2, 1))
    assert (answer.status, len(answer.raw)) == (200, patch["size"])
    assert not from_nothing(answer.raw)
    assert apply(answer.raw, release(1), SIZE_BYTES) == release(2)
    full = (await device.get(path_of(2, None))).raw
    assert unpacked(full, SIZE_BYTES) == release(2)
    assert len(answer.raw) < len(full) / 10
    assert await files_in(dms) == [f"{root_of(release(2))}-{root_of(release(1))}.zps"]


async def test_from_the_last_releases_and_the_tagged_ones(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_releases=2)
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    await publish_releases(owner, publisher, 1, 2, 3, 4)
    assert set(await settled(owner, 4)) == {"1.3.0", "1.2.0"}
    await owner.api("POST", f"bundles/{PRODUCT}/1.1.0/tag", json={"tag": "release"})
    await publish_releases(owner, publisher, 5)
    assert set(await settled(owner, 5)) == {"1.4.0", "1.3.0", "1.1.0"}


async def test_a_draft_gets_its_patches_when_it_is_tagged(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    await publish_releases(owner, publisher, 1)
    draft = publisher.make("1.2.0", {"rootfs": release(2)})
    assert (await owner.api("POST", "bundles?draft=1", data=draft)).status == 201
    assert await patches_of(owner, 2) == {}
    await owner.api("POST", f"bundles/{PRODUCT}/1.2.0/tag", json={"tag": "release"})
    assert (await settled(owner, 2))["1.1.0"]["state"] == "ready"


async def test_on_demand_from_any_version(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_releases=0)
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1, 2)
    await owner.api("POST", f"bundles/{PRODUCT}/1.1.0/archive")
    assert await count_patches(dms) == 0
    first = await device.get(path_of(2, 1))
    assert first.status == 503
    assert first.body["result"] == "fail"
    assert 1 <= first.body["retry_after_s"] == int(first.headers["Retry-After"]) <= 5
    answer = await stream_of(device, 2, 1)
    assert apply(answer.raw, release(1), SIZE_BYTES) == release(2)
    # And back again: any version to any other one that is published.
    assert (await device.get(path_of(1, 2))).status == 404, "an archived target is given to nobody"


async def test_two_at_once_make_it_once(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_releases=0, patch_workers=3)
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    devices = [await dms.ready_device(number) for number in (0, 1)]
    await publish_releases(owner, publisher, 1, 2)
    pid_task = asyncio.create_task(stop_worker())
    answers = await asyncio.gather(*(devices[number % 2].get(path_of(2, 1)) for number in range(12)))
    assert {answer.status for answer in answers} == {503}
    pid = await pid_task
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(workers, os.getpid()) == [pid]
    os.kill(pid, signal.SIGCONT)
    streams = await asyncio.gather(*(stream_of(device, 2, 1) for device in devices))
    assert streams[0].raw == streams[1].raw
    assert await count_patches(dms) == 1


async def test_a_patch_larger_than_the_full_payload_is_not_given_out(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    old, new = os.urandom(200_000), b"x"
    for number, content in ((1, old), (2, new)):
        data = publisher.make(f"1.{number}.0", {"rootfs": content})
        assert (await owner.api("POST", "bundles", data=data)).status == 201
    patch = (await settled(owner, 2))["1.1.0"]
    answer = await device.get(f"payload/{root_of(new)}?base={root_of(old)}")
    assert answer.status == 200
    assert from_nothing(answer.raw)
    assert (patch["state"], patch["size"] >= len(answer.raw)) == ("larger", True)
    assert await files_in(dms) == []


# --- given out ----------------------------------------------------------------------------------------------------------
async def test_ranges_and_if_range(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1, 2)
    await settled(owner, 2)
    whole, full = await device.get(path_of(2, 1)), await device.get(path_of(2, None))
    etag, middle = whole.headers["ETag"], len(whole.raw) // 2
    assert etag.startswith(f'"{root_of(release(2))}-{root_of(release(1))}-')
    assert full.headers["ETag"].startswith(f'"{root_of(release(2))}-none-')
    headers = {"Range": f"bytes={middle}-", "If-Range": etag}
    rest = await device.get(path_of(2, 1), headers=headers)
    assert (rest.status, rest.raw) == (206, whole.raw[middle:])
    assert rest.headers["Content-Range"] == f"bytes {middle}-{len(whole.raw) - 1}/{len(whole.raw)}"
    # The content is another one: everything from the beginning, never a part that does not fit.
    other = await device.get(path_of(2, 1), headers={**headers, "If-Range": etag[:-2] + 'x"'})
    assert (other.status, other.raw) == (200, whole.raw)
    dated = await device.get(path_of(2, 1), headers={**headers, "If-Range": "Wed, 21 Oct 2099 07:28:00 GMT"})
    assert (dated.status, dated.raw) == (200, whole.raw)
    # A device that began with the full payload goes on with it, though there is a patch by now.
    going_on = await device.get(path_of(2, 1), headers={"Range": "bytes=1000-", "If-Range": full.headers["ETag"]})
    assert (going_on.status, going_on.raw) == (206, full.raw[1000:])
    assert (await device.get(path_of(2, 1), headers={"If-None-Match": etag})).status == 304
    assert (await device.get(path_of(2, 1), headers={"If-Match": '"other"'})).status == 412
    for bad in ("bytes=99999999-", "bytes=9-3", "lines=1-2", "bytes=0-1,5-6"):
        assert (await device.get(path_of(2, 1), headers={"Range": bad})).status == 416


async def test_a_device_never_waits_for_ever(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_releases=0, patch_wait_max_s=2)
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1, 2)
    pid_task = asyncio.create_task(stop_worker())
    started_s = time.monotonic()
    assert (await device.get(path_of(2, 1))).status == 503
    pid = await pid_task
    answer = await stream_of(device, 2, 1)
    assert 1.5 < time.monotonic() - started_s < 10
    assert unpacked(answer.raw, SIZE_BYTES) == release(2)
    os.kill(pid, signal.SIGCONT)
    await settled(owner, 2)
    assert not from_nothing((await device.get(path_of(2, 1))).raw)


# --- who may have what --------------------------------------------------------------------------------------------------
async def test_foreign_unknown_and_draft_bases_give_the_full_payload(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 2)
    draft = publisher.make("1.3.0", {"rootfs": release(3)})
    assert (await owner.api("POST", "bundles?draft=1", data=draft)).status == 201
    other = "EVIL-VIRT_SENSOR"
    await dms.owner("eve", other)
    async with dms.core.db.write() as session:  # the other product has a bundle with a payload that only it has
        bundle = (await dms.core.bundles.get(owner.id, PRODUCT, "1.3.0")).bundle
        foreign = await dms.core.products.get((await _person_id(dms, "eve")), other)
        await _copy_bundle(session, bundle, foreign.id, root_of(release(4)))
    for base in (3, 4, 5):
        answer = await device.get(path_of(2, base))
        assert answer.status == 200
        assert from_nothing(answer.raw)
    assert (await device.get(path_of(4, 2))).status == 404
    assert await count_patches(dms) == 0, "nothing was queued"


async def _person_id(dms: Dms, name: str) -> int:
    from dms_server.accounts.models import User

    async with dms.core.db.read() as session:
        return await session.scalar(select(User.id).where(User.name == name)) or 0


async def _copy_bundle(session: Any, bundle: Any, product_id: int, root: str) -> None:
    from dms_server.bundles.models import Bundle, BundleItem

    skip = {"id", "product_id", "state"}
    values = {
        column.name: getattr(bundle, column.name) for column in Bundle.__table__.columns if column.name not in skip
    }
    copied = Bundle(product_id=product_id, state="published", **values)
    await session.add(copied)
    item = {"type": "rootfs", "name": "rootfs", "size_bytes": 1, "payload_bytes": 1}
    await session.add(BundleItem(bundle_id=copied.id, root_hash=root, **item))


async def test_one_device_can_queue_a_few_only(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_releases=0, patch_device_queue_max=2)
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device, other = await dms.ready_device(0), await dms.ready_device(1)
    await publish_releases(owner, publisher, 1, 2, 3, 4)
    pid_task = asyncio.create_task(stop_worker())
    assert [(await device.get(path_of(4, base))).status for base in (1, 2, 3)] == [503, 503, 200]
    assert (await other.get(path_of(4, 3))).status == 503, "another device is not hindered"
    os.kill(await pid_task, signal.SIGCONT)
    assert not from_nothing((await stream_of(device, 4, 3)).raw)


async def test_the_queue_has_an_end(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_releases=3, patch_queue_max=2)
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1, 2)
    await settled(owner, 2)
    pid_task = asyncio.create_task(stop_worker())
    await publish_releases(owner, publisher, 3, 4)
    pid = await pid_task
    async with dms.core.db.read() as session:
        states = await session.scalars(select(Patch.state))
    assert sorted(states) == ["making", "queued", "ready"], "two to 1.3.0 fill the queue"
    answer = await device.get(path_of(4, 1))
    assert answer.status == 200
    assert from_nothing(answer.raw)
    os.kill(pid, signal.SIGCONT)


# --- what people see ----------------------------------------------------------------------------------------------------
async def test_progress_and_sizes_are_shown(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    await publish_releases(owner, publisher, 1)
    pid_task = asyncio.create_task(stop_worker())
    await publish_releases(owner, publisher, 2)
    pid = await pid_task
    making = (await patches_of(owner, 2))["1.1.0"]
    assert (making["state"], making["size"], type(making["percent"])) == ("making", None, int)
    async with Browser(dms) as browser:
        await browser.sign_in()
        page = (await browser.get(f"/bundles/{PRODUCT}/1.2.0")).body
        assert "being made" in page
        assert "<progress" in page
        os.kill(pid, signal.SIGCONT)
        patch = (await settled(owner, 2))["1.1.0"]
        page = (await browser.get(f"/bundles/{PRODUCT}/1.2.0")).body
        assert "ready" in page
        assert "% of the full one" in page
        assert "None yet" in (await browser.get(f"/bundles/{PRODUCT}/1.1.0")).body
    assert (patch["percent"], patch["reason"], patch["base_root"]) == (None, None, root_of(release(1)))


async def test_patches_of_several_items(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    same = payload("same")
    for number in (1, 2):
        contents = {"rootfs": release(number), "app": release(number, "app"), "same": same}
        data = publisher.make(f"1.{number}.0", contents)
        assert (await owner.api("POST", "bundles", data=data)).status == 201

    async def check() -> Any:
        items = (await owner.api("GET", f"bundles/{PRODUCT}/1.2.0")).body["items"]
        found = {item["name"]: [(one["from"], one["state"]) for one in item["patches"]] for item in items}
        made = (["1.1.0"], "ready")
        return found == {"rootfs": [made], "app": [made], "same": []}

    await eventually(check, "one patch for each item that changed")


async def test_items_of_a_device_are_shown(dms: Dms) -> None:
    owner = await dms.owner()
    device = await dms.ready_device()
    item = {"type": "app", "name": "meter", "version": "2.0.1", "root_hash": "ab" * 32}
    assert (await device.check(items=[item])).status == 200
    await dms.core.sightings.flush()
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["items"] == [item]
    async with Browser(dms) as browser:
        await browser.sign_in()
        assert "meter" in (await browser.get(f"/devices/{device.uuid}")).body
    await device.check()  # says nothing of them
    await dms.core.sightings.flush()
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["items"] == [item]
    await device.check(items=[])
    await dms.core.sightings.flush()
    assert (await owner.api("GET", f"devices/{device.uuid}")).body["items"] == []


@pytest.mark.parametrize(
    "items",
    [
        [{"type": "app", "name": "x"}] * 129,
        [{"name": "x"}],
        [{"type": "app", "name": "x", "root_hash": "zz"}],
        "no list",
    ],
)
async def test_bad_items_are_refused_and_named(dms: Dms, items: Any) -> None:
    answer = await dms.device().check(items=items)
    assert answer.status == 400
    assert "items" in answer.body["message"]
