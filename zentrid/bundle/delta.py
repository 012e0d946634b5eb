"""Delta frames: blocks told as stretches of the dictionary with some of their 32-bit words changed, and what is left.

Machine code of a new version is mostly the old code with other addresses in it: whole instructions differ, in the same
few ways. So a stretch is copied from the dictionary, and a difference is added to each of its little-endian words (modulo
2^32, no carry from one to the next). Most differences are zero; the others are listed. Plain content of such a frame, all
numbers little-endian u32 unless said:

- five numbers: stretches, changes, differences in the table, escaped differences, bytes of the rest;
- for each stretch: rest before it (bytes); then for each: its words; then for each: where in the dictionary (bytes);
- for each change: words skipped since the last one (u8), the words of all stretches counted as one row; then for each:
  which difference (u8: number in the table; 255: the next escaped one);
- the table; the escaped differences, first all their lowest bytes, then the second ones, …; the rest.

Everything is done on whole stretches at once, with long integers and slices: it takes milliseconds for a frame.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

WORD_BYTES: Final = 4
MAX_STRETCHES: Final = 16384
ESCAPE: Final = 255
MAX_SKIP: Final = 255

NUMBERS: Final = struct.Struct("<5I")


class DeltaError(ValueError):
    """A delta frame that does not describe its blocks; the message says what is wrong with it."""


class Stretch(NamedTuple):
    """A piece of the dictionary that the frame's content is like."""

    rest_bytes: int
    """Bytes of the content between the last stretch and this one."""
    words: int
    offset: int
    """In the dictionary (bytes)."""


def limit_bytes(size_bytes: int) -> int:
    """Return the most bytes that a delta frame's plain content may take for blocks of `size_bytes`."""
    return 2 * size_bytes + NUMBERS.size + 12 * MAX_STRETCHES


def add_words(left: bytes, right: bytes) -> bytes:
    """Return the sums of two rows of words, each modulo 2^32. Both have the same number of whole words."""
    size = len(left)
    ones = int.from_bytes(b"\xff\xff\xff\x7f" * (size // WORD_BYTES), "little")
    tops = ones ^ ((1 << 8 * size) - 1)
    one, other = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    return (((one & ones) + (other & ones)) ^ ((one ^ other) & tops)).to_bytes(size, "little")


def apply_delta(plain: bytes, dictionary: bytes | bytearray, size_bytes: int) -> bytes:
    """Return the `size_bytes` of content that a delta frame's plain content describes. Raises DeltaError."""
    if len(plain) < NUMBERS.size:
        raise DeltaError("is too short for a delta")
    n_stretches, n_changes, n_table, n_escaped, rest_bytes = NUMBERS.unpack_from(plain)
    sizes = (12 * n_stretches, n_changes, n_changes, WORD_BYTES * n_table, WORD_BYTES * n_escaped, rest_bytes)
    if n_stretches > MAX_STRETCHES or NUMBERS.size + sum(sizes) != len(plain):
        raise DeltaError("has a delta whose parts do not make its whole")
    ends = list(accumulate(sizes, initial=NUMBERS.size))
    stretches, skips, which, table, escaped, rest = (plain[start:end] for start, end in pairwise(ends))
    found = _read_stretches(stretches, len(dictionary), rest_bytes)
    n_words = sum(stretch.words for stretch in found)
    if n_words * WORD_BYTES + rest_bytes != size_bytes:
        raise DeltaError(f"has a delta that does not give {size_bytes} bytes")
    like = b"".join(dictionary[s.offset : s.offset + s.words * WORD_BYTES] for s in found)
    changed = add_words(like, _differences(skips, which, table, escaped, n_words)) if n_changes or n_escaped else like
    return _woven(found, changed, rest)


def _read_stretches(data: bytes, dictionary_bytes: int, rest_bytes: int) -> list[Stretch]:
    count = len(data) // 12
    numbers = struct.unpack(f"<{3 * count}I", data)
    found = [
        Stretch(*values)
        for values in zip(numbers[:count], numbers[count : 2 * count], numbers[2 * count :], strict=True)
    ]
    for stretch in found:
        if not stretch.words or stretch.offset + stretch.words * WORD_BYTES > dictionary_bytes:
            raise DeltaError("has a delta that looks outside its dictionary")
    if sum(stretch.rest_bytes for stretch in found) > rest_bytes:
        raise DeltaError("has a delta with too little content of its own")
    return found


def _differences(skips: bytes, which: bytes, table: bytes, escaped: bytes, n_words: int) -> bytes:
    """Return the row of differences, zeros where there is none."""
    known, others = _words(table), _words(_interleaved(escaped))
    if which.count(ESCAPE) != len(others) or max(which.translate(None, bytes([ESCAPE])), default=-1) >= len(known):
        raise DeltaError("has a delta with a difference that is not there")
    if len(skips) + sum(skips) > n_words:
        raise DeltaError("has a delta that changes what is outside its stretches")
    row = array("I", bytes(WORD_BYTES * n_words))
    following = iter(others)
    at = -1
    for skip, number in zip(skips, which, strict=True):
        at += skip + 1
        row[at] = next(following) if number == ESCAPE else known[number]
    return _bytes(row)


def _words(data: bytes) -> array[int]:
    words = array("I", data)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _bytes(words: array[int]) -> bytes:
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def _interleaved(planes: bytes) -> bytes:
    whole, size = bytearray(len(planes)), len(planes) // WORD_BYTES
    for number in range(WORD_BYTES):
        whole[number::WORD_BYTES] = planes[number * size : (number + 1) * size]
    return bytes(whole)


def _woven(stretches: Sequence[Stretch], changed: bytes, rest: bytes) -> bytes:
    parts: list[bytes] = []
    at = used = 0
    for stretch in stretches:
        parts.append(rest[used : used + stretch.rest_bytes])
        parts.append(changed[at : at + stretch.words * WORD_BYTES])
        used, at = used + stretch.rest_bytes, at + stretch.words * WORD_BYTES
    parts.append(rest[used:])
    return b"".join(parts)
