"""Whatever is wrong with a patch stream is a PatchError, and costs no memory."""

import io
import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bundle.making import block, noise
from tests.unit.bundle.streams import SMALL, SMALL_INFO, SMALL_STREAM, blocks_at, tree_of, unpacked
from zentrid.bundle import encode
from zentrid.bundle.encode import Frame, compress, write_stream
from zentrid.bundle.layout import FIXED, TABLE_ENTRY, Space, Window, window_entry
from zentrid.bundle.patch import (
    PatchError,
    PatchHeader,
    decode_frame,
    max_compressed_bytes,
    missing_blocks,
    unpack_full,
    window_places,
)
from zentrid.bundle.runs import NEW, Run, write_runs
from zentrid.bundle.tree import BLOCK_BYTES, MAX_BLOCKS


def with_fixed(stream: bytes, **values: object) -> bytes:
    """Return a stream with other values in its fixed part."""
    names = [
        "magic",
        "format",
        "zero",
        "base",
        "target",
        "blocks",
        "base_blocks",
        "missing",
        "frames",
        "windows",
        "runs",
    ]
    fields = dict(zip(names, FIXED.unpack_from(stream), strict=True)) | values
    return FIXED.pack(*fields.values()) + stream[FIXED.size :]


def with_entry(stream: bytes, count=None, kind=0, windows=None, zero=0, size=None) -> bytes:
    """Return a stream with another first entry in its frame table."""
    old = TABLE_ENTRY.unpack_from(stream, FIXED.size)
    new = (count, kind, windows, zero, size)
    entry = TABLE_ENTRY.pack(*(before if now is None else now for before, now in zip(old, new, strict=True)))
    return stream[: FIXED.size] + entry + stream[FIXED.size + TABLE_ENTRY.size :]


def with_windows(*windows: Window | bytes) -> bytes:
    """Return the header of a patch of eight blocks in two frames, the second one with these windows."""
    table = TABLE_ENTRY.pack(3, 0, 0, 0, 9) + TABLE_ENTRY.pack(3, 0, len(windows), 0, 9)
    entries = b"".join(entry if isinstance(entry, bytes) else window_entry(entry) for entry in windows)
    numbers = (5000, 3000, 8, 2, len(windows), 9)
    return FIXED.pack(b"ZPS1", 1, 0, b"b" * 32, b"t" * 32, *numbers) + table + entries


def test_a_stream_cut_at_any_byte_is_refused():
    for length in range(len(SMALL_STREAM)):
        with pytest.raises(PatchError):
            unpack_full(io.BytesIO(SMALL_STREAM[:length]), SMALL_INFO.tree.root, len(SMALL))


def test_the_header_tells_how_much_it_needs():
    header = PatchHeader.parse(SMALL_STREAM)
    for length in range(header.leaf_offset + 10):
        needed = PatchHeader.bytes_needed(SMALL_STREAM[:length])
        assert (needed == 0) == (length >= header.leaf_offset)
        assert length + needed <= max(length, header.leaf_offset)
        if needed:
            with pytest.raises(PatchError, match="ends inside its header"):
                PatchHeader.parse(SMALL_STREAM[:length])
        else:
            assert PatchHeader.parse(SMALL_STREAM[:length]) == header


def test_what_is_no_stream_is_noticed_at_the_first_byte():
    with pytest.raises(PatchError, match="ZPS1"):
        PatchHeader.bytes_needed(b"\x7f")


