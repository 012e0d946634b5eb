"""Blocks on partitions: found, copied, checked, read back."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import make_rootfs
from zentrid.adapters.blockdev import DirectReader, read_at, size_bytes, write_at
from zentrid.bundle.tree import BLOCK_BYTES, HashTree
from zentrid.update.target import Buffer, TargetPayload, direct, not_as_written, read_back, write_tree

BLOCKS = 600


@pytest.fixture
def image() -> bytes:
    return make_rootfs(9, blocks=BLOCKS)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "partition", os.O_RDWR | os.O_CREAT)
    os.ftruncate(opened, 1000 * BLOCK_BYTES)
    yield opened
    os.close(opened)


def target_of(fd: int, image: bytes) -> tuple[TargetPayload, list[int]]:
    steps: list[int] = []
    return TargetPayload(fd, HashTree.from_reader(io.BytesIO(image)), steps.append), steps


def block(image: bytes, index: int) -> bytes:
    return image[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]


def test_one_wrong_bit_is_one_missing_block(fd: int, image: bytes) -> None:
    write_at(fd, 0, image)
    write_at(fd, 301 * BLOCK_BYTES + 5, b"?")
    target, steps = target_of(fd, image)
    target.check_all()
    assert list(target.lacking()) == [301]
    assert sum(steps) == BLOCKS - 1
    assert not target.check(301)
    assert not target.put(301, bytes(BLOCK_BYTES))
    assert not target.complete
    assert target.put(301, block(image, 301))
    target.flush()
    assert target.complete
    assert read_at(fd, 0, len(image)) == image


def test_equal_blocks_are_written_everywhere(fd: int, image: bytes) -> None:
    target, steps = target_of(fd, image)
    zeros = [index * 7 for index in range(10, 30)]
    assert target.put_one(77, bytes(BLOCK_BYTES))
    assert not target.has_all([70])
    assert target.put(70, bytes(BLOCK_BYTES))
    target.flush()
    assert [n for n in range(BLOCKS) if target.done[n]] == zeros
    assert sum(steps) == len(zeros)
    assert target.has_all([70])
    assert not target.has_all([71])


def test_scattered_blocks_come_to_their_places(fd: int, image: bytes) -> None:
    target, _ = target_of(fd, image)
    with direct(fd):
        for index in (*range(0, BLOCKS, 2), *range(1, BLOCKS, 2)):
            assert target.put_one(index, block(image, index))
        run = Buffer().view[: 200 * BLOCK_BYTES]
        run[:] = image[: 200 * BLOCK_BYTES]
        target.put_run(0, run)
        target.flush()
    assert target.complete
    assert read_at(fd, 0, len(image)) == image


@pytest.mark.parametrize("where", [0, 255, 599])
def test_read_back_names_every_wrong_block(fd: int, image: bytes, where: int) -> None:
    target, steps = target_of(fd, image)
    write_at(fd, 0, image)
    write_tree(target)
    assert list(read_back(fd, target.tree, steps.append, with_tree=True)) == []
    assert sum(steps) == BLOCKS
    write_at(fd, where * BLOCK_BYTES + 4095, b"\xff")
    write_at(fd, 400 * BLOCK_BYTES, b"?")
    assert list(read_back(fd, target.tree, steps.append, with_tree=True)) == sorted({where, 400})
    assert str(not_as_written("rootfs", where, BLOCKS)).startswith(f"block {where} of the rootfs")


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 600, 16385])
def test_the_tree_on_the_disk_is_the_kernels(fd: int, blocks: int) -> None:
    os.ftruncate(fd, 2 * blocks * BLOCK_BYTES + 8 * BLOCK_BYTES)
    tree = HashTree(os.urandom(32 * blocks))
    target = TargetPayload(fd, tree, lambda _n: None)
    with direct(fd):
        write_tree(target)
    levels = tree.levels_bytes()
    assert read_at(fd, blocks * BLOCK_BYTES, len(levels)) == levels


@pytest.mark.parametrize("where", [0, 1, 5])
def test_read_back_checks_the_tree_too(fd: int, image: bytes, where: int) -> None:
    target, steps = target_of(fd, image)
    write_at(fd, 0, image)
    write_tree(target)
    write_at(fd, (BLOCKS + where) * BLOCK_BYTES + 9, b"?")
    assert list(read_back(fd, target.tree, steps.append, with_tree=False)) == []
    assert list(read_back(fd, target.tree, steps.append, with_tree=True)) == [BLOCKS]
    assert "the hash tree of the rootfs" in str(not_as_written("rootfs", BLOCKS, BLOCKS))


def test_direct_reading(fd: int) -> None:
    write_at(fd, 8192, b"x" * 5000)
    with DirectReader(fd) as medium:
        assert bytes(medium.read(8192, 5000)) == b"x" * 5000
        assert len(medium.read(size_bytes(fd) - 4096, 8192)) == 4096
        assert len(medium.read(size_bytes(fd), 4096)) == 0
    assert os.pread(fd, 5, 8193) == b"xxxxx"  # the descriptor is as it was: unaligned reads work
