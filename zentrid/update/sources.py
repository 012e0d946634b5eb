"""Blocks that the device has already: in the running slot, in the safe-mode system, in what the target held before.

Their hash trees are hints. A tree whose root is right tells what its partition should hold; a block is hashed before it is used,
unless the kernel checks it while it is read (`checked_fd`: a verity mapping under that same root).
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from zentrid.adapters.blockdev import read_at, size_bytes, write_at
from zentrid.bundle.leafset import Run, Wanted, batches, order_moves, same_places
from zentrid.bundle.tree import (
    BLOCK_BYTES,
    HASH_BYTES,
    HASHES_PER_BLOCK,
    MAX_BLOCKS,
    HashTree,
    TreeError,
    hash_block,
    tree_bytes_for,
)
from zentrid.update.target import CHUNK_BLOCKS, TargetPayload

_PIECE_BLOCKS: Final = 32768
"""Leaf hashes are read in pieces of 1 MiB."""
_MAX_MOVES: Final = 32768
_MAX_HELD: Final = 1024
"""Blocks held in memory while others are moved out of their way (4 MiB)."""


@dataclass(frozen=True)
class Source:
    """A partition whose blocks may be of use."""

    fd: int
    data_blocks: int | None = None
    """How many it has; None: as many as fit, with no tree."""
    tree_start_block: int | None = None
    """Where its verity tree begins; None: it has none, its blocks are hashed one by one."""
    root_hash: str = ""
    """What the tree must come to (hexadecimal); empty: not known."""
    checked_fd: int | None = None
    """The same data under the kernel's verity check with that root, opened for direct reading."""
    made: list[bytes] = field(default_factory=list, compare=False)
    """Its blocks' hashes in one piece, as soon as somebody had to make them: hashing a partition twice takes too long."""


