"""Makes the patch from one plain payload file to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from zentrid.bundle.encode import Encoded, Frame, Progress, compress, write_stream
from zentrid.bundle.layout import MAX_DICTIONARY_BLOCKS, MAX_FRAME_BLOCKS, Space, Window
from zentrid.bundle.patch import missing_blocks, vanished_blocks
from zentrid.bundle.tree import BLOCK_BYTES, HashTree

LEVEL: Final = 12


def encode_patch(base: BinaryIO, target: BinaryIO, out: BinaryIO, *, progress: Progress | None = None) -> Encoded:
    """Write the patch that makes `target` out of `base` to `out`; all three are seekable, the payloads plain files."""
    trees = []
    for payload in (base, target):
        payload.seek(0)
        trees.append(HashTree.from_reader(payload))
    size_bytes = target.tell()
    base_tree, tree = trees
    missing, vanished = missing_blocks(tree, base_tree), vanished_blocks(tree, base_tree)
    frames = list(_frames(base, target, missing, vanished, progress))
    stream_bytes = write_stream(out, tree, base_tree, missing, frames)
    return Encoded(tree, size_bytes, stream_bytes)


def _frames(
    base: BinaryIO, target: BinaryIO, missing: Sequence[int], vanished: Sequence[int], progress: Progress | None
) -> Iterator[Frame]:
    for first in range(0, len(missing), MAX_FRAME_BLOCKS):
        picked = missing[first : first + MAX_FRAME_BLOCKS]
        middle = len(vanished) * first // len(missing)
        start = max(0, min(middle - MAX_DICTIONARY_BLOCKS // 4, len(vanished) - MAX_DICTIONARY_BLOCKS))
        window = vanished[start : start + MAX_DICTIONARY_BLOCKS]
        dictionary = b"".join(_block(base, place) for place in window)
        data = compress(b"".join(_block(target, place) for place in picked), LEVEL, dictionary)
        yield Frame(len(picked), data, (Window(Space.VANISHED, start, len(window)),) if window else ())
        if progress is not None:
            progress(first + len(picked), len(missing))


def _block(payload: BinaryIO, index: int) -> bytes:
    payload.seek(index * BLOCK_BYTES)
    return payload.read(BLOCK_BYTES).ljust(BLOCK_BYTES, b"\0")
