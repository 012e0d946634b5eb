"""Writing delta frames: the inverse of `zentrid/bundle/delta.py`."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Sequence

from zentrid.bundle.delta import ESCAPE, MAX_SKIP, NUMBERS, WORD_BYTES, Stretch, add_words


def make_delta(content: bytes, dictionary: bytes, stretches: Sequence[Stretch]) -> bytes:
    """Return the plain content of a delta frame that makes `content` of the dictionary by these stretches."""
    rest, new, like = bytearray(), bytearray(), bytearray()
    at = 0
    for stretch in stretches:
        rest += content[at : at + stretch.rest_bytes]
        at += stretch.rest_bytes
        size = stretch.words * WORD_BYTES
        new += content[at : at + size]
        like += dictionary[stretch.offset : stretch.offset + size]
        at += size
    rest += content[at:]
    skips, values = _changes(_difference(bytes(new), bytes(like)))
    table = [value for value, count in Counter(values).most_common(ESCAPE) if count > 1 or not value]
    numbers = {value: number for number, value in enumerate(table)}
    which = bytes(numbers.get(value, ESCAPE) for value in values)
    escaped = _little([value for value in values if value not in numbers])
    columns = zip(*stretches, strict=True) if stretches else ()
    return b"".join(
        (
            NUMBERS.pack(len(stretches), len(values), len(table), len(escaped) // WORD_BYTES, len(rest)),
            *(_little(column) for column in columns),
            skips,
            which,
            _little(table),
            *(escaped[plane::WORD_BYTES] for plane in range(WORD_BYTES)),
            rest,
        )
    )


def _difference(new: bytes, like: bytes) -> bytes:
    """Return the row of words that `add_words` has to add to `like` to get `new`."""
    # new - like = new + not like + 1, word by word.
    inverted = (int.from_bytes(like, "little") ^ ((1 << 8 * len(like)) - 1)).to_bytes(len(like), "little")
    return add_words(add_words(new, inverted), b"\1\0\0\0" * (len(new) // WORD_BYTES))


def _changes(difference: bytes) -> tuple[bytes, list[int]]:
    """Return the words skipped before each change, and each change; a long way is made of changes by zero."""
    words = array("I", difference)
    if sys.byteorder == "big":
        words.byteswap()
    skips, values = bytearray(), []
    last = -1
    for at in [index for index, value in enumerate(words) if value]:
        skip = at - last - 1
        while skip > MAX_SKIP:
            skips.append(MAX_SKIP)
            values.append(0)
            skip -= MAX_SKIP + 1
        skips.append(skip)
        values.append(words[at])
        last = at
    return bytes(skips), values


def _little(values: Sequence[int]) -> bytes:
    words = array("I", values)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()
