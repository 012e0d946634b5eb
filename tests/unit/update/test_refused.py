"""Every release that must not be installed, and every server that must not be believed: refused, said why, nothing changed."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.provision_tool import pki
from tests.support.device import Device, waiting, with_floor
from tests.support.doorman import Doorman
from tests.support.fleet import PRODUCT, Fleet, Release, make_release, make_rootfs
from zentrid.bundle.patch import PatchHeader
from zentrid.bundle.tree import HashTree
from zentrid.core.network import JoinFailedError, NetworkError, NetworkNotSetError
from zentrid.ports import UpdateProgress
from zentrid.update.errors import unreachable_because


async def refused_before_anything(device: Device) -> UpdateProgress:
    """Run an update that must fail; the disk and the boot state are byte for byte the same afterwards."""
    before = device.snapshot(), device.part("bootstate").read_bytes()
    last = await device.update()
    assert (last.ok, last.reboot) == (False, False)
    assert (device.snapshot(), device.part("bootstate").read_bytes()) == before
    assert device.manager.state == "idle"
    return last


async def refused_while_writing(device: Device) -> UpdateProgress:
    """Run an update that must fail; the target lost its tries, and that is all that the boot script can notice."""
    before = device.store.read()
    last = await device.update()
    assert (last.ok, last.reboot, last.result) == (False, False, 3)
    state = device.store.read()
    assert replace(state, seq=0) == replace(before, seq=0, b_left=0, b_good=False, order=("a", "b"))
    assert device.manager.state == "idle"
    device.store.broken_from = None
    device.boot()
    assert (device.running, device.version) == ("a", "1.0.0")
    return last


def flip(path_part: str, position: int) -> Callable[[str, bytes], bytes]:
    def tamper(path: str, data: bytes) -> bytes:
        if path_part not in path:
            return data
        changed = bytearray(data)
        changed[position % len(data)] ^= 1
        return bytes(changed)

    return tamper


# --- one flipped bit ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("position", [0, 40, -1])
async def test_in_the_manifest(device: Device, doorman: Doorman, published: Release, position: int) -> None:
    doorman.habits.tamper = flip("manifest.json", position)
    last = await refused_before_anything(device)
    assert last.message.startswith(f"the manifest of {PRODUCT}/1.1.0/manifest.json is not the one that was signed")
    [report] = await waiting(device)
    assert (report["event"], report["reason"]) == ("failed", "bad_manifest")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", PRODUCT])
async def test_in_signed_metadata(device: Device, doorman: Doorman, published: Release, role: str) -> None:
    doorman.habits.tamper = flip(f"{role}.json", 200)
    last = await refused_before_anything(device)
    assert f"{role}.json is " in last.message
    assert last.result == 3


def rootfs_stream(release: Release) -> tuple[str, PatchHeader]:
    root = release.tree.root.hex()
    return root, PatchHeader.parse(release.streams[root])


async def test_in_the_leaf_section(device: Device, doorman: Doorman, published: Release) -> None:
    root, header = rootfs_stream(published)
    doorman.habits.tamper = flip(root, header.leaf_offset + header.leaf_bytes // 2)
    last = await refused_while_writing(device)
    assert last.message.startswith("rootfs: patch stream: ")
    assert "leaf" in last.message


@pytest.mark.parametrize("position", [70, -1])
async def test_a_beginning_that_was_wrong_is_asked_for_again(
    device: Device, doorman: Doorman, published: Release, position: int
) -> None:
    root, header = rootfs_stream(published)
    doorman.habits.tamper = flip(root, position if position >= 0 else header.leaf_offset + header.leaf_bytes - 1)
    await refused_while_writing(device)
    assert not list((device.folder / "data/ota").glob(f"{root[:32]}*")), "nothing wrong is kept"
    doorman.habits.tamper = lambda _path, data: data
    last = await device.update()
    assert last.ok, last.message


@pytest.mark.parametrize("frame", [0, 2])
async def test_in_a_frame(device: Device, doorman: Doorman, published: Release, frame: int) -> None:
    root, header = rootfs_stream(published)
    entry = header.frames[frame]
    doorman.habits.tamper = flip(root, entry.offset + entry.compressed_bytes // 2)
    last = await refused_while_writing(device)
    assert last.message.startswith(f"rootfs: patch stream: frame {frame} ")


@pytest.mark.parametrize("position", [0, 5, 20, 70, 97, 110])
async def test_in_the_patch_header(device: Device, doorman: Doorman, published: Release, position: int) -> None:
    root, _ = rootfs_stream(published)
    doorman.habits.tamper = flip(root, position)
    last = await refused_while_writing(device)
    assert last.message.startswith("rootfs: patch stream: ")


async def test_another_payload_than_the_one_asked_for(
    device: Device, doorman: Doorman, fleet: Fleet, published: Release, old: Release
) -> None:
    fleet.payloads[published.tree.root.hex()] = old.streams[old.tree.root.hex()]
    last = await refused_while_writing(device)
    assert "not the one that the signed manifest names" in last.message


# --- the wrong release -------------------------------------------------------------------------------------------
def offer(fleet: Fleet, doorman: Doorman, release: Release) -> None:
    fleet.publish(release)
    doorman.offer = release.version


async def test_wrong_board(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    offer(fleet, doorman, make_release("1.1.0", compatible=("toaster",)))
    last = await refused_before_anything(device)
    assert last.message == "the release is for board toaster, this device is board virt"


async def test_wrong_product(device: Device, doorman: Doorman, fleet: Fleet, published: Release) -> None:
    parts = device.manager._parts
    device.parts_changes["release"] = replace(parts.release, product="ACME-VIRT_OVEN")
    device.start()
    last = await refused_before_anything(device)
    assert last.message == f"the release is for product {PRODUCT}, this device is a ACME-VIRT_OVEN"


async def test_a_release_of_a_product_whose_key_did_not_sign_it(
    device: Device, doorman: Doorman, fleet: Fleet, published: Release
) -> None:
    """The server may say what it likes: what the product's key did not sign does not exist."""
    doorman.offer = "6.6.6"
    last = await refused_before_anything(device)
    assert last.message.startswith(f"no trusted key signs {PRODUCT}/6.6.6/manifest.json")


