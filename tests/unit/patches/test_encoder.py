"""The encoder: whatever the two payloads are, what it writes gives the target, within a device's limits."""

import io
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dms_server.patches.encoder import choose_windows, encode_patch, place_stretches
from dms_server.patches.encoder_match import Like, OldContent, compare
from scripts.bench.applying import apply_patch
from tests.unit.bundle.making import block, noise
from zentrid.bundle.delta import Stretch
from zentrid.bundle.encode import encode_full
from zentrid.bundle.layout import MAX_DICTIONARY_BLOCKS, MAX_FRAME_WINDOWS, FrameKind, PatchError
from zentrid.bundle.patch import PatchHeader
from zentrid.bundle.tree import BLOCK_BYTES


def encoded(base: bytes, target: bytes, **options) -> bytes:
    out = io.BytesIO()
    told = encode_patch(io.BytesIO(base), io.BytesIO(target), out, **options)
    assert told.stream_bytes == len(out.getvalue())
    assert told.size_bytes == len(target)
    return out.getvalue()


def code(words: int, seed: int = 1) -> bytearray:
    """Something like machine code: words of a few kinds with addresses in them."""
    chance = random.Random(seed)
    kinds = [chance.randrange(2**32) for _ in range(60)]
    return bytearray(
        b"".join(
            (chance.choice(kinds) ^ chance.randrange(1 << chance.choice((0, 0, 5, 12)))).to_bytes(4, "little")
            for _ in range(words)
        )
    )


def moved_code(old: bytes, by: int) -> bytes:
    """The same code with something put in, after which each tenth word points elsewhere."""
    words = [int.from_bytes(old[at : at + 4], "little") for at in range(0, len(old), 4)]
    new = [(word + by) % 2**32 if number % 10 == 3 else word for number, word in enumerate(words)]
    return bytes(code(by, 77)) + b"".join(word.to_bytes(4, "little") for word in new)


@pytest.fixture
def there_and_back(tmp_path):
    def check(base: bytes, target: bytes) -> PatchHeader:
        stream = encoded(base, target)
        for name, content in (("base", base), ("patch", stream)):
            (tmp_path / name).write_bytes(content)
        apply_patch(tmp_path / "base", tmp_path / "patch", tmp_path / "made")
        made = (tmp_path / "made").read_bytes()
        assert made[: len(target)] == target
        assert not any(made[len(target) :])
        header = PatchHeader.parse(stream)
        assert all(frame.dictionary_blocks <= MAX_DICTIONARY_BLOCKS for frame in header.frames)
        return header

    return check


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (b"", b""),
        (b"", noise(9000)),
        (noise(9000), b""),
        (b"x", b"y"),
        (noise(BLOCK_BYTES), noise(BLOCK_BYTES)),
        (noise(5 * BLOCK_BYTES), noise(5 * BLOCK_BYTES)[::-1]),
        (block(1) * 9 + block(2), block(2) * 9 + block(1)),
        (noise(50_000), noise(50_000) + bytes(70_000) + noise(50_000)),
        (noise(100_000), noise(100_000)[40_000:]),
    ],
    ids=["empty", "from empty", "to empty", "tiny", "same", "backwards", "repeated", "larger", "smaller"],
)
def test_every_kind_of_pair_comes_back(there_and_back, base, target):
    there_and_back(base, target)


