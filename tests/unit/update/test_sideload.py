"""Bundle files: installed without any server, checked like everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release
from zentrid.bundle.zbfile import open_bundle


@pytest.fixture
def offline(device: Device) -> Device:
    device.parts_changes["server"] = lambda: ("127.0.0.1", 1)
    device.start()
    return device


@pytest.fixture
def bundle(fleet: Fleet, device: Device, new: Release, tmp_path: Path) -> Path:
    device.known[new.version] = new
    return fleet.bundle(new, tmp_path / "new.zb")


async def test_without_a_server(offline: Device, doorman: Doorman, bundle: Path, new: Release) -> None:
    last = await offline.update(source=str(bundle))
    assert last.ok, last.message
    assert offline.slot_holds("b", new)
    assert doorman.requests == []
    await offline.boot().start()
    await offline.manager.on_healthy()
    assert [report["event"] for report in await waiting(offline)] == ["installed"]


async def test_only_looking(offline: Device, bundle: Path) -> None:
    before = offline.snapshot()
    last = await offline.update(source=str(bundle), check_only=True)
    assert (last.ok, last.message) == (True, "Update available: DEMO-VIRT_SENSOR-1.1.0.")
    assert offline.snapshot() == before


async def test_the_running_version(offline: Device, fleet: Fleet, old: Release, tmp_path: Path) -> None:
    assert (await offline.update(source=str(fleet.bundle(old, tmp_path / "old.zb")))).result == 2


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


async def refused(device: Device, path: Path) -> str:
    before = device.snapshot(), device.store.read()
    last = await device.update(source=str(path))
    assert (last.ok, last.result) == (False, 3)
    assert (device.snapshot(), device.store.read()) == before
    return last.message


async def test_a_changed_manifest(offline: Device, bundle: Path) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'"version":"1.1.0"', b'"version":"1.1.1"', 1))
    assert "does not sign DEMO-VIRT_SENSOR/1.1.1" in await refused(offline, bundle)


@pytest.mark.parametrize("name", ["1.root.json", "targets.json", "DEMO-VIRT_SENSOR.json"])
async def test_a_changed_chain(offline: Device, fleet: Fleet, bundle: Path, name: str) -> None:
    data = bytearray(bundle.read_bytes())
    start = data.index(f"metadata/{name}".encode())
    signature = data.index(b'"sig"', start)
    data[signature + 10] ^= 1
    bundle.write_bytes(data)
    if name == "1.root.json":
        # The device has this one from manufacture and never reads the bundle's.
        assert (await offline.update(source=str(bundle))).ok
    else:
        message = await refused(offline, bundle)
        assert message.startswith(f"the bundle's {name} is ")


async def test_a_flipped_bit_in_a_payload(offline: Device, bundle: Path, new: Release) -> None:
    member = open_bundle(bundle).members[new.tree.root.hex()]
    damage(bundle, member.offset + member.size_bytes - 1000)
    last = await offline.update(source=str(bundle))
    assert not last.ok
    assert last.message.startswith("rootfs: patch stream: frame ")
    assert offline.store.read().b_left == 0


async def test_a_bundle_cut_short(offline: Device, bundle: Path) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: len(data) // 2])
    last = await offline.update(source=str(bundle))
    assert not last.ok
    assert last.message.startswith("bundle file: it ends inside payload/")


@pytest.mark.parametrize("content", [b"", b"no bundle", bytes(5000)])
async def test_no_bundle_at_all(offline: Device, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zb"
    path.write_bytes(content)
    assert (await refused(offline, path)).startswith("bundle file: ")


async def test_a_missing_file(offline: Device, tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in await refused(offline, tmp_path / "none.zb")


async def test_an_unsigned_bundle(offline: Device, new: Release, tmp_path: Path) -> None:
    import io

    from zentrid.bundle.zbfile import write_bundle

    path = tmp_path / "unsigned.zb"
    with path.open("wb") as out:
        payloads = {root: io.BytesIO(stream) for root, stream in new.streams.items()}
        write_bundle(out, new.manifest.to_bytes(), {}, payloads)
    assert (await refused(offline, path)).startswith("the bundle is not signed")


async def test_a_bundle_of_another_fleet(offline: Device, new: Release, tmp_path: Path) -> None:
    other = Fleet(tmp_path / "other")
    message = await refused(offline, other.bundle(new, tmp_path / "other.zb"))
    assert message.startswith("the bundle's targets.json is not signed as it must be")


async def test_older_than_the_floor(offline: Device, fleet: Fleet, tmp_path: Path) -> None:
    path = fleet.bundle(make_release("0.9.0"), tmp_path / "ancient.zb")
    assert "older than 1.0.0" in await refused(offline, path)


async def test_a_key_that_was_withdrawn_does_not_come_back_by_a_file(
    device: Device, fleet: Fleet, doorman: Doorman, bundle: Path
) -> None:
    fleet.replace_release_key()
    fleet.serve()
    doorman.offer = "1.0.0"
    doorman.habits.eager = True
    assert (await device.update()).result == 2  # the device has now seen the new targets
    message = await refused(device, bundle)
    assert message.startswith("the bundle's DEMO-VIRT_SENSOR.json is not signed as it must be")


async def test_a_bundle_made_after_the_root_was_rotated(
    offline: Device, fleet: Fleet, new: Release, tmp_path: Path
) -> None:
    for _ in range(3):
        fleet.rotate_root()
    last = await offline.update(source=str(fleet.bundle(new, tmp_path / "rotated.zb")))
    assert last.ok, last.message


async def test_from_safe_mode(offline: Device, bundle: Path, new: Release) -> None:
    offline.store.update(lambda state: state.__class__(a_left=0, b_left=0, floor=state.floor))
    offline.boot()
    assert offline.running == "r"
    assert (await offline.update(source=str(bundle))).ok
    offline.boot()
    assert offline.version == "1.1.0"
