"""Patch streams: what goes in comes out, from nothing and from a base."""

import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bundle.making import block, full, noise
from tests.unit.bundle.streams import BASE, SMALL, SMALL_STREAM, TARGET, blocks_at, delta, tree_of, unpacked
from zentrid.bundle.encode import encode_full, write_stream
from zentrid.bundle.layout import FROM_NOTHING, MAX_FRAME_BLOCKS
from zentrid.bundle.patch import (
    PatchError,
    PatchHeader,
    decode_frame,
    max_compressed_bytes,
    missing_blocks,
    unpack_full,
    vanished_blocks,
    window_places,
)
from zentrid.bundle.tree import BLOCK_BYTES

# --- round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        block(1),
        noise(BLOCK_BYTES + 1),
        bytes(20 * BLOCK_BYTES),
        SMALL,
        noise(2 * MAX_FRAME_BLOCKS * BLOCK_BYTES + 5),
    ],
    ids=["empty", "one byte", "one block", "two blocks", "zeros", "small", "three frames"],
)
def test_full_round_trip(payload):
    info, stream = full(payload)
    assert info.size_bytes == len(payload)
    assert info.stream_bytes == len(stream)
    assert info.tree == tree_of(payload)
    assert unpacked(stream, info.tree.root, len(payload)) == payload
    header = PatchHeader.parse(stream)
    assert header.from_nothing
    assert header.stream_bytes == len(stream)
    assert all(frame.blocks <= MAX_FRAME_BLOCKS for frame in header.frames)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, BLOCK_BYTES - 1))
def test_repeated_blocks_are_sent_once_and_written_everywhere(numbers, extra):
    payload = b"".join(map(block, numbers)) + b"\1" * extra
    info, stream = full(payload)
    assert unpacked(stream, info.tree.root, len(payload)) == payload
    assert PatchHeader.parse(stream).missing == len({info.tree.leaf(index) for index in range(info.tree.n_blocks)})


def test_the_same_payload_gives_the_same_bytes():
    payload = noise(700_000) + bytes(3_000_000) + b"text " * 300_000
    assert full(payload)[1] == full(payload)[1]


def test_encoding_starts_where_the_files_stand():
    source, out = io.BytesIO(b"before" + SMALL), io.BytesIO(b"head")
    source.seek(6)
    out.seek(4)
    info = encode_full(source, out)
    assert out.getvalue() == b"head" + SMALL_STREAM
    assert info.stream_bytes == len(SMALL_STREAM) == out.tell() - 4


def test_progress_ends_at_the_last_block():
    told = []
    payload = noise(600 * BLOCK_BYTES)
    encode_full(io.BytesIO(payload), io.BytesIO(), progress=lambda done, total: told.append((done, total)))
    assert told == [(256, 600), (512, 600), (600, 600)]


@pytest.mark.parametrize("change", [lambda data: data[:-BLOCK_BYTES], lambda data: data[:-1] + b"?"])
def test_a_payload_that_changes_while_it_is_read_is_refused(change):
    class Changing(io.BytesIO):
        def seek(self, offset, whence=0, /):
            if offset == 0:
                content = change(self.getvalue())
                super().seek(0)
                self.truncate()
                self.write(content)
            return super().seek(offset, whence)

    source = Changing(noise(10 * BLOCK_BYTES))
    with pytest.raises(PatchError, match="while it was read"):
        encode_full(source, io.BytesIO())


def test_incompressible_frames_stay_below_the_limit():
    payload = noise(MAX_FRAME_BLOCKS * BLOCK_BYTES)
    frame = PatchHeader.parse(full(payload)[1]).frames[0]
    assert frame.compressed_bytes <= max_compressed_bytes(len(payload))


# --- a base ---------------------------------------------------------------------------------------------------------


def test_missing_and_vanished_blocks():
    base, target = tree_of(BASE), tree_of(TARGET)
    assert list(missing_blocks(target, base)) == [2, 3, 9]
    assert list(vanished_blocks(target, base)) == [2, 3, 6]
    assert list(missing_blocks(target)) == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert not missing_blocks(target, target)
    assert not vanished_blocks(target, target)


def test_a_patch_from_a_base_uses_windows_of_vanished_blocks():
    stream, base, target = delta()
    header = PatchHeader.parse(stream)
    assert not header.from_nothing
    assert header.base_root == base.root
    tree = header.decode_leaves(stream[header.leaf_offset :][: header.leaf_bytes], base)
    assert tree == target
    vanished, found = vanished_blocks(tree, base), []
    for index, frame in enumerate(header.frames):
        places = window_places(header, index, missing_blocks(tree, base), vanished)
        assert all(place.in_base for place in places)
        window = blocks_at(BASE, [place.index for place in places])
        found += decode_frame(header, index, stream[frame.offset :][: frame.compressed_bytes], window)
    assert b"".join(found) == blocks_at(TARGET, missing_blocks(tree, base))
    assert header.frames[0].compressed_bytes < 200, "two edited blocks cost next to nothing with their old selves"
    assert [frame.first for frame in header.frames] == [0, 2]


def test_a_patch_without_missing_blocks_has_no_frames():
    base = tree_of(BASE)
    out = io.BytesIO()
    write_stream(out, tree_of(BASE[: 3 * BLOCK_BYTES]), base, [], [])
    header = PatchHeader.parse(out.getvalue())
    assert header.frames == ()
    assert header.stream_bytes == len(out.getvalue())
    assert header.decode_leaves(out.getvalue()[header.leaf_offset :], base).n_blocks == 3


def test_a_patch_needs_its_own_base():
    stream, base, target = delta()
    header = PatchHeader.parse(stream)
    leaves = stream[header.leaf_offset :][: header.leaf_bytes]
    for wrong in (None, target):
        with pytest.raises(PatchError, match="another base"):
            header.decode_leaves(leaves, wrong)
    frame = header.frames[0]
    data = stream[frame.offset :][: frame.compressed_bytes]
    with pytest.raises(PatchError, match="needs a dictionary of 8192 bytes"):
        decode_frame(header, 0, data)
    assert b"".join(decode_frame(header, 0, data, bytes(2 * BLOCK_BYTES))) != blocks_at(TARGET, [2, 3])
    with pytest.raises(PatchError, match="from a base"):
        unpack_full(io.BytesIO(stream), target.root, len(TARGET))
    assert base.root != FROM_NOTHING


def test_unpacking_takes_the_same_memory_for_any_size():
    peaks = []
    for n_blocks in (512, 4096):
        info, stream = full(noise(n_blocks * BLOCK_BYTES), level=1)
        source = io.BytesIO(stream)
        tracemalloc.start()
        unpack_full(source, info.tree.root, info.size_bytes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    per_block = (peaks[1] - peaks[0]) / (4096 - 512)
    assert per_block < 160, "a few hashes for each block, never the block itself"
