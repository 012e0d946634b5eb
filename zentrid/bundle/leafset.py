"""Comparing lists of leaf hashes: fast on a slow processor, and with little memory however long the lists are.

All lists are joined hashes, 32 bytes each. Hash tables hold a part of the hashes at a time (by their first byte), so their
size does not grow with the payload.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from zentrid.bundle.tree import HASH_BYTES

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
    is_found = bytearray(len(leaves) // HASH_BYTES)
    parts = max(1, -(-max(len(leaves), len(others or b"")) // (_PART_BLOCKS * HASH_BYTES)))
    for part in range(parts):
        seen = set() if others is None else {others[at : at + HASH_BYTES] for at in _places(others, part, parts)}
        for at in _places(leaves, part, parts):
            leaf = leaves[at : at + HASH_BYTES]
            if leaf not in seen:
                seen.add(leaf)
                is_found[at // HASH_BYTES] = 1
    # An array, because a list takes ten times as much.
    found = array("I")
    index = is_found.find(1)
    while index >= 0:
        found.append(index)
        index = is_found.find(1, index + 1)
    return found


def _places(leaves: bytes, part: int, parts: int) -> Iterable[int]:
    """Return where the hashes of one part lie (bytes)."""
    if parts == 1:
        return range(0, len(leaves), HASH_BYTES)
    firsts = leaves[::HASH_BYTES]
    return (index * HASH_BYTES for index, first in enumerate(firsts) if first % parts == part)


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
        self._leaves = leaves
        self._places: dict[bytes, int | list[int]] = {}
        for index in indices:
            leaf = leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]
            known = self._places.setdefault(leaf, index)
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
        run: Run | None = None
        get = self._places.get
        for number in range(len(others) // HASH_BYTES):
            places = get(others[number * HASH_BYTES : (number + 1) * HASH_BYTES])
            if places is None:
                continue
            del self._places[others[number * HASH_BYTES : (number + 1) * HASH_BYTES]]
            index = start + number
            for place in (places,) if isinstance(places, int) else places:
                if run and (run.source + run.blocks, run.target + run.blocks) == (index, place):
                    run = run._replace(blocks=run.blocks + 1)
                    continue
                if run:
                    yield run
                run = Run(index, place, 1)
        if run:
            yield run


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
