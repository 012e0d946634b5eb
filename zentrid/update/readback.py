"""The read-back that the kernel does: a verity mapping with the manifest's root hash over the target, read to its end.

The supervisor makes and reads it. A worker that somebody has taken over cannot say that a slot is right when it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from zentrid.adapters import dmverity
from zentrid.bundle.tree import blocks_for
from zentrid.update.errors import PayloadError
from zentrid.update.protocol import ItemSpec
from zentrid.update.target import not_as_written

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
        mapping = dmverity.make(f"{dmverity.PREFIX}readback", item.fd, item.root_hash, n_blocks)
        try:
            told = 0
            for done in dmverity.read_through(mapping):
                if done - told >= _BLOCKS_A_STEP or done == n_blocks:
                    told = done
                    yield done
        finally:
            dmverity.remove(mapping)
    except dmverity.BadBlockError as error:
        raise WrongBlockError(str(not_as_written(item.name, error.block, n_blocks))) from error
    except OSError as error:
        raise PayloadError(f"{item.name}: the target cannot be read back ({error.strerror}); check the disk") from error
