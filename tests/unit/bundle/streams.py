"""Patch streams for the tests, and what puts a payload together again as a device would."""

import io
from collections.abc import Sequence

from tests.unit.bundle.making import block, full, noise
from zentrid.bundle.encode import Frame, compress, write_stream
from zentrid.bundle.layout import Space, Window
from zentrid.bundle.patch import (
    missing_blocks,
    unpack_full,
    vanished_blocks,
)
from zentrid.bundle.tree import BLOCK_BYTES, HashTree

SMALL = noise(3 * BLOCK_BYTES, "small") + block(9) + bytes(BLOCK_BYTES) + block(9) + b"end"
SMALL_INFO, SMALL_STREAM = full(SMALL)


def tree_of(payload: bytes) -> HashTree:
    return HashTree.from_reader(io.BytesIO(payload))


def unpacked(stream: bytes, root: bytes, size_bytes: int) -> bytes:
    """Return the payload that a stream holds, put together as a device would."""
    result = bytearray(-(-max(size_bytes, 1) // BLOCK_BYTES) * BLOCK_BYTES)
    seen: set[int] = set()

    def write_at(offset: int, data: bytes) -> None:
        assert offset not in seen
        seen.add(offset)
        result[offset : offset + BLOCK_BYTES] = data

    unpack_full(io.BytesIO(stream), root, size_bytes, write_at)
    assert len(seen) * BLOCK_BYTES == len(result)
    return bytes(result[:size_bytes])


BASE = b"".join(noise(BLOCK_BYTES, f"base{number}") for number in range(8)) + block(5) + block(5)
# Blocks 2 and 3 are edited, block 6 goes away, one is quite new.
EDITED = bytearray(BASE)
EDITED[2 * BLOCK_BYTES + 100] ^= 1
EDITED[3 * BLOCK_BYTES + 200] ^= 1
TARGET = bytes(EDITED[: 6 * BLOCK_BYTES] + EDITED[7 * BLOCK_BYTES :]) + block(77)


def blocks_at(payload: bytes, indices: Sequence[int]) -> bytes:
    return b"".join(payload[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES] for index in indices)


def delta() -> tuple[bytes, HashTree, HashTree]:
    """Return a patch with windows from BASE to TARGET, and both trees."""
    base, target = tree_of(BASE), tree_of(TARGET)
    missing, vanished = missing_blocks(target, base), vanished_blocks(target, base)
    plain, window = blocks_at(TARGET, missing), blocks_at(BASE, vanished)
    frames = [
        Frame(2, compress(plain[: 2 * BLOCK_BYTES], 12, window[: 2 * BLOCK_BYTES]), (Window(Space.VANISHED, 0, 2),)),
        Frame(1, compress(plain[2 * BLOCK_BYTES :], 12)),
    ]
    out = io.BytesIO()
    write_stream(out, target, base, missing, frames)
    return out.getvalue(), base, target
