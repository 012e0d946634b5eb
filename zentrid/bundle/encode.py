"""Making patch streams. The device never does this; the host tools and the DMS do.

The same payload gives the same stream, byte by byte, with the same version of libzstd: one thread, no time, no chance.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

import zstandard

from zentrid.bundle.patch import (
    FIXED,
    FORMAT,
    FROM_NOTHING,
    MAGIC,
    MAX_FRAME_BLOCKS,
    TABLE_ENTRY,
    PatchError,
    missing_blocks,
    raw_dictionary,
)
from zentrid.bundle.tree import HashTree, read_blocks

FULL_LEVEL: Final = 12
"""zstd level of full payloads."""
LEAF_LEVEL: Final = 3
"""zstd level of leaf hashes: they do not compress, apart from repeated ones."""

Progress = Callable[[int, int], object]
"""Called with blocks done and blocks in all."""


@dataclass(frozen=True)
class Encoded:
    """What was encoded."""

    tree: HashTree
    size_bytes: int
    """The payload's true size."""
    stream_bytes: int
    """The length of the patch stream."""


class Frame(NamedTuple):
    """One compressed frame on its way into a stream."""

    blocks: int
    data: bytes
    window_start: int = 0
    window_blocks: int = 0


def compress(plain: bytes, level: int, dictionary: bytes = b"") -> bytes:
    """Return one zstd frame that says its size and has no checksum (the tree checks every block)."""
    # Parameters come from the level and this frame's own size, so that no other frame has an influence.
    compressor = zstandard.ZstdCompressor(
        level=level, dict_data=raw_dictionary(dictionary), write_content_size=True, write_checksum=False, threads=0
    )
    return compressor.compress(plain)


def encode_full(
    payload: BinaryIO, out: BinaryIO, *, level: int = FULL_LEVEL, progress: Progress | None = None
) -> Encoded:
    """Write the patch from nothing of `payload` to `out`, both seekable, both from where they stand.

    The payload is read twice. Raises PatchError if it was changed in between, TreeError if it is too large, or OSError.
    """
    start = payload.tell()
    tree = HashTree.from_reader(payload)
    size_bytes = payload.tell() - start
    payload.seek(start)
    missing = missing_blocks(tree)
    frames = _full_frames(tree, _pick(read_blocks(payload), missing, tree), missing, level, progress)
    stream_bytes = write_stream(out, tree, None, missing, frames)
    return Encoded(tree, size_bytes, stream_bytes)


def _pick(blocks: Iterator[bytes], wanted: Sequence[int], tree: HashTree) -> Iterator[bytes]:
    """Yield the wanted blocks (ascending), each checked against the tree of the first reading."""
    ordinals = iter(wanted)
    following = next(ordinals, None)
    for index, block in enumerate(blocks):
        if not tree.verify_block(index, block):
            raise PatchError(f"the payload was changed while it was read (block {index})")
        if index == following:
            yield block
            following = next(ordinals, None)
    if following is not None:
        raise PatchError("the payload was cut short while it was read")


def _full_frames(
    tree: HashTree, blocks: Iterator[bytes], missing: Sequence[int], level: int, progress: Progress | None
) -> Iterator[Frame]:
    for first in range(0, len(missing), MAX_FRAME_BLOCKS):
        ordinals = missing[first : first + MAX_FRAME_BLOCKS]
        plain = b"".join(next(blocks) for _ in ordinals)
        yield Frame(len(ordinals), compress(plain, level))
        if progress is not None:
            progress(ordinals[-1] + 1, tree.n_blocks)
    # What is left of the payload came before; going to its end makes sure that it did not change.
    if next(blocks, None) is not None:
        raise AssertionError("more blocks than the tree has missing ones")


def write_stream(
    out: BinaryIO, tree: HashTree, base: HashTree | None, missing: Sequence[int], frames: Iterable[Frame]
) -> int:
    """Write header, leaf section and frames to `out` (seekable) where it stands; return the stream's length (bytes).

    `frames` together hold the blocks `missing`, in order; as an iterator, each but the last must be as large as can be,
    because the room for the frame table is left before the first one is made.
    """
    leaf_section = compress(tree.leaves, LEAF_LEVEL, b"" if base is None else base.leaves)
    n_frames = len(frames) if isinstance(frames, (list, tuple)) else -(-len(missing) // MAX_FRAME_BLOCKS)
    start = out.tell()
    out.seek(start + FIXED.size + TABLE_ENTRY.size * n_frames)
    out.write(leaf_section)
    table = io.BytesIO()
    for frame in frames:
        out.write(frame.data)
        table.write(TABLE_ENTRY.pack(frame.blocks, 0, len(frame.data), frame.window_start, frame.window_blocks))
    end = out.tell()
    if table.tell() != TABLE_ENTRY.size * n_frames:
        raise AssertionError("the frames are not as many as was said")
    out.seek(start)
    out.write(
        FIXED.pack(
            MAGIC,
            FORMAT,
            0,
            FROM_NOTHING if base is None else base.root,
            tree.root,
            tree.n_blocks,
            0 if base is None else base.n_blocks,
            len(missing),
            n_frames,
            len(leaf_section),
            0,
        )
    )
    out.write(table.getvalue())
    out.seek(end)
    return end - start