async def test_below_the_floor(device: Device, doorman: Doorman, fleet: Fleet, published: Release) -> None:
    device.store.update(with_floor("1.1.1"))
    last = await refused_before_anything(device)
    assert last.message.startswith("release 1.1.0 is older than 1.1.1, the oldest that this device may install")
    [report] = await waiting(device)
    assert (report["reason"], report["to"]) == ("below_floor", "1.1.0")


async def test_below_the_floor_with_the_signers_leave(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    device.store.update(with_floor("2.0.0"))
    offer(fleet, doorman, make_release("1.1.0", downgrade_to="1.0.5"))
    assert (await device.update()).ok


async def test_a_newer_version_must_run_first(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    offer(fleet, doorman, make_release("2.0.0", min_version="1.5.0"))
    doorman.habits.unpublished = {"1.5.0"}
    last = await refused_before_anything(device)
    assert "needs release 1.5.0 to be installed first" in last.message


async def test_too_large_for_the_slot(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    offer(fleet, doorman, make_release("1.1.0", make_rootfs(5, blocks=1020)))
    last = await refused_before_anything(device)
    assert last.message.startswith("the rootfs of the release takes ")
    assert "the slot has 4194304" in last.message


async def test_a_kernel_of_one_release_with_a_rootfs_of_another(
    device: Device, doorman: Doorman, fleet: Fleet, old: Release
) -> None:
    offer(fleet, doorman, make_release("1.1.0", fit_tree=old.tree))
    last = await refused_while_writing(device)
    assert last.message.startswith("the kernel image belongs to another root file system")


async def test_a_kernel_that_says_another_version(device: Device, doorman: Doorman, fleet: Fleet) -> None:
    offer(fleet, doorman, make_release("1.1.0", fit_version="9.9.9"))
    last = await refused_while_writing(device)
    assert last.message.startswith("the kernel image says version 9.9.9, the manifest says 1.1.0")


async def test_a_hook_that_says_no(device: Device, published: Release) -> None:
    async def hook(_manifest: object) -> str | None:
        return "the door is open"

    device.parts_changes["pre_install"] = hook
    device.start()
    last = await refused_before_anything(device)
    assert last.message == "the device does not want to be updated now: the door is open"


# --- the server --------------------------------------------------------------------------------------------------
async def test_expired_metadata(device: Device, fleet: Fleet, published: Release) -> None:
    fleet.serve_expired()
    last = await refused_before_anything(device)
    assert last.message.startswith("signed metadata has expired (timestamp.json is expired)")
    [report] = await waiting(device)
    assert report["reason"] == "expired"


async def test_replayed_metadata(device: Device, fleet: Fleet, published: Release) -> None:
    kept = dict(fleet.metadata)
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    fleet.metadata.update(kept)
    last = await refused_before_anything(device)
    assert "older than what this device has seen" in last.message


@pytest.mark.parametrize(
    ("status", "message", "result"),
    [(403, "device not claimed", 7), (400, "no such product", 8), (404, "no version 9.9.9", 9), (500, "oh", 3)],
)
async def test_the_servers_no_is_passed_through(
    device: Device, doorman: Doorman, published: Release, status: int, message: str, result: int
) -> None:
    doorman.habits.refuse["check"] = (status, message)
    last = await refused_before_anything(device)
    assert last.message == f'{{"result":"fail","message":"{message}"}}'
    assert (last.result, device.manager.last_result) == (result, result)
    assert await waiting(device) == []


async def test_not_claimed(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.claimed = False
    last = await refused_before_anything(device)
    assert last.message == '{"result":"fail","message":"device not claimed"}'
    assert device.manager.dms.reached


async def test_no_server(device: Device, doorman: Doorman) -> None:
    device.parts_changes["server"] = lambda: ("127.0.0.1", 1)
    device.start()
    last = await refused_before_anything(device)
    assert (last.result, device.manager.last_result) == (6, 6)
    assert last.message.startswith("cannot reach the server at 127.0.0.1:1 ")
    assert not device.manager.dms.reached


@pytest.mark.parametrize(
    ("trouble", "result", "reason"),
    [
        (NetworkNotSetError("No network is set."), 4, "no_network_set"),
        (JoinFailedError("No link."), 5, "join_failed"),
        (None, 6, "dms_unreachable"),
    ],
)
async def test_no_network(device: Device, trouble: NetworkError | None, result: int, reason: str) -> None:
    device.parts_changes["server"] = lambda: ("127.0.0.1", 1)
    device.parts_changes["network_trouble"] = lambda: unreachable_because(trouble)
    device.start()
    last = await refused_before_anything(device)
    assert (last.result, device.manager.last_result, last.reason) == (result, result, reason)
    assert trouble is None or last.message == str(trouble)
    assert await waiting(device) == [], "nobody can be told"


async def test_a_network_that_goes_during_a_download_is_not_taken_for_one_that_was_never_there(
    device: Device, doorman: Doorman, published: Release
) -> None:
    device.parts_changes["network_trouble"] = lambda: unreachable_because(JoinFailedError("No link."))
    device.start()
    doorman.habits.cuts = [0] * 10
    assert (await device.update()).result == 6


async def test_a_server_that_says_no_is_no_trouble_of_the_network(device: Device, doorman: Doorman) -> None:
    device.parts_changes["network_trouble"] = lambda: unreachable_because(JoinFailedError("No link."))
    device.start()
    doorman.claimed = False
    assert (await device.update()).message == '{"result":"fail","message":"device not claimed"}'


async def test_a_server_with_another_certificate(device: Device, fleet: Fleet, published: Release) -> None:
    other = pki.new_authority("DMS CA")
    (fleet.identity_dir / "dms_ca.crt").write_bytes(pki.certificate_pem(other.certificate))
    last = await refused_before_anything(device)
    assert last.result == 6
    assert "is not the one that this device trusts" in last.message


async def test_a_device_certificate_of_another_authority(device: Device, fleet: Fleet, doorman: Doorman) -> None:
    fleet.device_ca = pki.new_authority("Device CA")
    folder = fleet.folder / "other"
    fleet._make_identity(folder, "6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11")
    for path in folder.iterdir():
        path.replace(fleet.identity_dir / path.name)
    last = await refused_before_anything(device)
    assert last.result == 6
    assert doorman.requests == []


async def test_no_identity(device: Device, fleet: Fleet) -> None:
    (fleet.identity_dir / "device.key").unlink()
    last = await refused_before_anything(device)
    assert last.message.startswith("the device's certificate cannot be used")


async def test_endless_metadata(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.endless = "metadata/timestamp.json"
    last = await refused_before_anything(device)
    assert "sent more than the 16384 bytes" in last.message


async def test_an_endless_answer(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.endless = "check"
    last = await refused_before_anything(device)
    assert "sent more than the 65536 bytes" in last.message


async def test_an_endless_payload_is_read_no_further_than_needed(
    device: Device, doorman: Doorman, published: Release
) -> None:
    doorman.habits.endless = "payload/"
    last = await refused_while_writing(device)
    assert last.message.startswith("kernel: patch stream: does not begin with ZPS1")


@pytest.mark.parametrize("path", ["check", "metadata/timestamp.json"])
async def test_a_byte_at_a_time(device: Device, doorman: Doorman, published: Release, path: str) -> None:
    doorman.habits.trickle = path
    began = time.monotonic()
    last = await refused_before_anything(device)
    assert "bytes a second" in last.message
    assert time.monotonic() - began < 10


async def test_a_payload_a_byte_at_a_time(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.trickle = "payload/"
    doorman.habits.trickle_pause_s = 0.005
    last = await device.update()
    assert not last.ok
    assert last.result in (3, 6)
    assert device.store.read().b_left == 0


async def test_a_payload_that_always_ends_early(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.cuts = [0] * 10
    last = await device.update()
    assert (last.ok, last.result) == (False, 6)
    assert len(doorman.asked("payload/")) == 3  # as many tries as it was allowed
    assert device.store.read().b_left == 0


async def test_a_server_that_ignores_ranges(device: Device, doorman: Doorman, published: Release) -> None:
    doorman.habits.whole = True
    last = await device.update()
    assert (last.ok, last.result) == (False, 6)
    assert "does not serve parts" in last.message


@pytest.mark.parametrize("answer", [b"", b"[1]", b"<html>", b'{"result":"ok","update":7}', b'{"update":{"target":5}}'])
async def test_an_answer_that_makes_no_sense(
    device: Device, doorman: Doorman, published: Release, answer: bytes
) -> None:
    doorman.habits.raw = {"check": answer}
    last = await refused_before_anything(device)
    assert "check dms.host" in last.message or "does not understand" in last.message


# --- the disk ----------------------------------------------------------------------------------------------------
async def test_a_boot_state_that_cannot_be_written_before(device: Device, published: Release) -> None:
    device.store.broken_from = device.store.writes + 1
    last = await refused_before_anything(device)
    assert "the boot state could not be written" in last.message
    assert device.launcher.requests[-1].op == "check"


async def test_a_boot_state_that_cannot_be_written_after(device: Device, published: Release) -> None:
    device.store.broken_from = device.store.writes + 2
    last = await refused_while_writing(device)
    assert "the boot state could not be written" in last.message
    [report] = await waiting(device)
    assert (report["event"], report["reason"]) == ("failed", "boot_state_not_written")


async def test_the_running_slot_is_never_a_target(device: Device, published: Release) -> None:
    """The boot script says r, the kernel mounted A: the PARTUUID decides."""
    cmdline = device.folder / "cmdline"
    device.store.update(lambda state: replace(state, a_good=False, a_left=0, b_good=True, order=("b", "a")))
    device.start()
    text = cmdline.read_text().replace("zentri.slot=a", "zentri.slot=r")
    cmdline.write_text(text)
    slots = type(device.manager._parts.slots)(device.store, device.folder / "sys", device.folder / "dev", cmdline)  # type: ignore[call-arg]
    device.parts_changes["slots"] = slots
    device.start()
    cmdline.write_text(text)
    assert slots.running == "r"
    last = await refused_before_anything(device)
    assert last.message.startswith("slot a is in use and must not be overwritten")


async def test_a_disk_that_lies_about_a_write(
    device: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was written, but one block is not there when it is read back: each time."""
    damaged = lie_about_block(device, monkeypatch, 123, times=9)
    last = await refused_while_writing(device)
    assert last.message.startswith("block 123 of the rootfs is not on the disk as it was written")
    assert damaged.count("rootfs") == 2  # one repair, no more


async def test_a_block_that_was_lost_once_is_repaired(
    device: Device, doorman: Doorman, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = lie_about_block(device, monkeypatch, 123, times=1)
    last = await device.update()
    assert last.ok, last.message
    assert damaged.count("rootfs") == 2
    assert device.slot_holds("b", published)


def lie_about_block(device: Device, monkeypatch: pytest.MonkeyPatch, block: int, *, times: int) -> list[str]:
    """Damage a block of the target after it was written, before it is read back; returns which read-backs there were."""
    from zentrid.update import install, target

    read_backs: list[str] = []

    def damage(fd: int, tree: HashTree, step: target.Step, *, with_tree: bool) -> Iterator[int]:
        read_backs.append("rootfs" if with_tree else "kernel")
        if with_tree and read_backs.count("rootfs") <= times:
            with device.part("rootfs_b").open("r+b") as file:
                file.seek(block * 4096 + 17)
                file.write(b"rot")
        return read_back(fd, tree, step, with_tree=with_tree)

    read_back = target.read_back
    monkeypatch.setattr(install, "read_back", damage)
    return read_backs


async def test_a_hash_tree_that_is_not_on_the_disk(
    device: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zentrid.update import install

    monkeypatch.setattr(install, "write_tree", lambda _target: None)
    last = await refused_while_writing(device)
    assert last.message.startswith("the hash tree of the rootfs is not on the disk as it was written")


def test_the_releases_of_these_tests_have_several_frames(published: Release) -> None:
    _, header = rootfs_stream(published)
    assert len(header.frames) >= 3
    assert HashTree.from_reader(io.BytesIO(published.rootfs)).root == header.target_root


def test_identity_files_are_there(fleet: Fleet) -> None:
    assert {path.name for path in Path(fleet.identity_dir).iterdir()} == {
        "device.key", "device.crt", "dms_ca.crt", "root.json",
    }  # fmt: skip
