"""The SHA-256 Merkle tree over 4 KiB blocks that every payload lies under, in dm-verity's format without salt.

The same tree authenticates blocks before they are written, tells which blocks a device already has, is read by
dm-verity at every access to the root file system, and checks the read-back. Source of the format: Linux,
`drivers/md/dm-verity-target.c` (hash type 1); `levels_bytes` is what `veritysetup format --no-superblock --salt=-`
writes.

A payload whose size is no multiple of the block size is filled with zeros up to one; an empty payload is one block of
zeros.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from zentrid.errors import ZentriError

BLOCK_BYTES: Final = 4096
HASH_BYTES: Final = 32
HASHES_PER_BLOCK: Final = BLOCK_BYTES // HASH_BYTES
MAX_BLOCKS: Final = 1 << 20
"""4 GiB of payload; its leaf hashes are 32 MiB."""
MAX_PAYLOAD_BYTES: Final = MAX_BLOCKS * BLOCK_BYTES

_READ_BYTES = 256 * BLOCK_BYTES


class TreeError(ZentriError, ValueError):
    """Leaf hashes or a payload that no tree can be made from."""

    reason = "bad_tree"


class Reader(Protocol):
    """What payloads are read from: any binary file opened for reading."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end only."""


def hash_block(block: bytes | memoryview) -> bytes:
    """Return the SHA-256 of one block (32 bytes)."""
    return hashlib.sha256(block).digest()


