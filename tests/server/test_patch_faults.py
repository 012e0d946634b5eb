"""Patches when things go wrong: killed workers, limits, a full disk, a lost cache, servers that end in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dms_server.patches.child import SERVER_GONE
from dms_server.testing import ROOT, RunningDms
from tests.server.client import Client
from tests.server.conftest import StartDms
from tests.server.helpers import PRODUCT, Device, Dms, Person
from tests.server.making import Publisher
from tests.server.patching import (
    SIZE_BYTES,
    apply,
    encoded,
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
from zentrid.bundle.tree import BLOCK_BYTES


def from_nothing(stream: bytes) -> bool:
    """Tell whether a stream is a full payload."""
    return PatchHeader.parse(stream).from_nothing


async def gives_full(device: Device, number: int, base: int) -> None:
    """Make sure that a device gets the full payload at once."""
    answer = await device.get(path_of(number, base))
    assert answer.status == 200
    assert unpacked(answer.raw, SIZE_BYTES) == release(number)


async def two_releases(dms: Dms, fleet: Path) -> tuple[Person, Device]:
    """Publish two releases of one product; return its owner and a device of it."""
    owner = await dms.owner()
    device = await dms.ready_device()
    await publish_releases(owner, Publisher(fleet, PRODUCT), 1, 2)
    return owner, device


# --- the worker ---------------------------------------------------------------------------------------------------------
async def test_a_killed_worker_is_tried_again(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_retry_s=0)
    pid_task = asyncio.create_task(stop_worker())
    owner, device = await two_releases(dms, fleet)
    os.kill(await pid_task, signal.SIGKILL)
    assert (await settled(owner, 2))["1.1.0"]["state"] == "ready"
    assert not from_nothing((await device.get(path_of(2, 1))).raw)


async def test_while_a_failed_patch_waits_for_another_try_devices_do_not(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_retry_s=3600)
    pid_task = asyncio.create_task(stop_worker())
    owner, device = await two_releases(dms, fleet)
    os.kill(await pid_task, signal.SIGKILL)

    async def check() -> Any:
        return (await patches_of(owner, 2))["1.1.0"]["reason"]

    assert "killed by signal 9" in await eventually(check, "the failure is noted")
    await gives_full(device, 2, 1)
    assert (await patches_of(owner, 2))["1.1.0"]["state"] == "queued"


async def test_what_fails_every_time_is_given_up(start_dms: StartDms, fleet: Path) -> None:
    """The base's stored payload is damaged: the worker sees it, and says so."""
    dms = await start_dms(patch_retry_s=0, patch_tries_max=2)
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1)
    await asyncio.to_thread(_flip_last_byte, dms.core.bundles.payloads.path(root_of(release(1))))
    await publish_releases(owner, publisher, 2)
    patch = (await settled(owner, 2))["1.1.0"]
    assert patch["state"] == "failed"
    assert "patch stream: " in patch["reason"]
    await gives_full(device, 2, 1)
    assert len(await files_in(dms)) == 0


def _flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"patch_memory_max_bytes": 16 * 1024 * 1024}, "memory"),
        ({"patch_temporary_max_bytes": 2 * SIZE_BYTES - 1}, "raise patch_temporary_max_bytes"),
    ],
)
async def test_limits_end_the_worker_with_a_clear_sentence(
    start_dms: StartDms, fleet: Path, capfd: pytest.CaptureFixture[str], settings: dict[str, int], sentence: str
) -> None:
    dms = await start_dms(patch_tries_max=1, **settings)
    owner, device = await two_releases(dms, fleet)
    patch = (await settled(owner, 2))["1.1.0"]
    assert patch["state"] == "failed"
    assert sentence in patch["reason"]
    await gives_full(device, 2, 1)
    said = capfd.readouterr()
    assert "patch_failed" in said.out + said.err


async def test_a_worker_that_takes_too_long_is_ended(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_tries_max=1, patch_time_max_s=1)
    pid_task = asyncio.create_task(stop_worker())
    owner, device = await two_releases(dms, fleet)
    pid = await pid_task
    patch = (await settled(owner, 2))["1.1.0"]
    assert (patch["state"], patch["reason"]) == ("failed", "it took more than 1 s; raise patch_time_max_s")
    assert not await asyncio.to_thread(Path(f"/proc/{pid}").exists)
    await gives_full(device, 2, 1)