@settings(max_examples=400)
@given(st.integers(0, len(SMALL_STREAM) * 8 - 1))
def test_a_flipped_bit_is_refused_or_does_no_harm(bit):
    data = bytearray(SMALL_STREAM)
    data[bit // 8] ^= 1 << bit % 8
    try:
        assert unpacked(bytes(data), SMALL_INFO.tree.root, len(SMALL)) == SMALL
    except PatchError:
        return


def test_bytes_after_the_last_frame_are_refused():
    with pytest.raises(PatchError, match="goes on"):
        unpack_full(io.BytesIO(SMALL_STREAM + b"\0"), SMALL_INFO.tree.root, len(SMALL))


def test_another_payload_than_the_manifest_names_is_refused():
    with pytest.raises(PatchError, match="another payload"):
        unpack_full(io.BytesIO(SMALL_STREAM), bytes(32), len(SMALL))
    for size_bytes in (BLOCK_BYTES, 10 * BLOCK_BYTES):
        with pytest.raises(PatchError, match="size needs"):
            unpack_full(io.BytesIO(SMALL_STREAM), SMALL_INFO.tree.root, size_bytes)
    with pytest.raises(PatchError, match="after the payload's end"):
        unpack_full(io.BytesIO(SMALL_STREAM), SMALL_INFO.tree.root, len(SMALL) - 1)
    with pytest.raises(PatchError, match="limit"):
        unpack_full(io.BytesIO(SMALL_STREAM), SMALL_INFO.tree.root, -1)


FRAME = PatchHeader.parse(SMALL_STREAM).frames[0]


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (with_fixed(SMALL_STREAM, magic=b"ZPS2"), "ZPS1"),
        (with_fixed(SMALL_STREAM, format=2), "format 2"),
        (with_fixed(SMALL_STREAM, zero=1), "reserved"),
        (with_fixed(SMALL_STREAM, blocks=0), "target of 0 blocks"),
        (with_fixed(SMALL_STREAM, blocks=MAX_BLOCKS + 1), "target of 1048577 blocks"),
        (with_fixed(SMALL_STREAM, base=b"b" * 32, base_blocks=MAX_BLOCKS + 1), "base of"),
        (with_fixed(SMALL_STREAM, base_blocks=1), "blocks without a base"),
        (with_fixed(SMALL_STREAM, base=b"b" * 32), "base without blocks"),
        (with_fixed(SMALL_STREAM, missing=8), "more missing blocks"),
        (with_fixed(SMALL_STREAM, frames=2**32 - 1), "more than allowed"),
        (with_fixed(SMALL_STREAM, frames=7), "more than allowed"),
        (with_fixed(SMALL_STREAM, frames=0), "too few frames"),
        (with_fixed(SMALL_STREAM, windows=1), "1 windows of which its frames use 0"),
        (with_fixed(SMALL_STREAM, windows=256), "256 windows, more than allowed"),
        (with_fixed(SMALL_STREAM, windows=2**32 - 1), "more than allowed"),
        (with_fixed(SMALL_STREAM, runs=0), "run list of 0"),
        (with_fixed(SMALL_STREAM, runs=2**32 - 1), "run list of 4294967295"),
        (with_fixed(SMALL_STREAM, missing=5), "6 blocks in its frames"),
        (with_entry(SMALL_STREAM, count=6), "7 blocks in its frames"),
        (with_entry(SMALL_STREAM, kind=2), "unknown kind"),
        (with_entry(SMALL_STREAM, kind=1), "delta of nothing"),
        (with_entry(SMALL_STREAM, zero=1), "frame 0"),
        (with_entry(SMALL_STREAM, size=0), "0 bytes"),
        (with_entry(SMALL_STREAM, size=2**32 - 1), "the limit is"),
        (with_entry(SMALL_STREAM, windows=1), "more windows than there are"),
        (with_windows(Window(Space.BASE, 3000, 1)), "outside the base"),
        (with_windows(Window(Space.BASE, 2999, 2)), "outside the base"),
        (with_windows(Window(Space.VANISHED, 2000, 1001)), "outside the base"),
        (with_windows(Window(Space.EARLIER, 4, 1)), "come later"),
        (with_windows(Window(Space.EARLIER, 0, 5)), "come later"),
        (with_windows(b"\xc0\0\0\0"), "unknown kind"),
        (with_windows(Window(Space.BASE, 0, 1000), Window(Space.VANISHED, 0, 25)), "1025 blocks in windows"),
        (with_windows(*[Window(Space.BASE, 0, 1024)] * 3), "3072 blocks in windows"),
    ],
)
def test_every_limit_of_the_header(stream, problem):
    with pytest.raises(PatchError, match=problem):
        PatchHeader.parse(stream)


def test_windows_at_the_limits_are_taken():
    allowed = Window(Space.BASE, 2000, 1000), Window(Space.VANISHED, 0, 20), Window(Space.EARLIER, 0, 4)
    header = PatchHeader.parse(with_windows(*allowed))
    assert [frame.dictionary_blocks for frame in header.frames] == [0, 1024]
    places = window_places(header, 1, range(100, 108), range(500, 520))
    base = [(True, index) for index in (*range(2000, 3000), *range(500, 520))]
    assert list(places) == base + [(False, index) for index in range(100, 104)]
    with pytest.raises(PatchError, match="outside the vanished"):
        window_places(header, 1, range(100, 108), range(500, 519))


def test_from_nothing_a_window_reaches_back_only_so_far():
    for start, problem in ((256, None), (255, "reaches back too far")):
        table = TABLE_ENTRY.pack(255, 0, 0, 0, 9) * 5 + TABLE_ENTRY.pack(255, 0, 1, 0, 9)
        stream = FIXED.pack(b"ZPS1", 1, 0, bytes(32), b"t" * 32, 1536, 0, 1536, 6, 1, 9) + table
        stream += window_entry(Window(Space.EARLIER, start, 1))
        if problem is None:
            assert PatchHeader.parse(stream).frames[5].dictionary_blocks == 1
        else:
            with pytest.raises(PatchError, match=problem):
                PatchHeader.parse(stream)
    for space in (Space.BASE, Space.VANISHED):
        with pytest.raises(PatchError, match="outside the base"):
            PatchHeader.parse(stream[:-4] + window_entry(Window(space, 0, 1)))