def blocks_for(size_bytes: int) -> int:
    """Return how many blocks a payload of `size_bytes` has; at least one. Raises TreeError if that is too many."""
    if not 0 <= size_bytes <= MAX_PAYLOAD_BYTES:
        raise TreeError(f"a payload of {size_bytes} bytes is outside the limit of {MAX_PAYLOAD_BYTES}: make it smaller")
    return max(1, -(-size_bytes // BLOCK_BYTES))


def tree_bytes_for(n_blocks: int) -> int:
    """Return the length of `levels_bytes` for a payload of `n_blocks` (bytes); 0 for one block."""
    total = 0
    while n_blocks > 1:
        n_blocks = -(-n_blocks // HASHES_PER_BLOCK)
        total += n_blocks * BLOCK_BYTES
    return total


def read_exactly(stream: Reader, size: int) -> bytes:
    """Read until `size` bytes are there or the stream ends (raw and network streams may give less at a time)."""
    first = stream.read(size)
    if len(first) == size or not first:
        return first
    parts = [first]
    missing = size - len(first)
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def read_blocks(stream: Reader, max_blocks: int = MAX_BLOCKS) -> Iterator[bytes]:
    """Yield the payload's blocks, the last one filled with zeros; raise TreeError after `max_blocks`."""
    count = 0
    while chunk := read_exactly(stream, _READ_BYTES):
        chunk += bytes(-len(chunk) % BLOCK_BYTES)
        count += len(chunk) // BLOCK_BYTES
        if count > max_blocks:
            raise TreeError(f"the payload has more than {max_blocks} blocks of {BLOCK_BYTES} bytes: make it smaller")
        for start in range(0, len(chunk), BLOCK_BYTES):
            yield chunk[start : start + BLOCK_BYTES]
    if not count:
        yield bytes(BLOCK_BYTES)


def _parent_level(level: bytes) -> bytes:
    """Return the hashes of a level's blocks, the level filled with zeros to whole blocks."""
    view = memoryview(level)
    whole = len(view) - len(view) % BLOCK_BYTES
    hashes = [hash_block(view[start : start + BLOCK_BYTES]) for start in range(0, whole, BLOCK_BYTES)]
    if whole < len(view):
        # Only the last block is filled up: a whole level may be large.
        hashes.append(hash_block(bytes(view[whole:]).ljust(BLOCK_BYTES, b"\0")))
    return b"".join(hashes)


class HashTree:
    """The tree of one payload. Immutable; holds the leaf hashes (32 bytes a block) and the root only."""

    __slots__ = ("leaves", "n_blocks", "root")

    leaves: bytes
    """The hashes of all blocks in order, 32 bytes each."""
    n_blocks: int
    root: bytes
    """32 bytes. Of one block: that block's hash, as in the kernel."""

    def __init__(self, leaves: bytes) -> None:
        if not leaves or len(leaves) % HASH_BYTES or len(leaves) > MAX_BLOCKS * HASH_BYTES:
            raise TreeError(
                f"{len(leaves)} bytes of leaf hashes are not 1 to {MAX_BLOCKS} times {HASH_BYTES} bytes: "
                "the tree is damaged, take it again from its source"
            )
        self.leaves = leaves
        self.n_blocks = len(leaves) // HASH_BYTES
        *_, self.root = self._levels()

    @classmethod
    def from_leaves(cls, leaves: bytes | bytearray | memoryview | Iterable[bytes]) -> HashTree:
        """Make the tree from the blocks' hashes, joined or one by one. Raises TreeError if they make none."""
        if isinstance(leaves, (bytes, bytearray, memoryview)):
            return cls(bytes(leaves))
        parts = list(leaves)
        if any(len(part) != HASH_BYTES for part in parts):
            raise TreeError(f"a leaf hash is not {HASH_BYTES} bytes long: give one SHA-256 for each block")
        return cls(b"".join(parts))

    @classmethod
    def from_reader(cls, stream: Reader, max_blocks: int = MAX_BLOCKS) -> HashTree:
        """Make the tree of everything that `stream` still gives. Raises TreeError after `max_blocks`, or OSError."""
        return cls(b"".join(hash_block(block) for block in read_blocks(stream, max_blocks)))

    def _levels(self) -> Iterator[bytes]:
        """Yield the leaves, then each level above, the root last."""
        level = self.leaves
        yield level
        while len(level) > HASH_BYTES:
            level = _parent_level(level)
            yield level

    def leaf(self, index: int) -> bytes:
        """Return the hash of block `index`; IndexError outside the payload."""
        if not 0 <= index < self.n_blocks:
            raise IndexError(index)
        return self.leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def verify_block(self, index: int, block: bytes | memoryview) -> bool:
        """Tell whether `block` (4096 bytes) is block `index` of the payload; False outside the payload too."""
        if not 0 <= index < self.n_blocks or len(block) != BLOCK_BYTES:
            return False
        return hash_block(block) == self.leaf(index)

    def levels_bytes(self) -> bytes:
        """Return the tree as dm-verity reads it after the data: top level first, no superblock, whole blocks.

        Empty for a payload of one block: the kernel then compares the block with the root hash itself.
        """
        if self.n_blocks == 1:
            return b""
        return b"".join(self.level_pieces())

    def level_pieces(self) -> Iterator[bytes]:
        """Yield `levels_bytes` in pieces that need no second copy of the leaves: a level, its filling, the next one."""
        for level in reversed(list(self._levels())[:-1]):
            yield level
            yield bytes(-len(level) % BLOCK_BYTES)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashTree) and self.leaves == other.leaves

    def __hash__(self) -> int:
        return hash(self.root)

    def __repr__(self) -> str:
        return f"HashTree({self.n_blocks} blocks, root {self.root.hex()})"


class LeafIndex:
    """Finds leaf hashes in a tree: a hash table of 8 to 16 bytes a block, where a dict would take some 150."""

    __slots__ = ("_leaves", "_mask", "_places")

    def __init__(self, tree: HashTree) -> None:
        self._leaves = tree.leaves
        size = 1 << (2 * tree.n_blocks - 1).bit_length()
        self._mask = size - 1
        self._places = array("I", bytes(4 * size))
        """Index of a block plus one, where its hash or a colliding one leads to; 0: free."""
        for index in range(tree.n_blocks):
            place, found = self._look_up(tree.leaf(index))
            if found is None:
                self._places[place] = index + 1

    def _look_up(self, leaf: bytes) -> tuple[int, int | None]:
        # Python's own hash is keyed: leaf hashes from outside cannot be chosen to collide.
        place = hash(leaf) & self._mask
        while entry := self._places[place]:
            if self._leaves[(entry - 1) * HASH_BYTES : entry * HASH_BYTES] == leaf:
                return place, entry - 1
            place = (place + 1) & self._mask
        return place, None

    def find(self, leaf: bytes) -> int | None:
        """Return the index of the first block with this hash (32 bytes); None if there is none."""
        return self._look_up(leaf)[1]
