"""The numbers of a patch stream's beginning: fixed part, frame table, window table. See `zentrid/bundle/patch.py`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from zentrid.bundle.runs import RUN_LIMIT_BYTES
from zentrid.bundle.tree import BLOCK_BYTES, HASH_BYTES, MAX_BLOCKS
from zentrid.errors import ZentriError

MAGIC: Final = b"ZPS1"
FORMAT: Final = 1
FROM_NOTHING: Final = bytes(HASH_BYTES)
"""The base root of a full payload."""
MAX_FRAME_BLOCKS: Final = 256
MAX_DICTIONARY_BLOCKS: Final = 1024
"""4 MiB, all windows of a frame together: bounds the memory that a device needs for a frame."""
MAX_REACH_BLOCKS: Final = 1024
"""How far before its own first block a frame from nothing may look."""
MAX_FRAME_WINDOWS: Final = 255
MAX_FRAMES: Final = 16384
MAX_WINDOWS: Final = 1 << 18

FIXED: Final = struct.Struct(">4sHH32s32sIIIIII")
TABLE_ENTRY: Final = struct.Struct(">BBBBI")
WINDOW_ENTRY: Final = struct.Struct(">I")


class PatchError(ZentriError, ValueError):
    """A patch stream that is damaged, cut short, or made to harm; nothing of it may be used further."""

    reason = "bad_patch"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"patch stream: {problem}; fetch it again, or build and publish the bundle again")


class Space(IntEnum):
    """What the blocks of a window are counted in."""

    BASE = 0
    """Blocks of the base."""
    VANISHED = 1
    """The list of vanished blocks."""
    EARLIER = 2
    """The list of missing blocks, before the frame's own."""


class FrameKind(IntEnum):
    """What a frame's zstd frame holds."""

    PLAIN = 0
    """Its blocks."""
    DELTA = 1
    """How they differ from its dictionary: `zentrid/bundle/delta.py`."""


class Window(NamedTuple):
    """A part of a frame's dictionary."""

    space: Space
    start: int
    blocks: int
    """1 to 1024."""


class Place(NamedTuple):
    """Where a block of a dictionary is."""

    in_base: bool
    """In the base; else in the target, where earlier frames or other sources put it."""
    index: int  # type: ignore[assignment]  # shadows a method of tuples that nobody wants of a place


class FrameEntry(NamedTuple):
    """Where one frame lies and what it holds."""

    first: int
    """Ordinal of its first block in the list of missing blocks."""
    blocks: int
    """How many it holds, 1 to 256."""
    kind: FrameKind
    offset: int
    """Of its first byte in the stream."""
    compressed_bytes: int
    first_window: int
    """Ordinal of its first window in the window table."""
    windows: int
    """How many it has; 0: it has no dictionary."""
    dictionary_blocks: int
    """Blocks of its windows together."""


def max_compressed_bytes(plain_bytes: int) -> int:
    """Return the most bytes that zstd makes of `plain_bytes` that cannot be compressed, with some room."""
    return plain_bytes + plain_bytes // 128 + 512


def require(condition: object, problem: str) -> None:
    """Raise PatchError unless the condition holds."""
    if not condition:
        raise PatchError(problem)


