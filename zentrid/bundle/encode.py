"""Making patch streams. The device never does this; the host tools and the DMS do.

The same payload gives the same stream, byte by byte, with the same version of libzstd: one thread, no time, no chance.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

import zstandard

from zentrid.bundle.layout import (
    FIXED,
    FORMAT,
    FROM_NOTHING,
    MAGIC,
    MAX_FRAME_BLOCKS,
    TABLE_ENTRY,
    WINDOW_ENTRY,
    FrameKind,
    PatchError,
    Window,
    window_entry,
)
from zentrid.bundle.patch import missing_blocks, raw_dictionary
from zentrid.bundle.runs import find_runs, write_runs
from zentrid.bundle.tree import HashTree, read_blocks

FULL_LEVEL: Final = 12
"""zstd level of full payloads."""
RUNS_LEVEL: Final = 19
"""zstd level of run lists: they are small."""

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
    windows: tuple[Window, ...] = ()
    kind: FrameKind = FrameKind.PLAIN


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
    counts = -(-len(missing) // MAX_FRAME_BLOCKS), 0
    stream_bytes = write_stream(out, tree, None, missing, frames, counts)
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


def leaf_section(tree: HashTree, base: HashTree | None, missing: Sequence[int]) -> tuple[bytes, int]:
    """Return a stream's leaf section and how many of its bytes are the run list."""
    runs = compress(write_runs(find_runs(tree, base)), RUNS_LEVEL)
    return runs + b"".join(tree.leaf(index) for index in missing), len(runs)


def write_stream(
    out: BinaryIO,
    tree: HashTree,
    base: HashTree | None,
    missing: Sequence[int],
    frames: Iterable[Frame],
    counts: tuple[int, int] | None = None,
) -> int:
    """Write header, leaf section and frames to `out` (seekable) where it stands; return the stream's length (bytes).

    `frames` together hold the blocks `missing`, in order. As an iterator it needs `counts`, how many frames and windows
    will come: the room for the tables is left before the first one is made.
    """
    if counts is None:
        frames = list(frames)
        counts = len(frames), sum(len(frame.windows) for frame in frames)
    leaves, runs_bytes = leaf_section(tree, base, missing)
    tables_bytes = TABLE_ENTRY.size * counts[0] + WINDOW_ENTRY.size * counts[1]
    start = out.tell()
    out.seek(start + FIXED.size + tables_bytes)
    out.write(leaves)
    table, windows = io.BytesIO(), io.BytesIO()
    for frame in frames:
        out.write(frame.data)
        table.write(TABLE_ENTRY.pack(frame.blocks - 1, frame.kind, len(frame.windows), 0, len(frame.data)))
        windows.write(b"".join(map(window_entry, frame.windows)))
    end = out.tell()
    tables = table.getvalue() + windows.getvalue()
    if len(tables) != tables_bytes:
        raise AssertionError("the frames and windows are not as many as was said")
    roots = FROM_NOTHING if base is None else base.root, tree.root
    base_blocks = 0 if base is None else base.n_blocks
    out.seek(start)
    out.write(
        FIXED.pack(MAGIC, FORMAT, 0, *roots, tree.n_blocks, base_blocks, len(missing), *counts, runs_bytes) + tables
    )
    out.seek(end)
    return end - start
