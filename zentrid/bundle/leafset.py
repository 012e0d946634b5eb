"""Comparing lists of leaf hashes: fast on a slow processor, and with little memory however long the lists are.

All lists are joined hashes, 32 bytes each. Hash tables hold a part of the hashes at a time (by their first byte), so their
size does not grow with the payload.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from struct import Struct
from typing import Final, NamedTuple

from zentrid.bundle.tree import HASH_BYTES

_LEAF: Final = Struct(f"{HASH_BYTES}s")
_PART_BLOCKS: Final = 16384
"""About how many hashes a table holds at a time: some 3 MB."""
_SLICE_BLOCKS: Final = 64

Leaves = bytes | bytearray | memoryview


class Run(NamedTuple):
    """Consecutive blocks that are found elsewhere in the same order."""

    source: int
    """Index of the first one there."""
    target: int
    blocks: int


def only_in(leaves: bytes, others: bytes | None = None) -> Sequence[int]:
    """Return the indices of the hashes that `others` lacks; of equal ones the first. Ascending."""
    n_blocks = len(leaves) // HASH_BYTES
    parts = max(1, -(-max(len(leaves), len(others or b"")) // (_PART_BLOCKS * HASH_BYTES)))
    if parts == 1:
        return array("I", sorted(_firsts(_cut(leaves), range(n_blocks), _cut(others or b"")).values()))
    is_found = bytearray(n_blocks)
    for part in range(parts):
        indices = _indices(leaves, part, parts)
        theirs = () if others is None else map(_leaf_of(others), _indices(others, part, parts))
        for index in _firsts([*map(_leaf_of(leaves), indices)], indices, theirs).values():
            is_found[index] = 1
    # An array, because a list takes ten times as much.
    return array("I", compress(range(n_blocks), is_found))


def _firsts(leaves: list[bytes], indices: Sequence[int], others: Iterable[bytes]) -> dict[bytes, int]:
    """Return the lowest index of each hash that is not among `others`."""
    found = dict(zip(reversed(leaves), reversed(indices), strict=True))
    for leaf in others:
        found.pop(leaf, None)
    return found


def _cut(leaves: Leaves) -> list[bytes]:
    return [leaf for (leaf,) in _LEAF.iter_unpack(leaves)]


def _leaf_of(leaves: bytes) -> Callable[[int], bytes]:
    return lambda index: leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]


def _indices(leaves: bytes, part: int, parts: int) -> Sequence[int]:
    """Return which hashes belong to one part."""
    return array("I", (index for index, first in enumerate(leaves[::HASH_BYTES]) if first % parts == part))


def same_places(leaves: Leaves, others: Leaves, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of the blocks that both lists have at the same index; `others` begins at index `start`."""
    mine, theirs = memoryview(leaves)[start * HASH_BYTES :], memoryview(others)
    n_blocks = min(len(mine), len(theirs)) // HASH_BYTES
    at, first = 0, -1
    while at < n_blocks:
        step = min(_SLICE_BLOCKS if not at % _SLICE_BLOCKS else 1, n_blocks - at)
        piece = slice(at * HASH_BYTES, (at + step) * HASH_BYTES)
        equal = mine[piece] == theirs[piece]
        if not equal and step > 1:
            step = 1
            piece = slice(at * HASH_BYTES, (at + 1) * HASH_BYTES)
            equal = mine[piece] == theirs[piece]
        if equal and first < 0:
            first = at
        elif not equal and first >= 0:
            yield start + first, at - first
            first = -1
        at += step
    if first >= 0:
        yield start + first, n_blocks - first


class Wanted:
    """The hashes of blocks that are looked for, a part of the target's at a time."""

    def __init__(self, leaves: bytes, indices: Iterable[int]) -> None:
        indices = array("I", indices)
        cut = [*map(_leaf_of(leaves), indices)]
        self._places: dict[bytes, int | list[int]] = dict(zip(reversed(cut), reversed(indices), strict=True))
        if len(self._places) == len(cut):
            return
        for leaf, index in zip(cut, indices, strict=True):
            known = self._places[leaf]
            if isinstance(known, list):
                known.append(index)
            elif known != index:
                self._places[leaf] = [known, index]

    def __len__(self) -> int:
        return len(self._places)

    def find(self, leaf: bytes) -> Sequence[int]:
        """Return where a block with this hash is wanted; empty: nowhere."""
        known = self._places.get(leaf, ())
        return (known,) if isinstance(known, int) else known

    def runs_in(self, others: bytes, start: int = 0) -> Iterator[Run]:
        """Yield what of the wanted blocks a list of hashes has, which begins at its owner's index `start`; each block once."""
        # Plain numbers, for speed: most of a release is found here.
        source = target = blocks = 0
        pop = self._places.pop
        for index, (leaf,) in enumerate(_LEAF.iter_unpack(others), start):
            places = pop(leaf, None)
            if places is None:
                continue
            for place in (places,) if isinstance(places, int) else places:
                if blocks and source + blocks == index and target + blocks == place:
                    blocks += 1
                    continue
                if blocks:
                    yield Run(source, target, blocks)
                source, target, blocks = index, place, 1
        if blocks:
            yield Run(source, target, blocks)


def batches(indices: Iterator[int], size: int = _PART_BLOCKS) -> Iterator[Sequence[int]]:
    """Yield the indices in pieces of bounded length."""
    batch = array("I")
    for index in indices:
        batch.append(index)
        if len(batch) >= size:
            yield batch
            batch = array("I")
    if batch:
        yield batch


def order_moves(runs: Sequence[Run]) -> Iterator[tuple[Run, bool]]:
    """Yield blocks to move inside one payload, one by one, so that none is overwritten before it was used.

    With each comes whether it must be read now and written after all others: a circle has no beginning.
    """
    sources: dict[int, int] = {}
    for run in runs:
        for number in range(run.blocks):
            sources[run.source + number] = sources.get(run.source + number, 0) + 1
    pending = {run.target + number: run.source + number for run in runs for number in range(run.blocks)}
    ready = [target for target in pending if not sources.get(target)]
    while pending:
        while ready:
            target = ready.pop()
            source = pending.pop(target)
            yield Run(source, target, 1), False
            sources[source] -= 1
            if not sources[source] and source in pending:
                ready.append(source)
        if pending:
            # Only circles are left: hold one block of it, so that its place is free.
            target, source = next(iter(pending.items()))
            del pending[target]
            yield Run(source, target, 1), True
            sources[source] -= 1
            if not sources[source] and source in pending:
                ready.append(source)