EDITS = st.lists(
    st.tuples(st.sampled_from(["insert", "remove", "change", "move", "copy"]), st.integers(0, 10**6), st.integers(1, 9000)),
    max_size=6,
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 60_000), EDITS)
def test_edited_payloads_come_back(there_and_back, size, edits):
    base = bytes(code(size // 8)) + b"line of text\n" * (size // 30)
    target = bytearray(base)
    for what, at, length in edits:
        at %= len(target) + 1
        piece = bytes(target[at : at + length])
        if what == "insert":
            target[at:at] = noise(length, str(at))
        elif what == "change":
            target[at : at + 1] = b"?"
        elif what == "copy":
            target += piece
        else:
            del target[at : at + length]
            if what == "move":
                target[at // 2 : at // 2] = piece
    there_and_back(base, bytes(target))


def test_the_same_payloads_give_the_same_bytes():
    old = bytes(code(40_000))
    new = moved_code(old, 5)
    assert encoded(old, new) == encoded(old, new)


def test_a_patch_to_the_same_payload_is_next_to_nothing():
    payload = noise(700 * BLOCK_BYTES)
    stream = encoded(payload, payload)
    assert len(stream) < 130
    assert not PatchHeader.parse(stream).frames


def test_code_that_moved_is_told_as_a_delta(there_and_back):
    old = bytes(code(60_000))
    new = moved_code(old, 5)
    header = there_and_back(old, new)
    assert {frame.kind for frame in header.frames} == {FrameKind.DELTA}
    out = io.BytesIO()
    encode_full(io.BytesIO(new), out)
    assert sum(frame.compressed_bytes for frame in header.frames) * 20 < len(out.getvalue())


def test_large_pairs_keep_the_limits(there_and_back):
    chance = random.Random(5)
    old = [noise(BLOCK_BYTES, str(number)) for number in range(700)]
    new = [bytes([*data[:100], 1, *data[101:]]) for data in old]
    chance.shuffle(new)
    header = there_and_back(b"".join(old), b"".join(new))
    assert len(header.frames) == 3
    assert max(frame.windows for frame in header.frames) > 20
    # Scattered all over, each frame still finds its blocks' old selves.
    assert header.stream_bytes < 700 * (32 + 600)


def test_progress_and_places_in_files():
    told = []
    base, target, out = io.BytesIO(b"ab" + noise(9000)), io.BytesIO(b"c" + noise(1_200_000, "x")), io.BytesIO(b"head")
    for stream, at in ((base, 2), (target, 1), (out, 4)):
        stream.seek(at)
    info = encode_patch(base, target, out, progress=lambda done, total: told.append((done, total)))
    assert out.getvalue() == b"head" + encoded(noise(9000), noise(1_200_000, "x"))
    assert out.tell() == 4 + info.stream_bytes
    assert told == [(256, 293), (293, 293)]


def test_a_payload_that_changes_while_it_is_read_is_refused():
    class Changing(io.BytesIO):
        def seek(self, offset, whence=0, /):
            self.getbuffer()[5000] = noise(9000)[5000] ^ 1
            return super().seek(offset, whence)

    for base, target in ((Changing(noise(9000)), io.BytesIO(b"x")), (io.BytesIO(b"x"), Changing(noise(9000)))):
        with pytest.raises(PatchError, match="changed while it was read"):
            encode_patch(base, target, io.BytesIO())


def test_windows_hold_what_stretches_need_and_never_too_much():
    likes = [Like(4096 * number, 4096 * 13 * number + 8, 4096) for number in range(250)]
    windows = choose_windows(likes, Counter(range(0, 4000, 3)), 5000)
    assert windows == sorted(windows)
    assert len(windows) < MAX_FRAME_WINDOWS
    assert sum(blocks for _, blocks in windows) <= MAX_DICTIONARY_BLOCKS
    covered = {block for start, blocks in windows for block in range(start, start + blocks)}
    for stretch in place_stretches(likes, windows):
        assert stretch.words == 1024
    assert len(place_stretches(likes, windows)) == sum(
        {like.old // 4096, (like.old + 4095) // 4096} <= covered for like in likes
    )
    assert len(place_stretches(likes, windows)) > 100


def test_stretches_are_placed_in_the_joined_windows():
    likes = [Like(0, 5 * 4096 + 16, 64), Like(100, 9 * 4096, 8192), Like(9000, 0, 64)]
    placed = place_stretches(likes, [(5, 1), (8, 3)])
    assert placed == [Stretch(0, 16, 16), Stretch(36, 2048, 2 * 4096)]


def test_stretches_go_on_over_changed_words():
    old = bytes(code(5000))
    new = moved_code(old, 7)
    likes, votes = compare(new, OldContent(old))
    assert sum(like.size_bytes for like in likes) > 0.98 * len(old)
    assert len(likes) < 5
    assert set(votes) == set(range(5))
