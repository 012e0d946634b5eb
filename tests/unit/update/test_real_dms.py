"""The device's own update software against the real server: provisioned, published, claimed and updated with the real tools."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from dms_server.testing import RunningDms
from tests.server.elves import needs_compiler, program
from tests.support.device import Device, factory_state, with_floor
from tests.support.fleet import PRODUCT, Release, make_release, make_rootfs
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.ports import Identity
from zentrid.update.contact import Contact, ServerCommand, decide
from zentrid.update.errors import DmsRefusedError

pytestmark = pytest.mark.timeout(400)  # half a minute alone: dozens of programs are started one after the other

TOP = Path(__file__).parents[3]


def tool(module: str, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments), "--json"], cwd=TOP, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def fleet_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "fleet"
    tool("scripts.provision_tool", "fleet", "--out", folder)
    tool("scripts.provision_tool", "delegate", "--fleet", folder, "--product", PRODUCT)
    return folder


@pytest.fixture
def dms(tmp_path: Path, fleet_dir: Path) -> Iterator[RunningDms]:
    tool("dms_server", "demo", "--data", tmp_path / "data", "--fleet", fleet_dir)
    running = RunningDms(tmp_path / "data", fleet_dir)
    try:
        yield running.start()
    finally:
        running.kill()


def api(dms: RunningDms, method: str, path: str, body: object = None) -> Any:
    """Ask the API with the demonstration account's token; return the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {dms.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{dms.web_url}/api/v1/{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def publish(release: Release, folder: Path, fleet_dir: Path, dms: RunningDms, token: str, *more: object) -> Path:
    folder.mkdir()
    (folder / "kernel").write_bytes(release.kernel)
    (folder / "rootfs").write_bytes(release.rootfs)
    bundle = folder / "release.zb"
    tool(
        "scripts.bundle_tool", "build", "--product", PRODUCT, "--version", release.version, "--kernel", folder / "kernel",
        "--rootfs", folder / "rootfs", "--out", bundle,
    )  # fmt: skip
    keys, public = fleet_dir / "products" / PRODUCT, fleet_dir / "public"
    tool("scripts.bundle_tool", "sign", bundle, "--keys", keys, "--metadata", public)
    tool("scripts.bundle_tool", "publish", bundle, "--server", dms.web_url, "--token", token, "--tag", "release", *more)
    return bundle


def provisioned(tmp_path: Path, fleet_dir: Path, dms: RunningDms, release: Release, **parts: Any) -> Device:
    """Return a device of the fleet with `release` in its slots, which has the real worker and finds the real server."""
    identity_dir = tmp_path / "identity"
    tool("scripts.provision_tool", "device", "--fleet", fleet_dir, "--out", identity_dir)
    facts = json.loads((identity_dir / "identity.json").read_text())
    port = int(dms.device_url.rpartition(":")[2])
    places: Any = SimpleNamespace(identity_dir=identity_dir, port=port)
    device = Device(tmp_path / "device", places, places)
    device.launcher = SubprocessLauncher()
    device.parts_changes["identity"] = Identity(facts["uuid"], facts["mac"], "127.0.0.1", port)
    device.parts_changes.update(parts)
    device.flash("a", release)
    device.flash("r", release)
    device.store.write(factory_state())
    return device


async def test_the_whole_way(tmp_path: Path, fleet_dir: Path, dms: RunningDms) -> None:
    demo = json.loads((tmp_path / "data" / "demo.json").read_text())
    old, new = make_release("1.0.0", make_rootfs(1)), make_release("1.1.0", make_rootfs(1, changed=60))
    publish(old, tmp_path / "old", fleet_dir, dms, demo["token"])
    bundle = publish(new, tmp_path / "new", fleet_dir, dms, demo["token"])

    device = provisioned(tmp_path, fleet_dir, dms, old)
    device.known[new.version] = new

    manager = device.boot()
    await manager.start()
    assert (await device.update()).message == '{"result":"fail","message":"device not claimed"}'
    with pytest.raises(DmsRefusedError, match="wrong user name or password"):
        await manager.dms.claim("demo", "wrong")
    assert await manager.dms.claim(demo["user"], demo["password"])
    assert await manager.dms.activate(PRODUCT)
    assert (await manager.dms.status())["product"] == PRODUCT

    last = await device.update()
    assert (last.ok, last.result, last.reboot) == (True, 1, True), last.message
    assert device.slot_holds("b", new)
    manager = device.boot()
    await manager.start()
    assert (device.version, manager.first_boot) == ("1.1.0", True)
    await manager.on_healthy()
    assert await manager.dms.deliver() == 1
    assert (await device.update()).result == 2

    device.store.update(with_floor("1.0.0"))
    last = await device.update(version="1.0.0")
    assert last.ok, last.message
    device.boot()
    await device.manager.start()
    await device.manager.on_healthy()
    await asyncio.to_thread(dms.kill)
    last = await device.update(source=str(bundle))
    assert last.ok, last.message
    assert device.slot_holds("b", new)


