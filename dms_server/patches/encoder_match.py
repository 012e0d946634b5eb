"""Finding what of an old version a new one is like: by features that content itself places, then word by word.

A feature is a few bytes that begin with one of some frequent ones, wherever they stand: insertions do not matter. One that
both versions have leads to a *stretch*: old and new are then compared word by word in both directions, as long as more
words are equal than not, because machine code keeps its shape while addresses in it change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

WORD_BYTES: Final = 4
BLOCK_BYTES: Final = 4096
_FEATURE: Final = re.compile(rb"[\x0a\x28\x5f\xaa\x91\x54\x73][^\x00].{10}", re.DOTALL)
_MAX_PLACES: Final = 6
"""Of one feature that are remembered: what is everywhere leads nowhere."""
_MIN_WORDS: Final = 8
_PATIENCE_WORDS: Final = 16
"""How many more different words than equal ones end a stretch."""
_STEP_BYTES: Final = 256
"""Equal content is passed in steps of this size."""


class Like(NamedTuple):
    """A piece of the new content that is like a piece of the old one; both may differ in single words."""

    start: int
    """In the new content (bytes, a multiple of 4)."""
    old: int
    """In the old content (bytes, any)."""
    size_bytes: int


@dataclass
class OldContent:
    """The content that windows may show, with its features. Takes about three times its size."""

    data: bytes
    places: dict[bytes, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for match in _FEATURE.finditer(self.data):
            known = self.places.get(match.group(), ())
            if len(known) < _MAX_PLACES:
                self.places[match.group()] = (*known, match.start())


def _features(new: bytes, old: OldContent) -> Iterator[tuple[int, tuple[int, ...]]]:
    for match in _FEATURE.finditer(new):
        if found := old.places.get(match.group()):
            yield match.start(), found


def compare(new: bytes, old: OldContent) -> tuple[list[Like], Counter[int]]:
    """Return the stretches of `new`, in order, and how many of its features each block of the old content has."""
    likes: list[Like] = []
    votes: Counter[int] = Counter()
    done = 0
    shift = 0
    for at, found in _features(new, old):
        nearest = min(found, key=lambda place: (abs(place - at - shift), place))
        votes[nearest // BLOCK_BYTES] += 1
        if at < done:
            continue
        # Content of words stays at multiples of four in both, whatever is put in before it.
        aligned = [place for place in found if not (place - at) % WORD_BYTES]
        if not aligned:
            continue
        place = min(aligned, key=lambda place: (abs(place - at - shift), place))
        like = _grow(new, old.data, at, place - at, done)
        shift = place - at
        if like is not None:
            likes.append(like)
            done = like.start + like.size_bytes
    return _joined(likes), votes


def _grow(new: bytes, old: bytes, at: int, shift: int, done: int) -> Like | None:
    """Return the stretch around `at` that lies `shift` bytes away in the old content; None if it is too short."""
    at -= at % WORD_BYTES
    first = max(done, -shift, 0)
    first += -first % WORD_BYTES
    last = min(len(new), len(old) - shift)
    start = _backwards(new, old, at, shift, first)
    end = _forwards(new, old, at, shift, last)
    if end - start < _MIN_WORDS * WORD_BYTES:
        return None
    return Like(start, start + shift, end - start)


def _forwards(new: bytes, old: bytes, at: int, shift: int, last: int) -> int:
    score = best_score = 0
    best = at
    while at + WORD_BYTES <= last:
        if at + _STEP_BYTES <= last and new[at : at + _STEP_BYTES] == old[at + shift : at + shift + _STEP_BYTES]:
            at += _STEP_BYTES
            score += _STEP_BYTES // WORD_BYTES
            best, best_score = (at, score) if score >= best_score else (best, best_score)
            continue
        # Not equal as a whole: a step's words one by one.
        for _ in range(min(_STEP_BYTES, last - at) // WORD_BYTES):
            score += 1 if new[at : at + WORD_BYTES] == old[at + shift : at + shift + WORD_BYTES] else -1
            at += WORD_BYTES
            if score >= best_score:
                best, best_score = at, score
            elif score < best_score - _PATIENCE_WORDS:
                return best
    return best


def _backwards(new: bytes, old: bytes, at: int, shift: int, first: int) -> int:
    score = best_score = 0
    best = at
    while at - WORD_BYTES >= first:
        at -= WORD_BYTES
        score += 1 if new[at : at + WORD_BYTES] == old[at + shift : at + shift + WORD_BYTES] else -1
        if score > best_score:
            best, best_score = at, score
        elif score < best_score - _PATIENCE_WORDS:
            break
    return best


def _joined(likes: list[Like]) -> list[Like]:
    """Join stretches that go on from one another."""
    joined: list[Like] = []
    for like in likes:
        last = joined[-1] if joined else None
        if last and last.start + last.size_bytes == like.start and last.old + last.size_bytes == like.old:
            joined[-1] = last._replace(size_bytes=last.size_bytes + like.size_bytes)
        else:
            joined.append(like)
    return joined
