"""A payload taking shape on a partition: which of its blocks are there already, and writing those that are not.

A block is written only if it was hashed against the signed tree, or read through the kernel's own verity check. What an old
hash tree on the target promises is believed while writing and judged by the read-back.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from zentrid.adapters.blockdev import DIRECT_BYTES, DirectReader, read_into, set_direct, size_bytes, write_at
from zentrid.bundle.leafset import only_in
from zentrid.bundle.tree import BLOCK_BYTES, HASH_BYTES, HashTree, hash_block
from zentrid.update.errors import PayloadError

CHUNK_BLOCKS: Final = DIRECT_BYTES // BLOCK_BYTES

Step = Callable[[int], None]
"""Called with a number of blocks that are done now."""


class Buffer:
    """One piece of memory for reading and writing past the page cache. Each read invalidates the one before."""

    def __init__(self, size_bytes: int = DIRECT_BYTES) -> None:
        self.view = memoryview(mmap.mmap(-1, size_bytes))

    def read(self, fd: int, block: int, blocks: int = 1) -> memoryview:
        """Return `blocks` blocks (at most 256) from block `block` on. Raises OSError."""
        view = self.view[: blocks * BLOCK_BYTES]
        read_into(fd, block * BLOCK_BYTES, view)
        return view


@contextmanager
def direct(fd: int) -> Iterator[None]:
    """Let everything on `fd` go past the page cache, if it can."""
    os.fsync(fd)
    set_direct(fd, True)
    try:
        yield
    finally:
        set_direct(fd, False)


class TargetPayload:
    """One payload on its partition, block by block."""

    def __init__(self, fd: int, tree: HashTree, step: Step) -> None:
        self.fd = fd
        self.tree = tree
        self.done = bytearray(tree.n_blocks)
        """1 for each block that is known to be on the partition."""
        self.buffer = Buffer()
        """For whoever reads or writes blocks of this target."""
        self._twins = _twins(tree)
        self._step = step
        self._pending = Buffer()
        self._pending_start = self._pending_blocks = 0

    @property
    def complete(self) -> bool:
        """Whether every block is there."""
        return 0 not in self.done

    def lacking(self) -> Iterator[int]:
        """Yield the blocks that are not there; marking them meanwhile is allowed."""
        index = self.done.find(0)
        while index >= 0:
            yield index
            index = self.done.find(0, index + 1)

    def has_all(self, firsts: Sequence[int]) -> bool:
        """Tell whether these blocks, and all that are equal to one of them, are there."""
        if 0 in map(self.done.__getitem__, firsts):
            return False
        with_twins = self._twins.keys() & set(firsts) if self._twins else ()
        return all(self.done[twin] for first in with_twins for twin in self._twins[first])

    def mark(self, start: int, blocks: int) -> None:
        """Note that blocks are there."""
        news = blocks - self.done.count(1, start, start + blocks)
        self.done[start : start + blocks] = b"\1" * blocks
        self._step(news)

    def unmark(self, index: int) -> None:
        """Note that a block is not there after all."""
        self.done[index] = 0

    def put(self, first: int, block: bytes | memoryview) -> bool:
        """Write `block` where it belongs, `first` and its equals; False, and nothing written, if it is the wrong block."""
        if not self.tree.verify_block(first, block):
            return False
        for index in (first, *self._twins.get(first, ())):
            if not self.done[index]:
                self._write(index, block)
        return True

    def put_one(self, index: int, block: bytes | memoryview) -> bool:
        """As `put`, at this one place."""
        right = self.tree.verify_block(index, block)
        if right and not self.done[index]:
            self._write(index, block)
        return right

    def put_run(self, start: int, blocks: memoryview) -> None:
        """Write consecutive blocks that were checked already; they lie in a `Buffer`."""
        self.flush()
        write_at(self.fd, start * BLOCK_BYTES, blocks)
        self.mark(start, len(blocks) // BLOCK_BYTES)

    def flush(self) -> None:
        """Hand everything to the kernel."""
        if self._pending_blocks:
            view = self._pending.view[: self._pending_blocks * BLOCK_BYTES]
            write_at(self.fd, self._pending_start * BLOCK_BYTES, view)
            self._pending_blocks = 0

    def check(self, index: int) -> bool:
        """Find out, by its hash, whether a block is there; it is then marked."""
        right = self.tree.verify_block(index, self.buffer.read(self.fd, index))
        if right:
            self.mark(index, 1)
        return right

    def check_all(self) -> None:
        """Find out, by hashing everything, which blocks are there."""
        for start in range(0, self.tree.n_blocks, CHUNK_BLOCKS):
            count = min(CHUNK_BLOCKS, self.tree.n_blocks - start)
            data = self.buffer.read(self.fd, start, count)
            for number in range(count):
                if self.tree.verify_block(start + number, data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]):
                    self.mark(start + number, 1)

    def hashes_of_all(self) -> Iterator[bytes]:
        """Yield the hashes of everything on the partition, whatever it is."""
        room = size_bytes(self.fd) // BLOCK_BYTES
        for start in range(0, room, CHUNK_BLOCKS):
            data = self.buffer.read(self.fd, start, min(CHUNK_BLOCKS, room - start))
            yield b"".join(hash_block(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES))

    def _write(self, index: int, block: bytes | memoryview) -> None:
        if index != self._pending_start + self._pending_blocks or self._pending_blocks >= CHUNK_BLOCKS:
            self.flush()
        if not self._pending_blocks:
            self._pending_start = index
        at = self._pending_blocks * BLOCK_BYTES
        self._pending.view[at : at + BLOCK_BYTES] = block
        self._pending_blocks += 1
        self.mark(index, 1)


def _twins(tree: HashTree) -> dict[int, list[int]]:
    """Return first block → the others that are equal to it, for those that have any."""
    firsts = only_in(tree.leaves)
    if len(firsts) == tree.n_blocks:
        return {}
    is_first = bytearray(tree.n_blocks)
    for index in firsts:
        is_first[index] = 1
    others: dict[bytes, list[int]] = {}
    index = is_first.find(0)
    while index >= 0:
        others.setdefault(tree.leaf(index), []).append(index)
        index = is_first.find(0, index + 1)
    leaves = tree.leaves
    found = {}
    for first in firsts:
        twins = others.get(leaves[first * HASH_BYTES : (first + 1) * HASH_BYTES])
        if twins:
            found[first] = twins
    return found


def write_tree(target: TargetPayload) -> None:
    """Write the verity tree behind the data, which must be on the medium by then."""
    offset, buffer = target.tree.n_blocks * BLOCK_BYTES, target.buffer.view
    filled = 0
    for piece in target.tree.level_pieces():
        at = 0
        while at < len(piece):
            size = min(len(piece) - at, len(buffer) - filled)
            buffer[filled : filled + size] = memoryview(piece)[at : at + size]
            filled, at = filled + size, at + size
            if filled == len(buffer):
                write_at(target.fd, offset, buffer)
                offset, filled = offset + filled, 0
    write_at(target.fd, offset, buffer[:filled])


def read_back(fd: int, tree: HashTree, step: Step, *, with_tree: bool) -> Iterator[int]:
    """Read everything from the medium and compare it with the signed tree; yields each wrong block.

    A wrong place of the hash tree behind the data is the block beyond the last one, once. Raises OSError.
    """
    with DirectReader(fd) as medium:
        for start in range(0, tree.n_blocks, CHUNK_BLOCKS):
            count = min(CHUNK_BLOCKS, tree.n_blocks - start)
            data = medium.read(start * BLOCK_BYTES, count * BLOCK_BYTES)
            for number in range(count):
                block = data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
                if len(block) != BLOCK_BYTES or hash_block(block) != tree.leaf(start + number):
                    yield start + number
            step(count)
        offset = tree.n_blocks * BLOCK_BYTES
        for piece in tree.level_pieces() if with_tree else ():
            for at in range(0, len(piece), DIRECT_BYTES):
                part = memoryview(piece)[at : at + DIRECT_BYTES]
                # Pieces end inside blocks where their filling follows; the reader takes whole blocks.
                start, skip = offset // BLOCK_BYTES * BLOCK_BYTES, offset % BLOCK_BYTES
                if medium.read(start, min(skip + len(part), DIRECT_BYTES))[skip:] != part:
                    yield tree.n_blocks
                    return
                offset += len(part)


def not_as_written(name: str, block: int, n_blocks: int) -> PayloadError:
    """Return the error for a wrong block that the read-back found."""
    if block >= n_blocks:
        return PayloadError(f"the hash tree of the {name} is not on the disk as it was written; check the disk")
    return PayloadError(f"block {block} of the {name} is not on the disk as it was written; check the disk")
