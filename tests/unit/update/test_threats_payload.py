"""The rows of `docs/threats.md` about what a server or a file sends: wrong bits, too much, too slow, for somebody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from scripts.bundle_tool import tufrepo
from tests.support.attacks import attacked, flip, recovers
from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import PRODUCT, Fleet, Release, make_release, make_rootfs
from zentrid.bundle.manifest import Manifest
from zentrid.bundle.patch import PatchHeader
from zentrid.bundle.zbfile import open_bundle

OVEN = "ACME-VIRT_OVEN"


def parts_of(stream: bytes) -> dict[str, int]:
    """A place in each part of a patch stream."""
    header = PatchHeader.parse(stream)
    first, last = header.frames[0], header.frames[-1]
    return {
        "magic": 1,
        "format": 5,
        "target root": 20,
        "counts": 90,
        "leaves": header.leaf_offset + header.leaf_bytes // 2,
        "first frame": first.offset + first.compressed_bytes // 2,
        "last frame": last.offset + last.compressed_bytes - 2,
    }


# --- arbitrary software ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("part", ["magic", "format", "target root", "counts", "leaves", "first frame", "last frame"])
@pytest.mark.parametrize("item", ["kernel", "rootfs"])
@pytest.mark.parametrize("way", ["server", "file"])
async def test_arbitrary_software_a_bit_flipped_in_each_part_of_a_payload(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, tmp_path: Path, way: str, item: str, part: str
) -> None:
    found = published.manifest.item("kernel" if item == "kernel" else "rootfs")
    assert found is not None
    position = parts_of(published.streams[found.root_hash])[part]
    if way == "server":
        doorman.habits.tamper = flip(found.root_hash, position)
        await attacked(device, "bad_payload", f"{item}: patch stream: ", writing=True)
        doorman.habits.tamper = lambda _path, data: data
        await recovers(device)
        return
    bundle = fleet.bundle(published, tmp_path / "spoiled.zb")
    data = bytearray(bundle.read_bytes())
    data[open_bundle(bundle).members[found.root_hash].offset + position] ^= 1
    bundle.write_bytes(data)
    await attacked(device, "bad_payload", f"{item}: patch stream: ", writing=True, source=str(bundle))


@pytest.mark.parametrize("name", ["manifest.json", "targets.json", f"{PRODUCT}.json"])
async def test_arbitrary_software_a_bit_flipped_in_each_signed_part_of_a_file(
    device: Device, fleet: Fleet, new: Release, tmp_path: Path, name: str
) -> None:
    bundle = fleet.bundle(new, tmp_path / "spoiled.zb")
    data = bytearray(bundle.read_bytes())
    start = data.index(name.encode() if name == "manifest.json" else f"metadata/{name}".encode())
    data[data.index(b'"version"', start) + 12] ^= 1
    bundle.write_bytes(data)
    last = await device.update(source=str(bundle))
    assert not last.ok
    assert any(word in last.message for word in ("is not signed", "is damaged", "does not sign", "bundle file: "))
    assert device.version == "1.0.0"
    assert device.store.read().b_left == 3  # nothing began


async def test_arbitrary_software_signed_by_a_key_of_nobody(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release
) -> None:
    fleet.keys[PRODUCT] = CryptoSigner.generate_ed25519()
    fleet.publish(make_release("1.2.0"))
    doorman.offer = "1.2.0"
    await attacked(device, "bad_signature", f"{PRODUCT}.json is not signed as it must be")


# --- mix and match -----------------------------------------------------------------------------------------------------
async def test_mix_and_match_a_kernel_of_one_release_and_a_rootfs_of_another(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, old: Release
) -> None:
    """Both signed, one swapped on the server; and a manifest that mixes them itself."""
    honest = dict(fleet.payloads)
    kernel, other = published.manifest.item("kernel"), old.manifest.item("kernel")
    assert kernel is not None
    assert other is not None
    fleet.payloads[kernel.root_hash] = old.streams[other.root_hash]
    await attacked(device, "bad_payload", "not the one that the signed manifest names", writing=True)
    fleet.payloads = honest
    fleet.publish(make_release("1.1.1", fit_tree=old.tree))
    doorman.offer = "1.1.1"
    await attacked(device, "mixed_release", "the kernel image belongs to another root file system", writing=True)


# --- endless data, bombs -------------------------------------------------------------------------------------------------
PLACES = {
    "check": (None, "check may have"),
    "metadata/2.root.json": (None, "2.root.json may have"),
    "metadata/timestamp.json": (None, "timestamp.json may have"),
    "metadata/2.snapshot.json": (None, "2.snapshot.json may have"),
    "metadata/2.targets.json": (None, "2.targets.json may have"),
    f"metadata/2.{PRODUCT}.json": (None, f"2.{PRODUCT}.json may have"),
    "targets/": (None, "manifest.json may have"),
}


@pytest.mark.parametrize("place", PLACES)
async def test_endless_data_in_each_answer(device: Device, doorman: Doorman, published: Release, place: str) -> None:
    reason, says = PLACES[place]
    doorman.habits.endless = place
    await attacked(device, reason, says)
    doorman.habits.endless = ""
    await recovers(device)


async def test_endless_data_in_a_payload(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.endless = "payload/"
    await attacked(device, "bad_payload", "does not begin with ZPS1", writing=True)


@pytest.mark.parametrize("place", ["check", "metadata/timestamp.json", "targets/"])
async def test_endless_data_promised_by_a_length(
    device: Device, doorman: Doorman, published: Release, place: str
) -> None:
    """A Content-Length of an exabyte is no reason to make room for one."""
    doorman.habits.promised[place] = 10**18
    last = await device.update()
    assert not last.ok
    assert device.version == "1.0.0"
    doorman.habits.promised.clear()
    await recovers(device)


@pytest.mark.parametrize("place", ["check", "metadata/timestamp.json"])
@pytest.mark.parametrize("text", [b"[" * 15_000, b'{"a":' * 3_000, b'{"n":' + b"9" * 15_000 + b"}"])
async def test_bomb_of_json(device: Device, doorman: Doorman, published: Release, place: str, text: bytes) -> None:
    doorman.habits.raw = {place: text}
    last = await device.update()
    assert (last.ok, device.version, device.store.read().b_left) == (False, "1.0.0", 3)
    assert "the update worker failed" not in last.message
    doorman.habits.raw = {}
    await recovers(device)


@pytest.mark.parametrize("way", ["server", "file"])
async def test_bomb_of_a_frame(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, tmp_path: Path, way: str
) -> None:
    """A frame of a few bytes that would be a gigabyte: refused at the first byte too many, in little memory."""
    root = published.tree.root.hex()
    stream = bytearray(published.streams[root])
    entry = PatchHeader.parse(bytes(stream)).frames[0]
    bomb = zstandard.ZstdCompressor(level=19).compressobj()
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(1024)) + bomb.flush()
    assert len(packed) < entry.compressed_bytes
    stream[entry.offset : entry.offset + len(packed)] = packed
    options: dict[str, Any] = {}
    if way == "server":
        fleet.payloads[root] = bytes(stream)
    else:
        bundle = fleet.bundle(replace(published, streams={**published.streams, root: bytes(stream)}), tmp_path / "b.zb")
        options = {"source": str(bundle)}
    await attacked(device, "bad_payload", "rootfs: patch stream: frame 0 ", writing=True, **options)


# --- slow retrieval ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["check", "metadata/timestamp.json", "metadata/2.targets.json", "targets/"])
async def test_slow_retrieval_a_byte_at_a_time(
    device: Device, doorman: Doorman, published: Release, place: str
) -> None:
    doorman.habits.trickle = place
    began_s = time.monotonic()
    await attacked(device, None, "bytes a second")
    assert time.monotonic() - began_s < 10
    doorman.habits.trickle = ""
    await recovers(device)


async def test_slow_retrieval_of_a_payload(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.trickle, doorman.habits.trickle_pause_s = "payload/", 0.005
    began_s = time.monotonic()
    last = await device.update()
    assert (last.ok, device.version) == (False, "1.0.0")
    assert time.monotonic() - began_s < 30
    doorman.habits.trickle = ""
    await recovers(device)


# --- wrong product or board ------------------------------------------------------------------------------------------------
def publish_for(fleet: Fleet, product: str, key: CryptoSigner) -> Release:
    """Publish a release of another product of the same fleet, signed with that product's own key."""
    fleet.top = tufrepo.delegate(fleet.top, product, [key.public_key], [fleet.keys["targets"]])
    release = make_release("1.3.0", product=product)
    role = tufrepo.add_release(None, release.manifest, [key])
    data = release.manifest.to_bytes()
    fleet.targets[tufrepo.served_target_name(release.manifest.target_path, data)] = data
    fleet.payloads |= release.streams
    fleet.version += 1
    top, own = fleet.top.to_bytes(), role.to_bytes()
    assert fleet.delegated is not None
    roles = {PRODUCT: fleet.delegated.to_bytes(), product: own}
    snapshot = tufrepo.new_snapshot(top, roles, [fleet.keys["snapshot"]], version=fleet.version).to_bytes()
    fleet.metadata |= {
        f"{fleet.top.signed.version}.targets.json": top,
        f"1.{product}.json": own,
        f"{fleet.version}.snapshot.json": snapshot,
        "timestamp.json": tufrepo.new_timestamp(snapshot, [fleet.keys["timestamp"]], version=fleet.version).to_bytes(),
    }
    return release


