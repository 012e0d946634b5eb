"""Delta frames: stretches of the dictionary with changed words; whatever is wrong with one is refused before it costs."""

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_server.patches.encoder_delta import make_delta
from tests.unit.bundle.making import noise
from zentrid.bundle.delta import DeltaError, Stretch, add_words, apply_delta, limit_bytes

DICTIONARY = noise(8192, "dictionary")


def delta(stretches=((0, 2, 0),), skips=b"", which=b"", table=(), escaped=(), rest=b"", numbers=None) -> bytes:
    """A delta's plain content, by hand."""
    numbers = numbers or (len(stretches), len(skips), len(table), len(escaped), len(rest))
    columns: list[int] = [value for column in zip(*stretches, strict=True) for value in column]
    planes: bytes = b"".join(bytes(value >> 8 * plane & 255 for value in escaped) for plane in range(4))
    head: bytes = struct.pack(f"<5I{len(columns)}I", *numbers, *columns)
    return b"".join((head, skips, which, struct.pack(f"<{len(table)}I", *table), planes, rest))


def test_words_are_added_without_carry_into_the_next():
    left = struct.pack("<4I", 0xFFFFFFFF, 1, 0x80000000, 0x7FFFFFFF)
    right = struct.pack("<4I", 1, 2, 0x80000000, 1)
    assert struct.unpack("<4I", add_words(left, right)) == (0, 3, 0, 0x80000000)
    assert add_words(b"", b"") == b""


def test_what_a_delta_says():
    content = delta(((3, 2, 5), (0, 1, 100)), b"\1\0", b"\0\xff", (7,), (0x01020304,), b"abcdef")
    words = [int.from_bytes(DICTIONARY[at : at + 4], "little") for at in (5, 9, 100)]
    words[1] = (words[1] + 7) % 2**32
    words[2] = (words[2] + 0x01020304) % 2**32
    wanted = b"abc" + struct.pack("<3I", *words) + b"def"
    assert apply_delta(content, DICTIONARY, len(wanted)) == wanted


@settings(max_examples=100)
@given(st.data())
def test_what_the_encoder_writes_comes_back(data):
    content, stretches = bytearray(), []
    for _ in range(data.draw(st.integers(0, 5))):
        rest = data.draw(st.binary(max_size=9))
        words = data.draw(st.integers(1, 700))
        offset = data.draw(st.integers(0, len(DICTIONARY) - 4 * words))
        piece = bytearray(DICTIONARY[offset : offset + 4 * words])
        for place in data.draw(st.lists(st.integers(0, words - 1), max_size=5)):
            piece[4 * place : 4 * place + 4] = data.draw(st.sampled_from([b"abcd", b"\0\0\0\0", b"\xff\xff\xff\xff"]))
        stretches.append(Stretch(len(rest), words, offset))
        content += rest + piece
    content += data.draw(st.binary(max_size=9))
    plain = make_delta(bytes(content), DICTIONARY, stretches)
    assert apply_delta(plain, DICTIONARY, len(content)) == content


def test_the_same_change_many_times_is_told_once():
    old = noise(4096)
    words = [(value + 5) % 2**32 for value in struct.unpack("<1024I", old)]
    plain = make_delta(struct.pack("<1024I", *words), old, [Stretch(0, 1024, 0)])
    assert len(plain) == 5 * 4 + 12 + 2 * 1024 + 4


@pytest.mark.parametrize(
    ("plain", "problem"),
    [
        (b"", "too short"),
        (bytes(19), "too short"),
        (delta(numbers=(1, 0, 0, 0, 1)), "do not make its whole"),
        (delta() + b"x", "do not make its whole"),
        (delta()[:-1], "do not make its whole"),
        (delta(numbers=(2**32 - 1,) * 5), "do not make its whole"),
        (delta(((0, 1, 0),) * 16385), "do not make its whole"),
        (delta(((0, 1, 0),)), "does not give 8 bytes"),
        (delta(rest=b"x"), "does not give 8 bytes"),
        (delta(((0, 0, 0), (0, 2, 0))), "outside its dictionary"),
        (delta(((0, 2, 8185),)), "outside its dictionary"),
        (delta(((0, 2**32 - 1, 0),)), "outside its dictionary"),
        (delta(((0, 2, 2**32 - 1),)), "outside its dictionary"),
        (delta(((5, 1, 0),), rest=b"abcd"), "too little content"),
        (delta(skips=b"\2", which=b"\0", table=(1,)), "outside its stretches"),
        (delta(skips=b"\0\0\0", which=b"\0\0\0", table=(1,)), "outside its stretches"),
        (delta(skips=b"\0", which=b"\1", table=(1,)), "not there"),
        (delta(skips=b"\0", which=b"\0"), "not there"),
        (delta(skips=b"\0", which=b"\xff"), "not there"),
        (delta(skips=b"\0", which=b"\0", table=(1,), escaped=(1,)), "not there"),
        (delta(escaped=(1,)), "not there"),
    ],
)
def test_a_delta_that_does_not_fit_is_refused(plain, problem):
    with pytest.raises(DeltaError, match=problem):
        apply_delta(plain, DICTIONARY, 8)


def test_a_delta_that_claims_much_costs_nothing():
    many = delta(((0, 2048, 0),) * 16384)
    assert len(many) < limit_bytes(1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DeltaError, match="does not give"):
            apply_delta(many, DICTIONARY, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=300)
@given(st.binary(max_size=60), st.booleans())
def test_rubbish_raises_nothing_else(data, with_numbers):
    data = struct.pack("<5I", 1, 1, 0, 0, len(data)) + data if with_numbers else data
    with pytest.raises(DeltaError):
        apply_delta(data, DICTIONARY, 1000)
