"""The device's own update software against the real server: provisioned, published, claimed and updated with the real tools."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dms_server.testing import RunningDms
from tests.support.device import Device, factory_state, with_floor
from tests.support.fleet import PRODUCT, Release, make_release, make_rootfs
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.ports import Identity
from zentrid.update.errors import DmsRefusedError

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


def publish(release: Release, folder: Path, fleet_dir: Path, dms: RunningDms, token: str) -> Path:
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
    tool("scripts.bundle_tool", "publish", bundle, "--server", dms.web_url, "--token", token, "--tag", "release")
    return bundle


async def test_the_whole_way(tmp_path: Path, fleet_dir: Path, dms: RunningDms) -> None:
    demo = json.loads((tmp_path / "data" / "demo.json").read_text())
    old, new = make_release("1.0.0", make_rootfs(1)), make_release("1.1.0", make_rootfs(1, changed=60))
    publish(old, tmp_path / "old", fleet_dir, dms, demo["token"])
    bundle = publish(new, tmp_path / "new", fleet_dir, dms, demo["token"])

    identity_dir = tmp_path / "identity"
    tool("scripts.provision_tool", "device", "--fleet", fleet_dir, "--out", identity_dir)
    facts = json.loads((identity_dir / "identity.json").read_text())
    port = int(dms.device_url.rpartition(":")[2])
    places: Any = SimpleNamespace(identity_dir=identity_dir, port=port)
    device = Device(tmp_path / "device", places, places)
    device.launcher = SubprocessLauncher()
    device.parts_changes["identity"] = Identity(facts["uuid"], facts["mac"], "127.0.0.1", port)
    device.flash("a", old)
    device.flash("r", old)
    device.known[new.version] = new
    device.store.write(factory_state())

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
