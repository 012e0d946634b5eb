"""Run lists: a target's leaf hashes out of the base's and its own, and nothing but the new ones sent."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bundle.making import block
from zentrid.bundle.runs import AGAIN, BASE, NEW, Run, RunError, expand_runs, find_runs, read_runs, write_runs
from zentrid.bundle.tree import HASH_BYTES, HashTree, hash_block


def tree(numbers: list[int]) -> HashTree:
    return HashTree.from_leaves([hash_block(block(number)) for number in numbers])


def there_and_back(target: HashTree, base: HashTree | None) -> tuple[list[Run], bytes]:
    runs = find_runs(target, base)
    new, at = b"", 0
    for run in runs:
        if run.kind == NEW:
            new += target.leaves[at * HASH_BYTES :][: run.blocks * HASH_BYTES]
        at += run.blocks
    data = write_runs(runs)
    assert list(read_runs(data, target.n_blocks, 0 if base is None else base.n_blocks)) == runs
    assert expand_runs(data, new, target.n_blocks, base) == target.leaves
    return runs, new


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=60),
    st.none() | st.lists(st.integers(0, 8), min_size=1, max_size=60),
)
def test_any_target_comes_back_and_each_new_hash_is_sent_once(target, base):
    _, new = there_and_back(tree(target), None if base is None else tree(base))
    assert len(new) == HASH_BYTES * len(set(target) - set(base or ()))


@pytest.mark.parametrize(
    ("target", "base", "runs"),
    [
        ([1], None, [Run(NEW, 1, 0)]),
        ([1, 2, 3], [1, 2, 3], [Run(BASE, 3, 0)]),
        ([1, 9, 3], [1, 2, 3], [Run(BASE, 1, 0), Run(NEW, 1, 0), Run(BASE, 1, 2)]),
        ([8, 9, 1, 2], [1, 2], [Run(NEW, 2, 0), Run(BASE, 2, 0)]),
        ([5] * 50, None, [Run(NEW, 1, 0), Run(AGAIN, 49, 0)]),
        ([1, 2, 1, 2, 1], None, [Run(NEW, 2, 0), Run(AGAIN, 3, 0)]),
        (
            [9, 5, 1, 8, 5, 2],
            [5, 1, 7, 5, 2],
            [Run(NEW, 1, 0), Run(BASE, 2, 0), Run(NEW, 1, 0), Run(BASE, 2, 3)],
        ),
        ([0, 1, 0, 2], [0, 1, 0, 2, 0, 3], [Run(BASE, 4, 0)]),
    ],
)
def test_runs_are_what_one_expects(target, base, runs):
    assert there_and_back(tree(target), None if base is None else tree(base))[0] == runs


def test_what_did_not_move_costs_one_byte_for_its_place():
    base = list(range(10, 210))
    target = [*base[:100], 7, *base[101:]]
    assert len(write_runs(there_and_back(tree(target), tree(base))[0])) == 3 + 1 + 3


def test_what_moved_as_a_whole_says_so_once():
    base = list(range(10, 210))
    target = [*range(1000, 1200), *base[:50], 4, *base[51:100], 5, *base[101:]]
    data = write_runs(there_and_back(tree(target), tree(base))[0])
    # new (2 bytes), base with its place (2 and 2), then twice new (1) and base (2) with the place that goes on (1).
    assert len(data) == 2 + 4 + 2 * (1 + 3)


def varint(*numbers: int) -> bytes:
    out = b""
    for number in numbers:
        while number > 127:
            out += bytes([number & 127 | 128])
            number >>= 7
        out += bytes([number])
    return out


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "runs for 0 of 4"),
        (varint(2 << 2), "runs for 2 of 4"),
        (varint(5 << 2), "5 blocks where 4 are left"),
        (varint(0, 4 << 2), "0 blocks"),
        (varint(4 << 2 | BASE, 0, 1 << 2), "1 blocks where 0"),
        (varint(4 << 2 | 3), "unknown kind"),
        (varint(4 << 2 | BASE, 2), "outside the base"),
        (varint(4 << 2 | BASE, 1), "outside the base"),
        (varint(4 << 2 | AGAIN, 1), "come before"),
        (varint(1 << 2, 3 << 2 | AGAIN, 2), "come before"),
        (varint(1 << 2, 3 << 2 | AGAIN, 0), "come before"),
        (varint(4 << 2 | BASE), "cut short"),
        (b"\xff", "cut short"),
        (b"\x80\x80\x80\x80\x00", "too long"),
        (varint(2 << 2, 2 << 2 | BASE, 4), "outside the base"),
        (varint(4 << 2), "more new blocks than it has hashes"),
        (varint(1 << 2, 3 << 2 | AGAIN, 1), "no run uses"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(data, problem):
    with pytest.raises(RunError, match=problem):
        expand_runs(data, bytes(2 * HASH_BYTES), 4, tree([1, 2, 3, 4]))


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_rubbish_raises_nothing_else(data):
    base = tree([1, 2, 3])
    try:
        assert len(expand_runs(data, bytes(HASH_BYTES), 50, base)) == 50 * HASH_BYTES
    except RunError:
        return


def test_a_repeated_hash_takes_no_more_than_its_blocks():
    data = varint(1 << 2, (1 << 20) - 1 << 2 | AGAIN, 1)
    leaf = hash_block(io.BytesIO(b"x").read())
    assert expand_runs(data, leaf, 1 << 20, None) == leaf * (1 << 20)