async def test_without_workers_nothing_waits(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(patch_workers=0)
    owner, device = await two_releases(dms, fleet)
    await gives_full(device, 2, 1)
    assert await patches_of(owner, 2) == {}


async def test_the_worker_has_low_priority(dms: Dms, fleet: Path) -> None:
    pid_task = asyncio.create_task(stop_worker())
    owner, _ = await two_releases(dms, fleet)
    pid = await pid_task
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    os.kill(pid, signal.SIGCONT)
    await settled(owner, 2)


# --- the cache ------------------------------------------------------------------------------------------------------------
async def test_the_cache_drops_what_was_served_least_recently(start_dms: StartDms, fleet: Path) -> None:
    size = len(encoded(release(1), release(9)))
    dms = await start_dms(patch_releases=0, patch_cache_max_bytes=round(size * 3.5))
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1, 2, 3, 4, 5)
    await publish_releases(owner, publisher, 9, tag="release")
    await stream_of(device, 9, 1)  # to the tagged one: stays, though nobody asks for it again
    await stream_of(device, 5, 1)
    await stream_of(device, 5, 2)
    await device.get(path_of(5, 1))
    await dms.core.patches.flush()
    await stream_of(device, 5, 3)
    name = {base: f"{root_of(release(5))}-{root_of(release(base))}.zps" for base in (1, 2, 3)}
    tagged = f"{root_of(release(9))}-{root_of(release(1))}.zps"
    assert await files_in(dms) == sorted([tagged, name[1], name[3]])
    assert set(await patches_of(owner, 5)) == {"1.1.0", "1.3.0"}
    again = await stream_of(device, 5, 2)
    assert apply(again.raw, release(2), SIZE_BYTES) == release(5)


async def test_patches_to_tagged_releases_are_never_dropped(start_dms: StartDms, fleet: Path) -> None:
    size = len(encoded(release(1), release(9)))
    dms = await start_dms(patch_releases=0, patch_cache_max_bytes=round(size * 2.5))
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    device = await dms.ready_device()
    await publish_releases(owner, publisher, 1, 2, 3)
    await publish_releases(owner, publisher, 9, tag="release")
    for base in (1, 2):
        assert not from_nothing((await stream_of(device, 9, base)).raw)
    assert from_nothing((await stream_of(device, 9, 3)).raw)
    patch = (await patches_of(owner, 9))["1.3.0"]
    assert patch["state"] == "failed"
    assert "raise patch_cache_max_bytes" in patch["reason"]
    assert len(await files_in(dms)) == 2


@pytest.mark.parametrize("damage", ["deleted", "flipped", "cut", "folder"])
async def test_a_lost_or_damaged_file_is_made_again(start_dms: StartDms, fleet: Path, damage: str) -> None:
    dms = await start_dms()
    owner, device = await two_releases(dms, fleet)
    await settled(owner, 2)
    before = await device.get(path_of(2, 1))
    folder = dms.settings.data / "patches"
    path = await asyncio.to_thread(lambda: next(folder.rglob("*.zps")))
    await asyncio.to_thread(_damage, path, folder, damage)
    assert (await device.get(path_of(2, 1))).status == 503
    again = await stream_of(device, 2, 1)
    assert again.raw == before.raw
    assert again.headers["ETag"] == before.headers["ETag"], "what was begun before can be resumed"


