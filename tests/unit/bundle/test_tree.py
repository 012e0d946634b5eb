"""The hash tree: the same as the real veritysetup's, its padding, its limits."""

import hashlib
import io
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bundle.making import block, noise
from zentrid.bundle.tree import (
    BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_PAYLOAD_BYTES,
    HashTree,
    LeafIndex,
    TreeError,
    blocks_for,
    read_blocks,
    read_exactly,
    tree_bytes_for,
)

VERITYSETUP = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin:/bin")


class Dripping(io.BytesIO):
    """Gives a few bytes at a time, as a network connection may."""

    def read(self, size=-1, /):
        return super().read(min(size, 700) if size > 0 else size)


@pytest.mark.skipif(VERITYSETUP is None, reason="veritysetup is not installed (package cryptsetup-bin)")
@pytest.mark.parametrize("n_blocks", [1, 2, 127, 128, 129, 16384, 16385])
def test_tree_is_what_veritysetup_writes(n_blocks, tmp_path):
    assert VERITYSETUP is not None
    data, hashes = tmp_path / "data", tmp_path / "hashes"
    data.write_bytes(b"".join(block(number) for number in range(n_blocks)))
    hashes.touch()
    done = subprocess.run(
        [VERITYSETUP, "format", "--no-superblock", "--salt=-", "--hash=sha256", "--data-block-size=4096",
         "--hash-block-size=4096", data, hashes],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    root = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash"))
    with data.open("rb") as stream:
        tree = HashTree.from_reader(stream)
    assert tree.n_blocks == n_blocks
    assert tree.root.hex() == root
    assert tree.levels_bytes() == hashes.read_bytes()
    assert len(tree.levels_bytes()) == tree_bytes_for(n_blocks)


def test_root_of_one_block_is_its_hash_and_there_are_no_levels():
    tree = HashTree.from_reader(io.BytesIO(block(7)))
    assert tree.root == hashlib.sha256(block(7)).digest()
    assert tree.levels_bytes() == b""


@pytest.mark.parametrize("size_bytes", [1, 4095, 4097, 10_000])
def test_a_payload_is_filled_with_zeros_to_whole_blocks(size_bytes):
    payload = noise(size_bytes)
    filled = payload + bytes(-size_bytes % BLOCK_BYTES)
    assert HashTree.from_reader(io.BytesIO(payload)) == HashTree.from_reader(io.BytesIO(filled))
    assert blocks_for(size_bytes) == len(filled) // BLOCK_BYTES


def test_an_empty_payload_is_one_block_of_zeros():
    assert HashTree.from_reader(io.BytesIO()) == HashTree.from_reader(io.BytesIO(bytes(BLOCK_BYTES)))
    assert blocks_for(0) == 1


def test_a_stream_that_gives_little_at_a_time_makes_the_same_tree():
    payload = noise(2_500_000)
    assert HashTree.from_reader(Dripping(payload)) == HashTree.from_reader(io.BytesIO(payload))


def test_read_exactly_stops_at_the_end():
    assert read_exactly(Dripping(b"x" * 1000), 2000) == b"x" * 1000
    assert read_exactly(Dripping(b""), 1) == b""


def test_leaves_joined_or_one_by_one():
    leaves = [hashlib.sha256(bytes([number])).digest() for number in range(200)]
    tree = HashTree.from_leaves(leaves)
    assert tree == HashTree.from_leaves(b"".join(leaves)) == HashTree.from_leaves(bytearray(b"".join(leaves)))
    assert hash(tree) == hash(HashTree.from_leaves(leaves))
    assert tree.leaf(199) == leaves[199]
    with pytest.raises(IndexError):
        tree.leaf(200)


def test_any_changed_leaf_changes_the_root():
    leaves = [bytes([number]) * 32 for number in range(130)]
    roots = {HashTree.from_leaves(leaves).root}
    for index in (0, 127, 128, 129):
        changed = list(leaves)
        changed[index] = bytes(32)
        roots.add(HashTree.from_leaves(changed).root)
    assert len(roots) == 5 - 1  # leaf 0 is all zeros already


def test_verify_block():
    tree = HashTree.from_reader(io.BytesIO(block(0) + block(1)))
    assert tree.verify_block(1, block(1))
    assert tree.verify_block(1, memoryview(block(1)))
    assert not tree.verify_block(1, block(0))
    assert not tree.verify_block(1, block(1)[:-1])
    assert not tree.verify_block(2, block(1))
    assert not tree.verify_block(-1, block(1))


@pytest.mark.parametrize("leaves", [b"", b"x" * 31, b"x" * 33, [b"x" * 31, b"x" * 33], []])
def test_what_are_no_leaf_hashes_is_refused(leaves):
    with pytest.raises(TreeError):
        HashTree.from_leaves(leaves)


@pytest.mark.parametrize("size_bytes", [-1, MAX_PAYLOAD_BYTES + 1])
def test_sizes_outside_the_limit_are_refused(size_bytes):
    with pytest.raises(TreeError, match="limit"):
        blocks_for(size_bytes)
    assert blocks_for(MAX_PAYLOAD_BYTES) == MAX_BLOCKS


def test_reading_stops_at_the_limit_of_blocks():
    assert len(list(read_blocks(io.BytesIO(bytes(3 * BLOCK_BYTES)), max_blocks=3))) == 3
    with pytest.raises(TreeError, match="more than 3"):
        list(read_blocks(io.BytesIO(bytes(3 * BLOCK_BYTES + 1)), max_blocks=3))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=100), st.integers(0, 50))
def test_an_index_finds_the_first_of_equal_blocks(numbers, wanted):
    leaves = [bytes([number]) * 32 for number in numbers]
    found = LeafIndex(HashTree.from_leaves(leaves)).find(bytes([wanted]) * 32)
    assert found == (numbers.index(wanted) if wanted in numbers else None)


@given(st.integers(1, MAX_BLOCKS))
def test_the_tree_takes_less_than_a_hundredth_and_a_block_for_each_level(n_blocks):
    assert tree_bytes_for(n_blocks) <= n_blocks * BLOCK_BYTES / 126 + 3 * BLOCK_BYTES