@given(st.binary(max_size=400), st.booleans())
def test_rubbish_raises_nothing_else(data, with_magic):
    data = b"ZPS1\0\1\0\0" + data if with_magic else data
    with pytest.raises(PatchError):
        unpack_full(io.BytesIO(data), bytes(32), 1)


def frame_of(data: bytes, blocks: int = 4) -> PatchHeader:
    """Return a header whose one frame has these bytes."""
    out = io.BytesIO()
    payload = noise(blocks * BLOCK_BYTES)
    tree = tree_of(payload)
    write_stream(out, tree, None, missing_blocks(tree), [Frame(blocks, data)])
    return PatchHeader.parse(out.getvalue())


def zstd(plain: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(plain)


PLAIN = noise(4 * BLOCK_BYTES)
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4 * BLOCK_BYTES).to_bytes(4, "little")
BOMBS = {
    "claims a gigabyte": zstd(bytes(1 << 30)),
    "claims nothing and gives much": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26)),
    "claims the right size and gives more": b"\x28\xb5\x2f\xfd\xa0"
    + (4 * BLOCK_BYTES).to_bytes(4, "little")
    + (b"\x02\x00\x10" + b"\0")  # a run of 128 KiB, not the last block
    + (b"\x03\x00\x10" + b"\0"),
    "claims the right size and gives less": b"\x28\xb5\x2f\xfd\xa0"
    + (4 * BLOCK_BYTES).to_bytes(4, "little")
    + b"\x0b\0\0x",
    "one byte short": zstd(PLAIN[:-1]),
    "one byte more": zstd(PLAIN + b"x"),
    "empty": zstd(b""),
    "two frames": zstd(PLAIN[: 2 * BLOCK_BYTES]) + zstd(PLAIN[2 * BLOCK_BYTES :]),
    "the frame and more": zstd(PLAIN) + b"more",
    "cut": zstd(PLAIN)[:-1],
    "skippable": SKIPPABLE,
    "skippable, whole": SKIPPABLE + bytes(4 * BLOCK_BYTES),
    "no zstd": b"x" * 100,
    "one byte": b"x",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_a_frame_that_does_not_give_exactly_its_blocks_is_refused_cheaply(data):
    data = data[: max_compressed_bytes(4 * BLOCK_BYTES)]
    header = frame_of(data)
    tracemalloc.start()
    try:
        with pytest.raises(PatchError, match="frame 0"):
            decode_frame(header, 0, data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_the_good_frame_beside_the_bombs_is_taken():
    assert b"".join(decode_frame(frame_of(zstd(PLAIN)), 0, zstd(PLAIN))) == PLAIN


def test_a_frame_of_the_wrong_length_is_refused():
    header = frame_of(zstd(PLAIN))
    with pytest.raises(PatchError, match="bytes, not"):
        decode_frame(header, 0, zstd(PLAIN) + b"x")


def test_a_right_frame_with_wrong_blocks_is_found_by_the_tree():
    tree = tree_of(SMALL)
    missing = missing_blocks(tree)
    wrong = blocks_at(SMALL + bytes(BLOCK_BYTES), missing)
    wrong = wrong[:5000] + bytes([wrong[5000] ^ 1]) + wrong[5001:]
    out = io.BytesIO()
    write_stream(out, tree, None, missing, [Frame(len(missing), compress(wrong, 3))])
    with pytest.raises(PatchError, match="wrong block 1"):
        unpack_full(io.BytesIO(out.getvalue()), tree.root, len(SMALL))


def test_leaves_that_do_not_give_the_root_are_refused():
    header = PatchHeader.parse(SMALL_STREAM)
    leaves = SMALL_STREAM[header.leaf_offset :][: header.leaf_bytes]
    with pytest.raises(PatchError, match="do not give its target's root"):
        header.decode_leaves(leaves[:-1] + bytes([leaves[-1] ^ 1]))
    with pytest.raises(PatchError, match="leaf section"):
        header.decode_leaves(leaves[:-1])


def test_a_wrong_count_of_missing_blocks_is_refused(monkeypatch):
    tree = tree_of(block(1) * 3)
    runs = compress(write_runs([Run(NEW, 3, 0)]), 3)
    monkeypatch.setattr(encode, "leaf_section", lambda *_: (runs + tree.leaves, len(runs)))
    out = io.BytesIO()
    write_stream(out, tree, None, [0, 1, 2], [Frame(3, compress(block(1) * 3, 3))])
    with pytest.raises(PatchError, match="claims 3 missing blocks where 1 are"):
        unpack_full(io.BytesIO(out.getvalue()), tree.root, 3 * BLOCK_BYTES)
