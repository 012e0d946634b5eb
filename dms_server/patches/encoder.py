"""The patch between any two payloads, as small as it can be made within what a device can decode.

For each frame of missing blocks: what of the vanished blocks is it like, which of them make the dictionary, and is it
smaller as it is or as a delta. Same payloads give the same bytes, with the same version of libzstd. Pure computation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

import zstandard

from dms_server.patches.encoder_delta import make_delta
from dms_server.patches.encoder_match import Like, OldContent, compare
from zentrid.bundle.delta import MAX_STRETCHES, WORD_BYTES, Stretch
from zentrid.bundle.encode import Encoded, Frame, Progress, write_stream
from zentrid.bundle.layout import (
    MAX_DICTIONARY_BLOCKS,
    MAX_FRAME_BLOCKS,
    MAX_FRAME_WINDOWS,
    FrameKind,
    PatchError,
    Space,
    Window,
)
from zentrid.bundle.patch import missing_blocks, raw_dictionary, vanished_blocks
from zentrid.bundle.tree import BLOCK_BYTES, HashTree

LEVEL: Final = 19
TRIAL_LEVEL: Final = 6
CLOSE: Final = 1.4
"""Times as large as the smallest in the trial, and still tried at the real level."""
EARLIER_BLOCKS: Final = 256
"""Of the dictionary, for what came just before: new content is like its neighbours."""
VANISHED_BLOCKS: Final = MAX_DICTIONARY_BLOCKS - EARLIER_BLOCKS
ENOUGH_BLOCKS: Final = 448
"""A dictionary is filled up to this with blocks that have something in common with the frame."""
GAPS: Final = (1, 2, 4, 8, 16, 32)
"""Blocks between two parts of a dictionary that are taken along, so that there are not too many windows."""


def encode_patch(base: BinaryIO, target: BinaryIO, out: BinaryIO, *, progress: Progress | None = None) -> Encoded:
    """Write the patch from `base` to `target` to `out`; all seekable, all from where they stand.

    Both payloads are read twice. `progress` is called with missing blocks done and in all. Raises PatchError if one was
    changed in between, TreeError if one is too large, or OSError.
    """
    old, new = _Payload.read(base), _Payload.read(target)
    missing, vanished = missing_blocks(new.tree, old.tree), vanished_blocks(new.tree, old.tree)
    maker = _Maker(OldContent(old.blocks(vanished)), len(vanished))
    frames = []
    for first in range(0, len(missing), MAX_FRAME_BLOCKS):
        part = missing[first : first + MAX_FRAME_BLOCKS]
        earlier = missing[max(0, first - EARLIER_BLOCKS) : first]
        frames.append(maker.frame(first, new.blocks(part), new.blocks(earlier)))
        if progress is not None:
            progress(first + len(part), len(missing))
    stream_bytes = write_stream(out, new.tree, old.tree, missing, frames)
    return Encoded(new.tree, new.size_bytes, stream_bytes)


@dataclass(frozen=True)
class _Payload:
    """A payload in a file, and its tree."""

    stream: BinaryIO
    start: int
    size_bytes: int
    tree: HashTree

    @classmethod
    def read(cls, stream: BinaryIO) -> _Payload:
        start = stream.tell()
        tree = HashTree.from_reader(stream)
        return cls(stream, start, stream.tell() - start, tree)

    def blocks(self, indices: Sequence[int]) -> bytes:
        """Return some blocks, joined, each checked against the tree. Raises PatchError if one was changed."""
        return b"".join(self._checked(indices))

    def _checked(self, indices: Sequence[int]) -> Iterator[bytes]:
        for index in indices:
            self.stream.seek(self.start + index * BLOCK_BYTES)
            block = self.stream.read(min(BLOCK_BYTES, max(0, self.size_bytes - index * BLOCK_BYTES)))
            block += bytes(BLOCK_BYTES - len(block))
            if not self.tree.verify_block(index, block):
                raise PatchError(f"a payload was changed while it was read (block {index})")
            yield block


class _Maker:
    """Makes frames against one list of vanished blocks."""

    def __init__(self, old: OldContent, n_vanished: int) -> None:
        self._old = old
        self._n_vanished = n_vanished

    def frame(self, first: int, content: bytes, earlier: bytes) -> Frame:
        """Return the frame whose first block has the ordinal `first` in the missing list."""
        likes, votes = compare(content, self._old)
        windows = choose_windows(likes, votes, self._n_vanished)
        dictionary = b"".join(self._old.data[start * BLOCK_BYTES : (start + n) * BLOCK_BYTES] for start, n in windows)
        stretches = place_stretches(likes, windows)
        earlier_blocks = len(earlier) // BLOCK_BYTES
        dictionary += earlier
        chosen = tuple(Window(Space.VANISHED, start, blocks) for start, blocks in windows)
        if earlier:
            chosen += (Window(Space.EARLIER, first - earlier_blocks, earlier_blocks),)
        candidates = {FrameKind.PLAIN: content}
        if stretches:
            candidates[FrameKind.DELTA] = make_delta(content, dictionary, stretches)
        kind, data = _smallest(candidates, dictionary)
        return Frame(len(content) // BLOCK_BYTES, data, chosen, kind)


def _smallest(candidates: Mapping[FrameKind, bytes], dictionary: bytes) -> tuple[FrameKind, bytes]:
    """Return the kind that is smallest when compressed, and its bytes; a fast trial only rules out what is far behind."""
    trials = {kind: len(_compress(plain, dictionary, TRIAL_LEVEL)) for kind, plain in candidates.items()}
    near = [kind for kind, size in trials.items() if size < CLOSE * min(trials.values())]
    made = {kind: _compress(candidates[kind], dictionary, LEVEL) for kind in near}
    return min(made.items(), key=lambda item: (len(item[1]), item[0]))


def _compress(plain: bytes, dictionary: bytes, level: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(plain),
        dict_size=len(dictionary),
        window_log=max(17, (len(plain) + len(dictionary)).bit_length()),
        write_content_size=True,
        write_checksum=False,
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=raw_dictionary(dictionary)).compress(plain)


def choose_windows(likes: Sequence[Like], votes: Counter[int], n_vanished: int) -> list[tuple[int, int]]:
    """Return ranges (start, blocks) of the vanished list, ascending and apart, for a frame's dictionary.

    First what the longest stretches need, then the blocks with most in common, as far as there is room.
    """
    if n_vanished <= ENOUGH_BLOCKS:
        return [(0, n_vanished)] if n_vanished else []
    wanted: set[int] = set()
    for like in sorted(likes, key=lambda like: (-like.size_bytes, like.start)):
        blocks = range(like.old // BLOCK_BYTES, (like.old + like.size_bytes - 1) // BLOCK_BYTES + 1)
        if len(wanted.union(blocks)) <= VANISHED_BLOCKS - ENOUGH_BLOCKS // 2:
            wanted.update(blocks)
    for block, _ in sorted(votes.items(), key=lambda item: (-item[1], item[0])):
        if len(wanted) >= ENOUGH_BLOCKS:
            break
        wanted.add(block)
    for gap in GAPS:
        windows = _merged(sorted(wanted), gap)
        if len(windows) < MAX_FRAME_WINDOWS and sum(blocks for _, blocks in windows) <= VANISHED_BLOCKS:
            return windows
    # Scattered all over: the longest runs.
    windows = sorted(_merged(sorted(wanted), 1), key=lambda window: (-window[1], window[0]))
    return sorted(windows[: MAX_FRAME_WINDOWS - 1])


def _merged(blocks: Sequence[int], gap: int) -> list[tuple[int, int]]:
    windows: list[tuple[int, int]] = []
    for block in blocks:
        if windows and block - sum(windows[-1]) < gap:
            start, _ = windows[-1]
            windows[-1] = start, block + 1 - start
        else:
            windows.append((block, 1))
    return windows


def place_stretches(likes: Sequence[Like], windows: Sequence[tuple[int, int]]) -> list[Stretch]:
    """Return the stretches whose old content lies whole in the dictionary that the windows make."""
    places: dict[int, int] = {}
    for start, blocks in windows:
        for block in range(start, start + blocks):
            places[block] = len(places)
    stretches: list[Stretch] = []
    at = 0
    for like in likes:
        first, last = like.old // BLOCK_BYTES, (like.old + like.size_bytes - 1) // BLOCK_BYTES
        # Windows are apart, so blocks that follow one another in the list do so in the dictionary if they are there.
        if len(stretches) < MAX_STRETCHES and all(block in places for block in range(first, last + 1)):
            offset = places[first] * BLOCK_BYTES + like.old % BLOCK_BYTES
            stretches.append(Stretch(like.start - at, like.size_bytes // WORD_BYTES, offset))
            at = like.start + like.size_bytes
    return stretches