class FixedPart(NamedTuple):
    """The first 96 bytes, checked."""

    base_root: bytes
    target_root: bytes
    target_blocks: int
    base_blocks: int
    missing: int
    frames: int
    windows: int
    runs_bytes: int

    @property
    def leaf_offset(self) -> int:
        """Where the leaf section begins, after the tables (bytes)."""
        return FIXED.size + TABLE_ENTRY.size * self.frames + WINDOW_ENTRY.size * self.windows

    @classmethod
    def parse(cls, data: bytes) -> FixedPart:
        """Return the numbers that `data` begins with. Raises PatchError."""
        magic, found_format, zero16, *values = FIXED.unpack_from(data)
        require(magic == MAGIC, "does not begin with ZPS1")
        require(found_format == FORMAT, f"has format {found_format}, this software knows format {FORMAT}")
        require(not zero16, "has a reserved field that is not zero")
        fixed = cls(*values)
        from_nothing = fixed.base_root == FROM_NOTHING
        require(1 <= fixed.target_blocks <= MAX_BLOCKS, f"has a target of {fixed.target_blocks} blocks")
        require(fixed.base_blocks <= MAX_BLOCKS, f"has a base of {fixed.base_blocks} blocks")
        require(from_nothing == (not fixed.base_blocks), "has a base without blocks, or blocks without a base")
        require(fixed.missing <= fixed.target_blocks, "has more missing blocks than blocks")
        require(fixed.frames <= min(fixed.missing, MAX_FRAMES), f"has {fixed.frames} frames, more than allowed")
        require(fixed.frames * MAX_FRAME_BLOCKS >= fixed.missing, "has too few frames for its missing blocks")
        require(
            fixed.windows <= min(fixed.frames * MAX_FRAME_WINDOWS, MAX_WINDOWS),
            f"has {fixed.windows} windows, more than allowed",
        )
        runs_limit = max_compressed_bytes(fixed.target_blocks * RUN_LIMIT_BYTES)
        require(1 <= fixed.runs_bytes <= runs_limit, f"has a run list of {fixed.runs_bytes} bytes")
        return fixed


def parse_table(data: bytes, fixed: FixedPart, window_table: bytes, first_offset: int) -> Iterator[FrameEntry]:
    """Yield the frames of a header, checked; the first one lies at `first_offset`. Raises PatchError."""
    first, offset, window = 0, first_offset, 0
    table = memoryview(data)[FIXED.size : FIXED.size + TABLE_ENTRY.size * fixed.frames]
    for index, (count, kind, windows, zero, compressed) in enumerate(TABLE_ENTRY.iter_unpack(table)):
        count += 1
        require(kind in _KINDS and not zero, f"frame {index} is of an unknown kind")
        limit = max_compressed_bytes(count * BLOCK_BYTES)
        require(1 <= compressed <= limit, f"frame {index} has {compressed} bytes, the limit is {limit}")
        require(window + windows <= fixed.windows, f"frame {index} has more windows than there are")
        dictionary_blocks = 0
        for number in range(window, window + windows):
            dictionary_blocks += _check_window(window_at(window_table, number), fixed, first, index)
        require(dictionary_blocks <= MAX_DICTIONARY_BLOCKS, f"frame {index} has {dictionary_blocks} blocks in windows")
        require(kind == FrameKind.PLAIN or windows, f"frame {index} is a delta of nothing")
        yield FrameEntry(first, count, FrameKind(kind), offset, compressed, window, windows, dictionary_blocks)
        first, offset, window = first + count, offset + compressed, window + windows
    require(first == fixed.missing, f"has {first} blocks in its frames where {fixed.missing} are missing")
    require(window == fixed.windows, f"has {fixed.windows} windows of which its frames use {window}")


def window_at(window_table: bytes, number: int) -> Window:
    """Return a window of the table. Raises PatchError if its space is unknown."""
    (entry,) = WINDOW_ENTRY.unpack_from(window_table, number * WINDOW_ENTRY.size)
    space = entry >> 30
    require(space in _SPACES, f"window {number} is of an unknown kind")
    return Window(Space(space), entry >> 10 & 0xFFFFF, (entry & 0x3FF) + 1)


_SPACES: Final = frozenset(Space)
_KINDS: Final = frozenset(FrameKind)


def window_entry(window: Window) -> bytes:
    """Return a window's four bytes in the table."""
    return WINDOW_ENTRY.pack(window.space << 30 | window.start << 10 | window.blocks - 1)


def _check_window(window: Window, fixed: FixedPart, first: int, index: int) -> int:
    """Return the window's blocks; PatchError if it reaches outside what its space can have."""
    end = window.start + window.blocks
    if window.space == Space.EARLIER:
        require(end <= first, f"frame {index} has a window into blocks that come later")
        reach = first if fixed.base_blocks else MAX_REACH_BLOCKS
        require(first - window.start <= reach, f"frame {index} has a window that reaches back too far")
    else:
        require(end <= fixed.base_blocks, f"frame {index} has a window outside the base")
    return window.blocks