def leaf_pieces(source: Source) -> Iterator[bytes]:
    """Yield what the source says its blocks' hashes are, in order; nothing when it cannot be read or makes no sense."""
    with suppress(OSError):
        if source.tree_start_block is None:
            if not source.made:
                source.made.append(b"".join(_hashed(source)))
            yield source.made[0]
            return
        blocks = source.data_blocks or 0
        if not 1 < blocks <= MAX_BLOCKS:
            return
        last_level = -(-blocks // HASHES_PER_BLOCK) * BLOCK_BYTES
        offset = source.tree_start_block * BLOCK_BYTES + tree_bytes_for(blocks) - last_level
        for start in range(0, blocks, _PIECE_BLOCKS):
            size = min(_PIECE_BLOCKS, blocks - start) * HASH_BYTES
            piece = read_at(source.fd, offset + start * HASH_BYTES, size)
            yield piece
            if len(piece) != size:
                return


def _hashed(source: Source) -> Iterator[bytes]:
    room = min(size_bytes(source.fd) // BLOCK_BYTES, MAX_BLOCKS)
    blocks = room if source.data_blocks is None else min(source.data_blocks, room)
    for start in range(0, blocks, CHUNK_BLOCKS):
        data = memoryview(read_at(source.fd, start * BLOCK_BYTES, min(CHUNK_BLOCKS, blocks - start) * BLOCK_BYTES))
        yield b"".join(hash_block(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES))


def prepared(sources: tuple[Source, ...]) -> tuple[tuple[Source, ...], HashTree | None]:
    """Return the sources ready for use, and the tree of the base of patches: of the first source that has one that is whole.

    That source comes first then. The kernel's check is relied upon only where the tree comes to the root that it checks
    against.
    """
    made: list[Source] = []
    base: HashTree | None = None
    for source in sources:
        if base is None:
            base = _tree(source, b"".join(leaf_pieces(source)))
            whole = first = base is not None
        else:
            whole, first = is_whole(source), False
        made.insert(0 if first else len(made), source if whole else replace(source, checked_fd=None))
    return tuple(made), base


def _tree(source: Source, leaves: bytes) -> HashTree | None:
    if source.data_blocks is None or len(leaves) != source.data_blocks * HASH_BYTES:
        return None
    with suppress(TreeError):
        tree = HashTree(leaves)
        if not source.root_hash or tree.root.hex() == source.root_hash:
            return tree
    return None


def is_whole(source: Source) -> bool:
    """Tell whether the source's leaf hashes come to its root, without holding them all."""
    if source.tree_start_block is None or not source.root_hash:
        return False
    upper = bytearray()
    total = 0
    for piece in leaf_pieces(source):
        total += len(piece)
        padded = memoryview(piece + bytes(-len(piece) % BLOCK_BYTES))
        for at in range(0, len(padded), BLOCK_BYTES):
            upper += hashlib.sha256(padded[at : at + BLOCK_BYTES]).digest()
    if total != (source.data_blocks or 0) * HASH_BYTES:
        return False
    with suppress(TreeError):
        return HashTree(bytes(upper)).root.hex() == source.root_hash
    return False


class Past(Enum):
    """What an unknown target may hold."""

    UNKNOWN = "unknown"
    SAME = "same"
    """An earlier run of this installation has written to it."""
    OTHER = "other"
    """The installation of another release was interrupted."""


def use_what_is_here(target: TargetPayload, sources: tuple[Source, ...], old: Source | None, past: Past) -> None:
    """Bring every block to its place that the device has anywhere. Raises OSError when the target fails.

    `old`: what the target held before, its tree whole; None: something that `past` tells about. Blocks of the target itself
    come first: writing others might destroy them.
    """
    if old is not None:
        for start, blocks in _same(target, old):
            target.mark(start, blocks)
        if target.complete:
            return
    elsewhere = _found_in(target, sources)
    moves = _gather(target, elsewhere, old, past) if 0 in elsewhere else []
    if old is not None:
        break_tree(target, old)
    _move(target, moves)
    for source in sources:
        if target.complete:
            break
        for run in _runs(target, source):
            _copy(target, source, run)
    target.flush()


def break_tree(target: TargetPayload, old: Source) -> None:
    """Make the old tree useless on the medium: from now on the target holds neither release whole."""
    assert old.tree_start_block is not None
    last_level = -(-(old.data_blocks or 0) // HASHES_PER_BLOCK) * BLOCK_BYTES
    offset = old.tree_start_block * BLOCK_BYTES + tree_bytes_for(old.data_blocks or 0) - last_level
    nothing = target.buffer.view[:BLOCK_BYTES]
    nothing[:] = bytes(BLOCK_BYTES)
    write_at(target.fd, offset, nothing)
    os.fdatasync(target.fd)


def _same(target: TargetPayload, old: Source) -> Iterator[tuple[int, int]]:
    start = 0
    for piece in leaf_pieces(old):
        yield from same_places(target.tree.leaves, piece, start)
        start += len(piece) // HASH_BYTES


def _runs(target: TargetPayload, source: Source) -> Iterator[Run]:
    """Yield where the source has what the target lacks; blocks at their own place first, in long pieces."""
    for start, blocks in _same(target, source):
        yield from (Run(first, first, count) for first, count in _lacking_of(target, start, blocks))
    for batch in batches(target.lacking()):
        wanted = Wanted(target.tree.leaves, batch)
        start = 0
        for piece in leaf_pieces(source):
            yield from wanted.runs_in(piece, start)
            start += len(piece) // HASH_BYTES
            if not wanted:
                break


def _lacking_of(target: TargetPayload, start: int, blocks: int) -> Iterator[tuple[int, int]]:
    at, end = target.done.find(0, start, start + blocks), start + blocks
    while at >= 0:
        stop = target.done.find(1, at, end)
        stop = end if stop < 0 else stop
        yield at, stop - at
        at = target.done.find(0, stop, end)


def _found_in(target: TargetPayload, sources: tuple[Source, ...]) -> bytearray:
    """Return 1 for each block that is there or that a source has."""
    found = bytearray(target.done)
    for source in sources:
        if 0 not in found:
            break
        for batch in batches(_zeros(found)):
            wanted = Wanted(target.tree.leaves, batch)
            start = 0
            for piece in leaf_pieces(source):
                for run in wanted.runs_in(piece, start):
                    found[run.target : run.target + run.blocks] = b"\1" * run.blocks
                start += len(piece) // HASH_BYTES
    return found


def _zeros(marks: bytearray) -> Iterator[int]:
    """Yield the places of zeros; setting them meanwhile is allowed."""
    index = marks.find(0)
    while index >= 0:
        yield index
        index = marks.find(0, index + 1)


def _copy(target: TargetPayload, source: Source, run: Run) -> None:
    """Copy one run; blocks that are not what their hash says, or cannot be read, are left out."""
    for at in range(0, run.blocks, CHUNK_BLOCKS):
        count = min(CHUNK_BLOCKS, run.blocks - at)
        if source.checked_fd is not None:
            _copy_checked(target, source.checked_fd, Run(run.source + at, run.target + at, count))
            continue
        try:
            data = read_at(source.fd, (run.source + at) * BLOCK_BYTES, count * BLOCK_BYTES)
        except OSError:
            continue
        for number in range(count):
            target.put_one(run.target + at + number, data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])


def _copy_checked(target: TargetPayload, fd: int, run: Run) -> None:
    try:
        data = target.buffer.read(fd, run.source, run.blocks)
    except OSError:
        if run.blocks > 1:
            for number in range(run.blocks):
                _copy_checked(target, fd, Run(run.source + number, run.target + number, 1))
        return
    target.put_run(run.target, data)


def _gather(target: TargetPayload, elsewhere: bytearray, old: Source | None, past: Past) -> list[Run]:
    """Find what no source has on the target itself: mark it at its place, return where it lies at any other."""
    lost = array("I", _zeros(elsewhere))
    if old is None:
        lost = array("I", _not_in_place(target, lost, past))
    if not lost or (old is None and past is not Past.OTHER):
        return []
    wanted = Wanted(target.tree.leaves, lost[:_MAX_MOVES])
    runs: list[Run] = []
    start = 0
    # An unknown target is hashed all over: where the other release ends is not known either.
    for piece in leaf_pieces(old if old is not None else _all_of(target)):
        runs += wanted.runs_in(piece, start)
        start += len(piece) // HASH_BYTES
        if not wanted:
            break
    return runs


def _not_in_place(target: TargetPayload, lost: Sequence[int], past: Past) -> Iterator[int]:
    """Yield those that are not at their place. Of a target that probably holds none of them, samples tell."""
    for at in range(0, len(lost), CHUNK_BLOCKS):
        part = lost[at : at + CHUNK_BLOCKS]
        if past is Past.UNKNOWN and not any(target.check(index) for index in part[:: CHUNK_BLOCKS // 4]):
            yield from part
        else:
            yield from (index for index in part if not target.done[index] and not target.check(index))


def _all_of(target: TargetPayload) -> Source:
    return Source(target.fd, made=[b"".join(target.hashes_of_all())])


def _move(target: TargetPayload, runs: list[Run]) -> None:
    held: list[tuple[int, bytes]] = []
    for run, wait in order_moves(runs):
        block = bytes(target.buffer.read(target.fd, run.source))
        if not wait:
            target.put_one(run.target, block)
            # Nothing may wait in memory that a later move reads or overwrites.
            target.flush()
        elif len(held) < _MAX_HELD:
            held.append((run.target, block))
    for index, block in held:
        target.put_one(index, block)
    target.flush()