async def test_wrong_product_of_the_same_fleet(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release
) -> None:
    publish_for(fleet, OVEN, CryptoSigner.generate_ed25519())
    doorman.habits.raw = {"check": b'{"result":"ok","update":{"target":"%s/1.3.0/manifest.json"}}' % OVEN.encode()}
    await attacked(device, "wrong_product", f"the release is for product {OVEN}")


async def test_wrong_product_signed_by_another_products_key(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release
) -> None:
    """The key of one product signs a release that names the other: the delegation does not reach so far."""
    fleet.keys[PRODUCT] = CryptoSigner.generate_ed25519()
    publish_for(fleet, OVEN, fleet.keys[PRODUCT])
    fleet.publish(make_release("1.3.0"))
    doorman.offer = "1.3.0"
    await attacked(device, "bad_signature", f"{PRODUCT}.json is not signed as it must be")


@pytest.mark.parametrize("way", ["server", "file"])
async def test_wrong_board(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, tmp_path: Path, way: str
) -> None:
    release = make_release("1.2.0", compatible=("toaster",))
    fleet.publish(release)
    doorman.offer = "1.2.0"
    options: dict[str, Any] = {} if way == "server" else {"source": str(fleet.bundle(release, tmp_path / "t.zb"))}
    await attacked(device, "wrong_board", "the release is for board toaster", **options)


