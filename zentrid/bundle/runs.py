"""The run list: a target's leaf hashes told as pieces of the base's and of its own, so that only new hashes are sent.

A run is a varint (LEB128) of `blocks * 4 + kind`, and for two of the kinds one more:

- kind 0, *new*: the next hashes of the list of new ones;
- kind 1, *base*: hashes of the base; the second varint is where they start, zigzag-coded and relative to the place that
  would go on as the last such run did: what did not move costs one byte;
- kind 2, *again*: hashes of the target itself; the second varint is how many blocks before (a distance smaller than the
  run repeats it, as in LZ77).

Runs cover the target exactly. A list that says otherwise raises RunError; what it says is checked by the root hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from zentrid.bundle.tree import HASH_BYTES, HashTree, LeafIndex

NEW: Final = 0
BASE: Final = 1
AGAIN: Final = 2
RUN_LIMIT_BYTES: Final = 8
"""Of one run: four bytes for a number below 2^22, four for the other."""
_VARINT_LIMIT_BYTES: Final = 4


class RunError(ValueError):
    """A run list that does not describe the target; the message says what is wrong with it."""


class Run(NamedTuple):
    """Consecutive blocks of the target whose hashes are found in one place."""

    kind: int
    blocks: int
    start: int
    """Index in the base (*base*) or in the target (*again*); 0 for *new*."""


def find_runs(target: HashTree, base: HashTree | None) -> list[Run]:
    """Return the target as runs: of several places of a hash the one that goes on as before."""
    in_target, in_base = LeafIndex(target), None if base is None else LeafIndex(base)
    runs: list[Run] = []
    at, shift = 0, 0
    while at < target.n_blocks:
        leaf = target.leaf(at)
        place = None
        if base is not None and in_base is not None:
            goes_on = 0 <= at + shift < base.n_blocks and base.leaf(at + shift) == leaf
            place = at + shift if goes_on else in_base.find(leaf)
        if place is not None and base is not None:
            blocks = _equal_blocks(target, at, base, place)
            runs.append(Run(BASE, blocks, place))
            shift = place - at
        elif (first := in_target.find(leaf)) is not None and first < at:
            # The block before, if it is the same one: a run of one hash.
            first = at - 1 if target.leaf(at - 1) == leaf else first
            blocks = _equal_blocks(target, at, target, first)
            runs.append(Run(AGAIN, blocks, first))
        else:
            blocks = 1
            if runs and runs[-1].kind == NEW:
                blocks += runs.pop().blocks
                at -= blocks - 1
            runs.append(Run(NEW, blocks, 0))
        at += blocks
    return runs


def _equal_blocks(target: HashTree, at: int, other: HashTree, start: int) -> int:
    """Return how many leaf hashes from `at` on equal those of the other tree from `start` on."""
    most = min(target.n_blocks - at, other.n_blocks - start)
    own, others = memoryview(target.leaves)[at * HASH_BYTES :], memoryview(other.leaves)[start * HASH_BYTES :]
    blocks = 1
    while blocks < most:
        place = slice(blocks * HASH_BYTES, (blocks + 1) * HASH_BYTES)
        if own[place] != others[place]:
            break
        blocks += 1
    return blocks


def write_runs(runs: list[Run]) -> bytes:
    """Return the run list's bytes."""
    out = bytearray()
    at, shift = 0, 0
    for run in runs:
        _write_varint(out, run.blocks << 2 | run.kind)
        if run.kind == BASE:
            offset = run.start - (at + shift)
            _write_varint(out, -2 * offset - 1 if offset < 0 else 2 * offset)
            shift = run.start - at
        elif run.kind == AGAIN:
            _write_varint(out, at - run.start)
        at += run.blocks
    return bytes(out)


def _write_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def read_runs(data: bytes, target_blocks: int, base_blocks: int) -> Iterator[Run]:
    """Yield the runs of a list. Raises RunError as soon as one does not fit the two payloads."""
    offset, at, shift = 0, 0, 0
    while offset < len(data):
        number, offset = _read_varint(data, offset)
        kind, blocks, start = number & 3, number >> 2, 0
        if not 1 <= blocks <= target_blocks - at:
            raise RunError(f"has a run of {blocks} blocks where {target_blocks - at} are left")
        if kind == BASE:
            number, offset = _read_varint(data, offset)
            start = at + shift + (-(number >> 1) - 1 if number & 1 else number >> 1)
            if not 0 <= start <= base_blocks - blocks:
                raise RunError("has a run outside the base")
            shift = start - at
        elif kind == AGAIN:
            number, offset = _read_varint(data, offset)
            start = at - number
            if not 0 <= start < at:
                raise RunError("has a run that repeats what does not come before it")
        elif kind != NEW:
            raise RunError("has a run of an unknown kind")
        yield Run(kind, blocks, start)
        at += blocks
    if at != target_blocks:
        raise RunError(f"has runs for {at} of {target_blocks} blocks")


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return the number at `offset` and where the next one begins."""
    number = 0
    for count, byte in enumerate(data[offset : offset + _VARINT_LIMIT_BYTES]):
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return number, offset + count + 1
    raise RunError("has a number that is too long or cut short in its runs")


def expand_runs(data: bytes, new: bytes, target_blocks: int, base: HashTree | None) -> bytes:
    """Return the target's leaf hashes from the run list, the new hashes (joined) and the base's tree. Raises RunError."""
    leaves = bytearray()
    used = 0
    for run in read_runs(data, target_blocks, 0 if base is None else base.n_blocks):
        size = run.blocks * HASH_BYTES
        if run.kind == NEW:
            if used + size > len(new):
                raise RunError("has runs for more new blocks than it has hashes")
            leaves += new[used : used + size]
            used += size
        elif run.kind == BASE and base is not None:
            leaves += base.leaves[run.start * HASH_BYTES :][:size]
        else:
            piece = bytes(leaves[run.start * HASH_BYTES :][:size])
            # Doubles what it repeats; a run never takes more than the target has blocks.
            while len(piece) < size:
                piece = (piece + piece)[:size]
            leaves += piece
    if used != len(new):
        raise RunError("has hashes of new blocks that no run uses")
    return bytes(leaves)
