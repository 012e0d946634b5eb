"""Blocks that the device has already: copied, moved, believed only as far as is safe."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fleet import make_rootfs
from zentrid.adapters.blockdev import read_at, write_at
from zentrid.bundle.tree import BLOCK_BYTES, HashTree
from zentrid.update.sources import Past, Source, is_whole, leaf_pieces, prepared, use_what_is_here
from zentrid.update.target import TargetPayload, direct, write_tree

BLOCKS = 600
Partition = Callable[[bytes], int]


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[Partition]:
    """Make a partition that holds an image and its tree; its descriptor is open for reading and writing."""
    fds: list[int] = []

    def make(image: bytes) -> int:
        fd = os.open(tmp_path / f"part{len(fds)}", os.O_RDWR | os.O_CREAT)
        fds.append(fd)
        os.ftruncate(fd, 1000 * BLOCK_BYTES)
        if image:
            write_at(fd, 0, image)
            write_tree(TargetPayload(fd, tree_of(image), lambda _n: None))
        return fd

    yield make
    for fd in fds:
        os.close(fd)


def again(fd: int) -> int:
    """The same partition, opened once more, as the supervisor does."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)


def tree_of(image: bytes) -> HashTree:
    return HashTree.from_reader(io.BytesIO(image))


def source_of(fd: int, image: bytes) -> Source:
    tree = tree_of(image)
    return Source(fd, tree.n_blocks, tree.n_blocks, tree.root.hex())


def shuffled(image: bytes, seed: int = 3) -> bytes:
    blocks = [image[at : at + BLOCK_BYTES] for at in range(0, len(image), BLOCK_BYTES)]
    random.Random(seed).shuffle(blocks)
    return b"".join(blocks)


@pytest.fixture
def image() -> bytes:
    return make_rootfs(9, blocks=BLOCKS)


def used(
    fd: int, image: bytes, sources: tuple[Source, ...], old: Source | None = None, past: Past = Past.UNKNOWN
) -> TargetPayload:
    """A target after everything that is here was used."""
    target = TargetPayload(fd, tree_of(image), lambda _n: None)
    ready, _ = prepared(sources)
    with direct(fd):
        use_what_is_here(target, ready, old, past)
    for index in range(target.tree.n_blocks):
        block = read_at(fd, index * BLOCK_BYTES, BLOCK_BYTES)
        assert target.tree.verify_block(index, block) or not target.done[index]
    return target


@pytest.mark.parametrize("way", ["tree", "no tree", "checked"])
@pytest.mark.parametrize("change", [lambda image: image, shuffled, lambda image: image[5 * BLOCK_BYTES :]])
def test_blocks_are_copied_wherever_they_lie(
    partition: Partition, image: bytes, way: str, change: Callable[[bytes], bytes]
) -> None:
    fd = partition(image)
    source = source_of(fd, image)
    if way == "no tree":
        source = replace(source, tree_start_block=None, root_hash="")
    elif way == "checked":
        source = replace(source, checked_fd=fd)
    wanted = change(image)
    assert used(partition(b""), wanted, (source,)).complete


def test_a_source_that_lies_is_not_believed(partition: Partition, image: bytes) -> None:
    """The source's tree promises a block that its data does not hold."""
    fd = partition(image)
    write_at(fd, 33 * BLOCK_BYTES, b"rot")
    assert list(used(partition(b""), image, (source_of(fd, image),)).lacking()) == [33]


def test_the_kernels_check_counts_only_under_the_root_that_the_tree_has(partition: Partition, image: bytes) -> None:
    """A tree with another root than the mapping's says nothing about what the mapping gives: blocks are hashed."""
    fd = partition(image)
    write_at(fd, 33 * BLOCK_BYTES, b"rot")
    other = replace(source_of(fd, image), root_hash="ab" * 32, checked_fd=fd)
    ready, base = prepared((other,))
    assert base is None
    assert ready[0].checked_fd is None
    assert list(used(partition(b""), image, (other,)).lacking()) == [33]