# --- check and use differ ----------------------------------------------------------------------------------------------------
async def test_check_and_use_a_file_that_is_changed_after_its_check(
    device: Device, fleet: Fleet, new: Release, tmp_path: Path
) -> None:
    """The very file that was checked gets another release's payloads before it is installed."""
    bundle = fleet.bundle(new, tmp_path / "new.zb")
    other = fleet.bundle(make_release("1.1.1", make_rootfs(99)), tmp_path / "evil.zb").read_bytes()

    async def change(_manifest: Manifest) -> str | None:
        with bundle.open("r+b") as file:
            file.write(other)
            file.truncate()
        return None

    device.parts_changes["pre_install"] = change
    device.start()
    last = await attacked(device, "bad_payload", "", writing=True, source=str(bundle))
    assert "payload" in last.message or "patch stream" in last.message


@pytest.mark.parametrize("label", ["kernel_b", "rootfs_b"])
async def test_check_and_use_a_disk_that_is_changed_after_its_check(
    device: Device, published: Release, label: str, change: Callable[[Path], None]
) -> None:
    """Everything was verified and activated; then somebody writes to the slot: it does not boot, the old one does."""
    assert (await device.update()).ok
    change(device.part(label))
    device.boot()
    assert (device.running, device.version) == ("a", "1.0.0")
    await device.manager.start()
    assert device.manager.failed_version == "1.1.0"


@pytest.fixture
def change() -> Callable[[Path], None]:
    """Flip one bit of a partition."""

    def flip_one(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(4096 * 5 + 40 if path.name.startswith("rootfs") else 60)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))

    return flip_one
