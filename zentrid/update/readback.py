"""The read-back that the kernel does: a verity mapping with the manifest's root hash over the target, read to its end.

The supervisor makes and reads it. A worker that somebody has taken over cannot say that a slot is right when it is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence

from zentrid.adapters import dmverity
from zentrid.adapters.blockdev import DIRECT_BYTES, DirectReader
from zentrid.bundle.tree import BLOCK_BYTES, HashTree, blocks_for, hash_block, tree_bytes_for
from zentrid.update.errors import PayloadError
from zentrid.update.protocol import ItemSpec
from zentrid.update.target import CHUNK_BLOCKS, not_as_written

log = logging.getLogger(__name__)

_BLOCKS_A_STEP = 2048


class WrongBlockError(PayloadError):
    """The medium does not hold what was written; once, that is worth a repair."""


def kernel_can_check(fd: int) -> bool:
    """Tell whether the kernel can check what is on `fd`: a block device, and this process may make mappings."""
    return dmverity.is_block_device(fd) and dmverity.available()


async def read_back(items: Sequence[ItemSpec]) -> AsyncGenerator[int, None]:
    """Read all `items` through the kernel's check; yields percent now and then. Raises WrongBlockError or PayloadError."""
    total = max(sum(blocks_for(item.size_bytes) for item in items), 1)
    before = 0
    for item in items:
        steps = _steps(item)
        while (done := await asyncio.to_thread(next, steps, None)) is not None:
            yield (before + done) * 100 // total
        before += blocks_for(item.size_bytes)


def _steps(item: ItemSpec) -> Iterator[int]:
    """Yield how many blocks are right so far."""
    n_blocks = blocks_for(item.size_bytes)
    try:
        try:
            mapping = dmverity.make(f"{dmverity.PREFIX}readback", item.fd, item.root_hash, n_blocks)
        except OSError as error:
            log.warning("update: the kernel does not read %s back (%s): it is hashed here", item.name, error.strerror)
            yield from hashed(item)
            return
        try:
            yield from _sparsely(dmverity.read_through(mapping), n_blocks)
        finally:
            dmverity.remove(mapping)
    except dmverity.BadBlockError as error:
        raise WrongBlockError(str(not_as_written(item.name, error.block, n_blocks))) from error
    except OSError as error:
        raise PayloadError(f"{item.name}: the target cannot be read back ({error.strerror}); check the disk") from error


def _sparsely(steps: Iterator[int], n_blocks: int) -> Iterator[int]:
    told = 0
    for done in steps:
        if done - told >= _BLOCKS_A_STEP or done == n_blocks:
            told = done
            yield done


def hashed(item: ItemSpec) -> Iterator[int]:
    """Do without the kernel what its check does: data and tree on the medium must come to the root. Yields blocks.

    Slower, and just as strict. Raises WrongBlockError, or OSError.
    """
    n_blocks = blocks_for(item.size_bytes)
    leaves = bytearray()
    with DirectReader(item.fd) as medium:
        for start in range(0, n_blocks, CHUNK_BLOCKS):
            count = min(CHUNK_BLOCKS, n_blocks - start)
            data = medium.read(start * BLOCK_BYTES, count * BLOCK_BYTES)
            for at in range(0, count * BLOCK_BYTES, BLOCK_BYTES):
                leaves += hash_block(data[at : at + BLOCK_BYTES])
            yield start + count
        tree = HashTree(bytes(leaves))
        on_disk = bytearray()
        for at in range(0, tree_bytes_for(n_blocks), DIRECT_BYTES):
            size = min(DIRECT_BYTES, tree_bytes_for(n_blocks) - at)
            on_disk += medium.read(n_blocks * BLOCK_BYTES + at, size)
    expected = tree.levels_bytes()
    if tree.root.hex() != item.root_hash or on_disk != expected:
        # The last level of a tree are the leaf hashes; where both differ, or only the tree does, the data tells.
        last_level = -(-len(tree.leaves) // BLOCK_BYTES) * BLOCK_BYTES
        theirs = on_disk[len(on_disk) - last_level :][: len(tree.leaves)]
        wrong = (n for n in range(n_blocks) if theirs[n * 32 : n * 32 + 32] != tree.leaf(n))
        block = n_blocks if tree.root.hex() == item.root_hash else next(wrong, n_blocks)
        raise WrongBlockError(str(not_as_written(item.name, block, n_blocks)))
