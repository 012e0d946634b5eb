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
from zentrid.update.errors import PayloadError
from zentrid.update.target import Source, TargetPayload, copy_known, leaves_of, read_back, write_tree

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


def test_a_blank_partition_has_nothing(fd: int, image: bytes) -> None:
    target, steps = target_of(fd, image)
    target.scan()
    zeros = sum(image[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES] == bytes(BLOCK_BYTES) for n in range(BLOCKS))
    # Blocks of zeros may count as there: a blank partition does hold them.
    assert sum(target.done) in (0, zeros)
    assert sum(steps) == sum(target.done)


@pytest.mark.parametrize("there", [256, 300, 512, BLOCKS])
def test_what_an_interrupted_run_left_is_found(fd: int, image: bytes, there: int) -> None:
    write_at(fd, 0, image[: there * BLOCK_BYTES])
    target, steps = target_of(fd, image)
    target.scan()
    assert all(target.done[:there])
    assert target.complete == (there == BLOCKS)
    assert sum(steps) == sum(target.done)


def test_one_wrong_bit_is_one_missing_block(fd: int, image: bytes) -> None:
    write_at(fd, 0, image)
    write_at(fd, 301 * BLOCK_BYTES + 5, b"?")
    target, _ = target_of(fd, image)
    target.scan()
    assert [n for n in range(BLOCKS) if not target.done[n]] == [301]
    assert not target.put(301, bytes(BLOCK_BYTES))
    assert not target.complete
    assert target.put(301, image[301 * BLOCK_BYTES : 302 * BLOCK_BYTES])
    target.flush()
    assert target.complete
    assert read_at(fd, 0, len(image)) == image


def test_equal_blocks_are_written_everywhere(fd: int, image: bytes) -> None:
    for n in range(BLOCKS):
        write_at(fd, n * BLOCK_BYTES, b"old")
    target, _ = target_of(fd, image)
    assert target.put(70, bytes(BLOCK_BYTES))
    target.flush()
    assert [n for n in range(BLOCKS) if target.done[n]] == [index * 7 for index in range(10, 30)]
    assert target.has(70)
    assert not target.has(71)


@pytest.mark.parametrize("with_tree", [True, False])
def test_moved_blocks_are_copied(fd: int, image: bytes, tmp_path: Path, with_tree: bool) -> None:
    moved = image[100 * BLOCK_BYTES :] + image[: 100 * BLOCK_BYTES]
    source_fd = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    tree = HashTree.from_reader(io.BytesIO(moved))
    write_at(source_fd, 0, moved)
    write_tree(source_fd, tree)
    source = Source(source_fd, tree.n_blocks, tree.n_blocks) if with_tree else Source(source_fd)
    leaves = leaves_of(source)
    assert leaves[: len(tree.leaves)] == tree.leaves
    target, _ = target_of(fd, image)
    copy_known(target, source, leaves)
    assert target.complete
    assert read_at(fd, 0, len(image)) == image
    os.close(source_fd)


def test_a_source_that_lies_is_not_believed(fd: int, image: bytes, tmp_path: Path) -> None:
    """The source's tree promises a block that its data does not hold."""
    source_fd = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    tree = HashTree.from_reader(io.BytesIO(image))
    write_at(source_fd, 0, image)
    write_tree(source_fd, tree)
    write_at(source_fd, 33 * BLOCK_BYTES, b"rot")
    source = Source(source_fd, tree.n_blocks, tree.n_blocks)
    target, _ = target_of(fd, image)
    copy_known(target, source, leaves_of(source))
    assert [n for n in range(BLOCKS) if not target.done[n]] == [33]
    os.close(source_fd)


@pytest.mark.parametrize(("blocks", "start"), [(0, 0), (1, 1), (2**21, 0), (600, 2**30)])
def test_a_source_that_makes_no_sense_gives_nothing(fd: int, blocks: int, start: int) -> None:
    assert leaves_of(Source(fd, blocks, start)) == b""


@pytest.mark.parametrize("where", [0, 255, 599])
def test_read_back_names_the_first_wrong_block(fd: int, image: bytes, where: int) -> None:
    tree = HashTree.from_reader(io.BytesIO(image))
    write_at(fd, 0, image)
    write_tree(fd, tree)
    read_back("rootfs", fd, tree, lambda _n: None, with_tree=True)
    write_at(fd, where * BLOCK_BYTES + 4095, b"\xff")
    with pytest.raises(PayloadError, match=f"block {where} of the rootfs"):
        read_back("rootfs", fd, tree, lambda _n: None, with_tree=True)


def test_read_back_checks_the_tree_too(fd: int, image: bytes) -> None:
    tree = HashTree.from_reader(io.BytesIO(image))
    write_at(fd, 0, image)
    write_tree(fd, tree)
    write_at(fd, (BLOCKS + 1) * BLOCK_BYTES + 9, b"?")
    read_back("kernel", fd, tree, lambda _n: None, with_tree=False)
    with pytest.raises(PayloadError, match="the hash tree of the rootfs"):
        read_back("rootfs", fd, tree, lambda _n: None, with_tree=True)


def test_direct_reading(fd: int) -> None:
    write_at(fd, 8192, b"x" * 5000)
    with DirectReader(fd) as medium:
        assert bytes(medium.read(8192, 5000)) == b"x" * 5000
        assert len(medium.read(size_bytes(fd) - 4096, 8192)) == 4096
        assert len(medium.read(size_bytes(fd), 4096)) == 0
    assert os.pread(fd, 5, 8193) == b"xxxxx"  # the descriptor is as it was: unaligned reads work
