"""Lists of leaf hashes compared: as simple code would, however long they are."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable

import pytest

from zentrid.bundle import leafset
from zentrid.bundle.leafset import Run, Wanted, batches, only_in, order_moves, same_places

HASH_BYTES = 32


def cut(leaves: bytes) -> list[bytes]:
    return [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]


def simple_only_in(leaves: bytes, others: bytes) -> list[int]:
    seen = set(cut(others))
    found = []
    for index, leaf in enumerate(cut(leaves)):
        if leaf not in seen:
            seen.add(leaf)
            found.append(index)
    return found


def made(rng: random.Random, pool: list[bytes], count: int) -> bytes:
    return b"".join(rng.choice(pool) for _ in range(count))


@pytest.mark.parametrize("part_blocks", [10, 64, 32768])
def test_only_in_is_what_simple_code_finds(monkeypatch: pytest.MonkeyPatch, part_blocks: int) -> None:
    monkeypatch.setattr(leafset, "_PART_BLOCKS", part_blocks)
    rng = random.Random(part_blocks)
    pool = [rng.randbytes(HASH_BYTES) for _ in range(300)]
    for counts in ((1, 0), (400, 300), (300, 400), (500, 1)):
        leaves, others = made(rng, pool, counts[0]), made(rng, pool[:200], counts[1])
        assert list(only_in(leaves, others)) == simple_only_in(leaves, others)
        assert list(only_in(leaves)) == simple_only_in(leaves, b"")


def test_blocks_at_the_same_place() -> None:
    rng = random.Random(1)
    for length in (1, 63, 64, 65, 500):
        leaves = rng.randbytes(length * HASH_BYTES)
        changed = {rng.randrange(length) for _ in range(length // 50)}
        others = b"".join(bytes(HASH_BYTES) if n in changed else leaf for n, leaf in enumerate(cut(leaves)))
        for start in (0, length // 3):
            found = [
                index
                for first, count in same_places(leaves, others[start * HASH_BYTES :], start)
                for index in range(first, first + count)
            ]
            assert found == [index for index in range(start, length) if index not in changed]


def test_wanted_blocks_are_found_in_runs() -> None:
    rng = random.Random(2)
    leaves = rng.randbytes(100 * HASH_BYTES)
    others = rng.randbytes(7 * HASH_BYTES) + leaves[20 * HASH_BYTES : 60 * HASH_BYTES]
    wanted = Wanted(leaves, range(30, 90))
    assert list(wanted.runs_in(others, 1000)) == [Run(1017, 30, 30)]
    assert len(wanted) == 30
    assert list(wanted.runs_in(others)) == []  # each block once
    twins = Wanted(leaves[:HASH_BYTES] * 3, [0, 1, 2])
    assert sorted(run.target for run in twins.runs_in(leaves)) == [0, 1, 2]


def carried_out(moves: Iterable[tuple[Run, bool]], data: list[int]) -> tuple[list[int], int]:
    held = []
    for run, wait in moves:
        if wait:
            held.append((run.target, data[run.source]))
        else:
            data[run.target] = data[run.source]
    for place, value in held:
        data[place] = value
    return data, len(held)


def test_no_block_is_overwritten_before_it_was_used() -> None:
    rng = random.Random(3)
    for _ in range(500):
        size = rng.randrange(1, 40)
        sources = [rng.randrange(size) for _ in range(size)]
        runs = [Run(source, place, 1) for place, source in enumerate(sources) if rng.random() < 0.8]
        wanted = list(range(size))
        for run in runs:
            wanted[run.target] = run.source
        assert carried_out(order_moves(runs), list(range(size)))[0] == wanted


@pytest.mark.parametrize(("run", "held"), [(Run(1, 0, 99), 0), (Run(0, 1, 99), 0), (Run(0, 50, 50), 0)])
def test_a_shift_needs_no_memory(run: Run, held: int) -> None:
    assert carried_out(order_moves([run]), list(range(100)))[1] == held


def test_one_block_of_each_circle_is_held() -> None:
    circles = [Run(first + (n + 1) % 5, first + n, 1) for first in range(0, 50, 5) for n in range(5)]
    assert carried_out(order_moves(circles), list(range(50)))[1] == 10


def test_memory_does_not_grow_with_the_lists() -> None:
    peaks = []
    for blocks in (40_000, 160_000):
        leaves = random.Random(4).randbytes(blocks * HASH_BYTES)
        half = leaves[: len(leaves) // 2]
        tracemalloc.start()
        found = only_in(leaves, half)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found) == blocks // 2
    assert peaks[1] < peaks[0] + 2 * 1024 * 1024, peaks


def test_batches() -> None:
    assert [list(batch) for batch in batches(iter(range(7)), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
