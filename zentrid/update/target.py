"""A payload taking shape on a partition: which of its blocks are there already, and writing those that are not.

Every block is hashed against the signed tree before it is written. Nothing here trusts what the partition says about itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zentrid.adapters.blockdev import DIRECT_BYTES, DirectReader, read_at, size_bytes, write_at
from zentrid.bundle.tree import (
    BLOCK_BYTES,
    HASH_BYTES,
    HASHES_PER_BLOCK,
    MAX_BLOCKS,
    HashTree,
    hash_block,
    tree_bytes_for,
)
from zentrid.update.errors import PayloadError

CHUNK_BLOCKS: Final = 256
_SAMPLES: Final = (0, 85, 170, 255)
"""Which blocks of a chunk are looked at first: a chunk of which none is right is not looked at further."""

Step = Callable[[int], None]
"""Called with a number of blocks that are done now."""


@dataclass(frozen=True)
class Source:
    """A partition whose blocks may be of use: the running slot's, the safe-mode system's."""

    fd: int
    data_blocks: int | None = None
    """From its verity table; None: it has none, its blocks are hashed one by one."""
    tree_start_block: int = 0


class TargetPayload:
    """One payload on its partition, block by block."""

    def __init__(self, fd: int, tree: HashTree, step: Step) -> None:
        self.fd = fd
        self.tree = tree
        self.done = bytearray(tree.n_blocks)
        """1 for each block that is known to be on the partition."""
        self.first_of: dict[bytes, int] = {}
        """Leaf hash → the first block that has it."""
        self._twins: dict[int, list[int]] = {}
        """First block → the others that are equal to it."""
        self._step = step
        self._pending_start = 0
        self._pending: list[bytes] = []
        for index in range(tree.n_blocks):
            first = self.first_of.setdefault(tree.leaf(index), index)
            if first != index:
                self._twins.setdefault(first, []).append(index)

    @property
    def complete(self) -> bool:
        """Whether every block is there."""
        return 0 not in self.done

    def has(self, first: int) -> bool:
        """Tell whether the block `first` and all that are equal to it are there."""
        return bool(self.done[first]) and all(self.done[twin] for twin in self._twins.get(first, ()))

    def put(self, first: int, block: bytes) -> bool:
        """Write `block` where it belongs, `first` and its equals; False, and nothing written, if it is the wrong block."""
        if not self.tree.verify_block(first, block):
            return False
        for index in (first, *self._twins.get(first, ())):
            if not self.done[index]:
                self._write(index, block)
        return True

    def flush(self) -> None:
        """Hand everything to the kernel."""
        if self._pending:
            write_at(self.fd, self._pending_start * BLOCK_BYTES, b"".join(self._pending))
            self._pending = []

    def scan(self) -> None:
        """Find out which blocks are there already: from an interrupted run, or equal in the version before."""
        for start in range(0, self.tree.n_blocks, CHUNK_BLOCKS):
            count = min(CHUNK_BLOCKS, self.tree.n_blocks - start)
            if any(self._is_right(start + sample) for sample in _SAMPLES if sample < count):
                self._scan_chunk(start, count)
        for first, twins in self._twins.items():
            group = (first, *twins)
            there = next((index for index in group if self.done[index]), None)
            if there is not None and not self.has(first):
                self.put(first, read_at(self.fd, there * BLOCK_BYTES, BLOCK_BYTES))
        self.flush()

    def _is_right(self, index: int) -> bool:
        return self.tree.verify_block(index, read_at(self.fd, index * BLOCK_BYTES, BLOCK_BYTES))

    def _scan_chunk(self, start: int, count: int) -> None:
        data = memoryview(read_at(self.fd, start * BLOCK_BYTES, count * BLOCK_BYTES))
        for number in range(len(data) // BLOCK_BYTES):
            block = data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            if self.tree.verify_block(start + number, block):
                self.done[start + number] = 1
                self._step(1)

    def _write(self, index: int, block: bytes) -> None:
        if self._pending and (index != self._pending_start + len(self._pending) or len(self._pending) >= CHUNK_BLOCKS):
            self.flush()
        if not self._pending:
            self._pending_start = index
        self._pending.append(block)
        self.done[index] = 1
        self._step(1)


def leaves_of(source: Source) -> bytes:
    """Return what the source claims its blocks' hashes are (32 bytes each): from its verity tree, or by hashing it all.

    Only a hint: whoever uses a block hashes it first. Empty when the source cannot be read or makes no sense.
    """
    try:
        if source.data_blocks is None:
            return _hashed(source.fd)
        if not 1 < source.data_blocks <= MAX_BLOCKS:
            return b""
        last_level = -(-source.data_blocks // HASHES_PER_BLOCK) * BLOCK_BYTES
        offset = source.tree_start_block * BLOCK_BYTES + tree_bytes_for(source.data_blocks) - last_level
        return read_at(source.fd, offset, source.data_blocks * HASH_BYTES)
    except OSError:
        return b""


def _hashed(fd: int) -> bytes:
    hashes: list[bytes] = []
    for offset in range(0, min(size_bytes(fd), MAX_BLOCKS * BLOCK_BYTES), CHUNK_BLOCKS * BLOCK_BYTES):
        data = memoryview(read_at(fd, offset, CHUNK_BLOCKS * BLOCK_BYTES))
        whole = len(data) - len(data) % BLOCK_BYTES
        hashes += [hash_block(data[start : start + BLOCK_BYTES]) for start in range(0, whole, BLOCK_BYTES)]
    return b"".join(hashes)


def copy_known(target: TargetPayload, source: Source, leaves: bytes) -> None:
    """Copy every block that the source has and the target lacks. A block that is not what its hash says is left out."""
    run: list[int] = []
    run_start = 0
    n_blocks = len(leaves) // HASH_BYTES
    for index in range(n_blocks + 1):
        leaf = leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]
        first = target.first_of.get(leaf)
        wanted = first is not None and not target.has(first)
        if run and (not wanted or len(run) >= CHUNK_BLOCKS):
            _copy_run(target, source, run_start, run)
            run = []
        if wanted and first is not None:
            run_start = run_start if run else index
            run.append(first)
    target.flush()


def _copy_run(target: TargetPayload, source: Source, start: int, firsts: list[int]) -> None:
    try:
        data = read_at(source.fd, start * BLOCK_BYTES, len(firsts) * BLOCK_BYTES)
    except OSError:
        return
    for number, first in enumerate(firsts):
        target.put(first, data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])


def write_tree(fd: int, tree: HashTree) -> None:
    """Write the verity tree behind the data."""
    write_at(fd, tree.n_blocks * BLOCK_BYTES, tree.levels_bytes())


def read_back(name: str, fd: int, tree: HashTree, step: Step, *, with_tree: bool) -> None:
    """Read everything from the medium and compare it with the signed tree. Raises PayloadError naming the first wrong block."""
    with DirectReader(fd) as medium:
        for start in range(0, tree.n_blocks, DIRECT_BYTES // BLOCK_BYTES):
            count = min(DIRECT_BYTES // BLOCK_BYTES, tree.n_blocks - start)
            data = medium.read(start * BLOCK_BYTES, count * BLOCK_BYTES)
            for number in range(count):
                if not tree.verify_block(start + number, data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]):
                    raise PayloadError(
                        f"block {start + number} of the {name} is not on the disk as it was written; check the disk"
                    )
            step(count)
        expected = memoryview(tree.levels_bytes() if with_tree else b"")
        offset = tree.n_blocks * BLOCK_BYTES
        for at in range(0, len(expected), DIRECT_BYTES):
            part = expected[at : at + DIRECT_BYTES]
            if medium.read(offset + at, len(part)) != part:
                raise PayloadError(f"the hash tree of the {name} is not on the disk as it was written; check the disk")