@needs_compiler
async def test_a_fault_and_a_factory_reset(tmp_path: Path, fleet_dir: Path, dms: RunningDms) -> None:
    """A fault arrives and is readable; the owner asks for a reset, the device answers and only then does it, once."""
    demo = json.loads((tmp_path / "data" / "demo.json").read_text())
    old, acted = make_release("1.0.0", make_rootfs(1)), asyncio.Event()
    sample = program(tmp_path / "sample")
    symbols = tmp_path / "symbols" / ".build-id" / sample.build_id[:2] / f"{sample.build_id[2:]}.debug"
    symbols.parent.mkdir(parents=True)
    symbols.write_bytes(sample.data)
    publish(old, tmp_path / "old", fleet_dir, dms, demo["token"], "--symbols", tmp_path / "symbols")
    publish(old, tmp_path / "again", fleet_dir, dms, demo["token"], "--symbols", tmp_path / "symbols")

    done: list[tuple[ServerCommand, str]] = []
    facts: dict[str, str] = {}

    async def act(command: ServerCommand) -> None:
        listed = (await asyncio.to_thread(api, dms, "GET", f"devices/{uuid}/commands"))["commands"]
        done.append((command, listed[0]["state"]))
        acted.set()

    contact = Contact(lambda: 1, facts.update, lambda command: decide(command, enabled=True), act)
    device = provisioned(tmp_path, fleet_dir, dms, old, contact=contact)
    manager = device.boot()
    uuid = manager._parts.identity.uuid
    await manager.start()
    await manager.dms.claim(demo["user"], demo["password"])

    fault = {
        "cause": "app", "slot": "a", "version": "1.0.0", "uptime_s": 5, "utc": "2026-01-01T00:00:00Z",
        "frames": [sample.frame(8)], "text": "Segmentation fault",
    }  # fmt: skip
    report = {
        "time": "2026-01-01T00:00:00Z",
        "event": "fault",
        "version": "1.0.0",
        "reason": "app",
        "detail": "signal 11",
    }
    for _ in range(2):
        await asyncio.to_thread(manager._ledger.outbox.put, {"id": str(uuid4()), **report, "fault": fault})
    await asyncio.to_thread(manager._ledger.outbox.put, {"id": str(uuid4()), **report, "fault": "garbled"})
    asked = await asyncio.to_thread(
        api, dms, "POST", f"devices/{uuid}/factory-reset", {"settings_only": True, "confirm": uuid[-6:]}
    )
    task = asyncio.create_task(manager.dms.keep_in_touch(first_boot=False))
    async with asyncio.timeout(60):
        await acted.wait()
        while len(manager._ledger.outbox):
            await asyncio.sleep(0.1)
        facts.clear()
        while not facts:  # it is asked again, and has nothing more
            await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert done == [(ServerCommand(asked["id"], "factory_reset", settings_only=True), "accepted")]
    assert (facts["claimed"], facts["owner"]) == ("1", demo["user"])
    faults = (await asyncio.to_thread(api, dms, "GET", f"devices/{uuid}/faults"))["faults"]
    line = f"#0 crash_now+0x8 (sample.c:5) in sample-arm [build-id {sample.build_id[:8]}]"
    assert [fault["backtrace"] for fault in faults] == [[line]] * 2
    assert (await asyncio.to_thread(api, dms, "GET", "symbols"))["total"] == 1
