"""Makes sure that a patch makes its target: decoded as a device would, from the base and what earlier frames gave."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from zentrid.bundle.patch import PatchError, PatchHeader, decode_frame, missing_blocks, vanished_blocks, window_places
from zentrid.bundle.tree import BLOCK_BYTES, HashTree, Reader, read_exactly


@dataclass(frozen=True)
class Verified:
    """A patch that makes its target."""

    size_bytes: int
    sha256: str


class _Hashing:
    """Reads a stream and hashes what was read, so that what is verified is what is hashed."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        self.size_bytes += len(data)
        return data


def verify_patch(patch: Reader, base: BinaryIO, base_root: str, target_root: str, scratch: BinaryIO) -> Verified:
    """Decode a whole patch against its base, a plain payload file; check every block and the target's root.

    `scratch`, an empty file for reading and writing, gets the blocks that the frames give, at their places in the target.
    Raises PatchError when the patch does not make exactly the target, or OSError.
    """
    reader = _Hashing(patch)
    header = PatchHeader.read(reader)
    base.seek(0)
    base_tree = HashTree.from_reader(base)
    if base_tree.root.hex() != base_root or header.target_root.hex() != target_root:
        raise PatchError("is from another base or for another target")
    # The leaf hashes give the target's root, so a target whose blocks all match them is the target.
    tree = header.decode_leaves(read_exactly(reader, header.leaf_bytes), base_tree)
    missing, vanished = missing_blocks(tree, base_tree), vanished_blocks(tree, base_tree)
    for index, frame in enumerate(header.frames):
        data = read_exactly(reader, frame.compressed_bytes)
        places = window_places(header, index, missing, vanished)
        dictionary = b"".join(block_at(base if place.in_base else scratch, place.index) for place in places)
        for ordinal, block in enumerate(decode_frame(header, index, data, dictionary), start=frame.first):
            if not tree.verify_block(missing[ordinal], block):
                raise PatchError(f"frame {index} gives a wrong block {missing[ordinal]}")
            scratch.seek(missing[ordinal] * BLOCK_BYTES)
            scratch.write(block)
    if reader.read(1):
        raise PatchError("goes on after its last frame")
    return Verified(reader.size_bytes, reader.digest.hexdigest())


def block_at(payload: BinaryIO, index: int) -> bytes:
    """Return one block of a plain payload file, the last one filled with zeros."""
    payload.seek(index * BLOCK_BYTES)
    return read_exactly(payload, BLOCK_BYTES).ljust(BLOCK_BYTES, b"\0")