def _damage(path: Path, folder: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "folder":
        shutil.rmtree(folder)
    elif how == "cut":
        path.write_bytes(data[:-1])
    else:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A data folder whose cache of patches is on a disk with room for one payload and a half."""
    folder = tmp_path / "data" / "patches"
    folder.mkdir(parents=True)
    options = ["-o", f"size={SIZE_BYTES * 3 // 2}", "tmpfs", str(folder)]
    if subprocess.run(["mount", "-t", "tmpfs", *options], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield tmp_path / "data"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_breaks_nothing(
    small_disk: Path, start_dms: StartDms, fleet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dms = await start_dms(data=small_disk, patch_tries_max=1)
    owner, device = await two_releases(dms, fleet)
    patch = (await settled(owner, 2))["1.1.0"]
    assert (patch["state"], patch["reason"]) == (
        "failed",
        "a file could not be written or read (No space left on device); look at the disk",
    )
    await gives_full(device, 2, 1)
    said = capfd.readouterr()
    assert "No space left on device" in said.out + said.err
    assert await files_in(dms) == []
    # What takes up less room is made: the worker left nothing behind.
    publisher = Publisher(fleet, PRODUCT)
    publisher.role.version = 2
    assert await asyncio.to_thread(lambda: shutil.disk_usage(small_disk / "patches").used) == 0


# --- the server ends in the middle ------------------------------------------------------------------------------------------
def states(client: Client, version: str) -> list[str]:
    """Return the states of the patches to a version."""
    items = client.api("GET", f"bundles/{PRODUCT}/{version}")["items"]
    return [patch["state"] for item in items for patch in item["patches"]]


def wait_for(check: Any, what: str) -> None:
    """Wait until `check` is true."""
    deadline_s = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline_s, f"not in time: {what}"
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_server_that_ends_in_the_middle_goes_on_after_the_next_start(
    running: RunningDms, fleet: Path, identities: list[Path], how: str
) -> None:
    client = Client(running, identities[0])
    try:
        assert client.post("claim", user=running.demo["user"], password=running.demo["password"])["result"] == "ok"
        assert client.post("activate", product=PRODUCT)["result"] == "ok"
        publisher = Publisher(fleet, PRODUCT)
        assert running._process is not None
        server = running._process.pid
        for number in (1, 2):
            data = publisher.make(f"1.{number}.0", {"rootfs": release(number)})
            assert client.api("POST", "bundles", body=data)["result"] == "ok"
        wait_for(lambda: workers(server), "a worker")
        (worker,) = workers(server)
        os.kill(worker, signal.SIGSTOP)
        assert states(client, "1.2.0") == ["making"]
        client.close()
        if how == "killed":
            running.kill()
            os.kill(worker, signal.SIGCONT)
        else:
            running.stop()
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends with its server")
        assert not list((running.data / "patches").rglob("*.zps"))
        running.start()
        wait_for(lambda: states(client, "1.2.0") == ["ready"], "the patch is made after the start")
        assert apply(client.get(path_of(2, 1)).data, release(1), SIZE_BYTES) == release(2)
        left = [path for path in (running.data / "patches").rglob("*") if path.is_file()]
        assert [path.suffix for path in left] == [".zps"]
        assert "Traceback" not in running.log
    finally:
        client.close()


def test_a_worker_ends_with_its_server_whatever_it_waits_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "payload")  # nobody ever writes into it
    payload = {"path": str(tmp_path / "payload"), "root": "ab" * 32, "size_bytes": 1}
    limits = {"memory_bytes": 1 << 30, "time_s": 60, "temporary_bytes": 1 << 20}
    job = {"folder": str(tmp_path), "base": payload, "target": payload, "full_bytes": 1, "limits": limits}
    command = [sys.executable, "-m", "dms_server.patches.child"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(job).encode() + b"\n")
        worker.stdin.flush()
        with (tmp_path / "payload").open("wb"):  # as soon as the worker reads it
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(1)
            worker.stdin.close()
            assert worker.wait(30) == SERVER_GONE


def test_files_that_nobody_knows_go_at_the_start(running: RunningDms) -> None:
    running.stop()
    folder = running.data / "patches"
    (folder / "ab").mkdir(parents=True)
    strange = folder / "ab" / f"{'ab' * 32}-{'cd' * 32}.zps"
    strange.write_bytes(b"half a patch")
    half = folder / "making" / "x"
    half.mkdir(parents=True, exist_ok=True)
    (half / "base").write_bytes(bytes(BLOCK_BYTES))
    running.start()
    assert not strange.exists()
    assert not half.exists()