def test_a_block_that_the_kernel_refuses_is_left_out(partition: Partition, image: bytes) -> None:
    fd, short = partition(image), partition(b"")
    os.ftruncate(short, 400 * BLOCK_BYTES)  # reading further fails, as a mapping's wrong block does
    write_at(short, 0, image[: 400 * BLOCK_BYTES])
    source = replace(source_of(fd, image), checked_fd=short)
    assert list(used(partition(b""), image, (source,)).lacking()) == list(range(400, BLOCKS))


@pytest.mark.parametrize(("blocks", "start"), [(0, 0), (1, 1), (2**21, 0), (600, 2**30)])
def test_a_source_that_makes_no_sense_gives_nothing(partition: Partition, blocks: int, start: int) -> None:
    source = Source(partition(b""), blocks, start, "ab" * 32)
    assert b"".join(leaf_pieces(source)) == b""
    assert not is_whole(source)


def test_what_the_target_held_before_stays_or_moves(partition: Partition, image: bytes) -> None:
    """No other source, and the target holds the blocks at other places: none is destroyed before it was used."""
    rng = random.Random(8)
    for wanted in (image, shuffled(image), image[BLOCK_BYTES:], image[7 * BLOCK_BYTES :] + image[: 7 * BLOCK_BYTES]):
        fd = partition(image)
        assert used(fd, wanted, (), source_of(again(fd), image)).complete
    fresh = b"".join(rng.randbytes(BLOCK_BYTES) for _ in range(20))
    fd = partition(image)
    target = used(fd, fresh + image, (), source_of(again(fd), image))
    assert list(target.lacking()) == list(range(20))


def test_the_targets_old_tree_is_no_longer_whole_once_it_is_written_to(partition: Partition, image: bytes) -> None:
    """A cut in mid-install must not leave a tree that promises blocks which are gone."""
    fd = partition(image)
    old = source_of(again(fd), image)
    assert is_whole(old)
    used(fd, image, (), old)
    assert is_whole(old)  # nothing was missing, nothing was written
    used(fd, shuffled(image), (), old)
    assert not is_whole(old)


def test_a_half_written_target_is_looked_at(partition: Partition, image: bytes) -> None:
    fd = partition(b"")
    write_at(fd, 0, image[: 300 * BLOCK_BYTES])
    write_at(fd, 301 * BLOCK_BYTES, image[301 * BLOCK_BYTES : 302 * BLOCK_BYTES])
    write_at(fd, 10 * BLOCK_BYTES, b"rot")
    target = used(fd, image, (), None, Past.SAME)
    assert [index for index in range(310) if not target.done[index]] == [10, 300, *range(302, 310)]


def test_another_half_written_release_gives_its_blocks(partition: Partition, image: bytes) -> None:
    """Its tree never came; only hashing everything finds what it left, at other places."""
    fd = partition(b"")
    write_at(fd, 0, image)
    wanted = image[200 * BLOCK_BYTES :] + image[: 200 * BLOCK_BYTES]
    assert not used(fd, wanted, (), None, Past.UNKNOWN).complete
    assert used(fd, wanted, (), None, Past.OTHER).complete


def test_the_first_source_is_the_base_if_it_is_whole(partition: Partition, image: bytes) -> None:
    fd = partition(image)
    source = source_of(fd, image)
    _, base = prepared((source,))
    assert base == tree_of(image)
    write_at(fd, (BLOCKS + 3) * BLOCK_BYTES, b"?")
    assert prepared((source,))[1] is None
    # As in safe mode when its own system is damaged: the better slot is the base, and comes first.
    moved = image[BLOCK_BYTES:] + image[:BLOCK_BYTES]
    second = source_of(partition(moved), moved)
    ready, base = prepared((source, second))
    assert base == tree_of(moved)
    assert ready[0] == second
