"""The supervisor's read-back where the kernel cannot do it: as strict as the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.device import Device
from tests.support.fleet import Release, make_rootfs
from zentrid.adapters import dmverity
from zentrid.adapters.blockdev import write_at
from zentrid.bundle.tree import BLOCK_BYTES, HashTree, hash_block
from zentrid.update import files, readback
from zentrid.update.protocol import ItemSpec
from zentrid.update.readback import WrongBlockError, hashed, kernel_can_check

BLOCKS = 600


@pytest.fixture
def item(tmp_path: Path) -> Iterator[ItemSpec]:
    """A slot that holds what the manifest names."""
    image = make_rootfs(9, blocks=BLOCKS)
    blocks = [image[at : at + BLOCK_BYTES] for at in range(0, len(image), BLOCK_BYTES)]
    tree = HashTree.from_leaves([hash_block(block) for block in blocks])
    fd = os.open(tmp_path / "partition", os.O_RDWR | os.O_CREAT)
    write_at(fd, 0, image + tree.levels_bytes())
    os.ftruncate(fd, 700 * BLOCK_BYTES)
    yield ItemSpec("rootfs", tree.root.hex(), len(image) - 5, fd, with_tree=True)
    os.close(fd)


def test_what_is_right_is_read_to_its_end(item: ItemSpec) -> None:
    assert list(hashed(item))[-1] == BLOCKS


@pytest.mark.parametrize("block", [0, 255, 256, BLOCKS - 1])
def test_a_wrong_block_is_named(item: ItemSpec, block: int) -> None:
    write_at(item.fd, block * BLOCK_BYTES + 4095, b"\xfe")
    with pytest.raises(WrongBlockError, match=f"^block {block} of the rootfs is not on the disk as it was written"):
        list(hashed(item))


@pytest.mark.parametrize("block", [0, 1, 5])
def test_a_wrong_tree_is_noticed(item: ItemSpec, block: int) -> None:
    write_at(item.fd, (BLOCKS + block) * BLOCK_BYTES + 9, b"\xfe")
    with pytest.raises(WrongBlockError, match="the hash tree of the rootfs"):
        list(hashed(item))


def test_another_release_is_not_this_one(item: ItemSpec) -> None:
    """Whole in itself, tree and all, and yet not what was signed."""
    other = ItemSpec("rootfs", "ab" * 32, item.size_bytes, item.fd, with_tree=True)
    with pytest.raises(WrongBlockError):
        list(hashed(other))


def test_the_kernel_checks_block_devices_only(item: ItemSpec) -> None:
    assert not kernel_can_check(item.fd)
    with pytest.raises(ValueError, match="zentri"):
        dmverity.make("zentri-../x", item.fd, item.root_hash, BLOCKS)


def test_the_requests_are_the_kernels() -> None:
    """Numbers and places as `linux/dm-ioctl.h` has them, interface version 4, on every 64-bit machine."""
    requests = (dmverity._CREATE, dmverity._REMOVE, dmverity._RESUME, dmverity._LOAD)
    assert requests == (0xC138FD03, 0xC138FD04, 0xC138FD06, 0xC138FD09)
    packed = dmverity._HEAD.pack(4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, b"name", b"uuid")
    assert (len(packed), dmverity._SPEC.size) == (312, 40)
    places = {12: b"\1\0", 20: b"\3\0", 28: b"\5\0", 40: b"\x08\0", 48: b"name", 176: b"uuid"}
    assert all(packed[at : at + len(value)] == value for at, value in places.items())


def test_only_our_own_leftovers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    for number, name in enumerate(("rootfs", "zentri-readback", "zentri-source-a", "other-zentri-x")):
        folder = tmp_path / f"dm-{number}" / "dm"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
    monkeypatch.setattr(dmverity, "_remove", removed.append)
    dmverity.remove_leftovers(tmp_path)
    assert removed == ["zentri-readback", "zentri-source-a"]


def test_a_block_that_cannot_be_read_through_the_mapping_is_named(item: ItemSpec, tmp_path: Path) -> None:
    """An ordinary file that ends early stands for the mapping: reading fails from block 300 on."""
    mapping = dmverity.Mapping("zentri-readback", tmp_path / "partition", BLOCKS)
    told = list(dmverity.read_through(mapping))
    assert (told[-1], told) == (BLOCKS, sorted(told))
    os.ftruncate(item.fd, 300 * BLOCK_BYTES)
    with pytest.raises(dmverity.BadBlockError) as caught:
        list(dmverity.read_through(mapping))
    assert caught.value.block == 300


@pytest.fixture
def supervised(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device whose supervisor reads back, as on the board; its files cannot lie under a mapping, so it hashes."""
    monkeypatch.setattr(files, "kernel_can_check", lambda _fd: True)
    return device


def damage(device: Device, monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[str]:
    """Let a block fall over after the worker has ended, before each of the first read-backs; returns which there were."""
    read_backs: list[str] = []

    def after_damage(item: ItemSpec) -> Iterator[int]:
        read_backs.append(item.name)
        if len(read_backs) <= times:
            with device.part("rootfs_b").open("r+b") as file:
                file.seek(321 * BLOCK_BYTES + 9)
                file.write(b"rot")
        return hashed(item)

    monkeypatch.setattr(readback, "hashed", after_damage)
    return read_backs


async def test_the_supervisor_reads_back_by_itself(
    supervised: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_backs = damage(supervised, monkeypatch, times=0)
    news = await supervised.news()
    assert news[-1].ok, news[-1].message
    assert read_backs == ["rootfs"]
    assert "verifying" in {item.state for item in news}
    assert [item.percent for item in news] == sorted(item.percent for item in news)
    assert supervised.slot_holds("b", published)


async def test_what_it_finds_is_repaired_once(
    supervised: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_backs = damage(supervised, monkeypatch, times=1)
    last = await supervised.update()
    assert last.ok, last.message
    assert len(read_backs) == 2
    assert [request.install.repair for request in supervised.launcher.requests if request.install] == [False, True]
    assert supervised.slot_holds("b", published)


async def test_a_disk_that_goes_on_lying_is_given_up(
    supervised: Device, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_backs = damage(supervised, monkeypatch, times=9)
    last = await supervised.update()
    assert not last.ok
    assert last.message == "block 321 of the rootfs is not on the disk as it was written; check the disk"
    assert len(read_backs) == 2
    assert supervised.store.read().b_left == 0
