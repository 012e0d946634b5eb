"""The patch stream: what a device needs to make a target payload out of a base payload that it has, or out of nothing.

Layout, all numbers big-endian:

- fixed part, 96 bytes: `ZPS1`, format (u16), 0 (u16), base root (32; zeros: from nothing), target root (32), blocks of
  the target, blocks of the base, missing blocks, frames, bytes of the leaf section (u32 each), 0 (u32);
- frame table, 16 bytes a frame: blocks in it (u16, 1 to 256), 0 (u16), compressed bytes, window start, window blocks
  (u32 each);
- leaf section: one zstd frame with the target's leaf hashes; the base's, if there is one, are its dictionary;
- frames: one zstd frame each, the next missing blocks; its dictionary is the window, if it names one.

*Missing* are the blocks of the target that the base lacks, *vanished* those of the base that the target lacks; each
block counts once, where it comes first. Both sides compute both lists from the two trees, so they are not sent. A
window is a range of the vanished list. From nothing, every block is missing and no frame has a window.

Nothing here is trusted: the leaf hashes must give the root that the signed manifest names, and each block must match
its leaf hash, which the caller checks before using it. Every length is bounded before anything is allocated for it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import zstandard

from zentrid.bundle.tree import (
    BLOCK_BYTES,
    HASH_BYTES,
    MAX_BLOCKS,
    HashTree,
    LeafIndex,
    Reader,
    TreeError,
    blocks_for,
    read_exactly,
)
from zentrid.errors import ZentriError

MAGIC: Final = b"ZPS1"
FORMAT: Final = 1
FROM_NOTHING: Final = bytes(HASH_BYTES)
"""The base root of a full payload."""
MAX_FRAME_BLOCKS: Final = 256
MAX_WINDOW_BLOCKS: Final = 512
"""2 MiB: bounds the memory that a device needs for a frame."""
MAX_FRAMES: Final = 65536

FIXED: Final = struct.Struct(">4sHH32s32sIIIIII")
TABLE_ENTRY: Final = struct.Struct(">HHIII")


class PatchError(ZentriError, ValueError):
    """A patch stream that is damaged, cut short, or made to harm; nothing of it may be used further."""

    reason = "bad_patch"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"patch stream: {problem}; fetch it again, or build and publish the bundle again")


class FrameEntry(NamedTuple):
    """Where one frame lies and what it holds."""

    first: int
    """Ordinal of its first block in the list of missing blocks."""
    blocks: int
    """How many it holds, 1 to 256."""
    offset: int
    """Of its first byte in the stream."""
    compressed_bytes: int
    window_start: int
    """Ordinal of the dictionary's first block in the list of vanished blocks."""
    window_blocks: int
    """Blocks of the dictionary; 0: the frame has none."""


def max_compressed_bytes(plain_bytes: int) -> int:
    """Return the most bytes that zstd makes of `plain_bytes` that cannot be compressed, with some room."""
    return plain_bytes + plain_bytes // 128 + 512


def missing_blocks(target: HashTree, base: HashTree | None = None) -> Sequence[int]:
    """Return the indices in the target of the blocks that the base lacks; of equal ones the first. In target order."""
    return _only_in(target, base)


def vanished_blocks(target: HashTree, base: HashTree) -> Sequence[int]:
    """Return the indices in the base of the blocks that the target lacks; of equal ones the first. In base order."""
    return _only_in(base, target)


def _only_in(tree: HashTree, other: HashTree | None) -> Sequence[int]:
    own, others = LeafIndex(tree), None if other is None else LeafIndex(other)
    # An array, because a list takes ten times as much.
    found = array("I")
    for index in range(tree.n_blocks):
        leaf = tree.leaf(index)
        if own.find(leaf) == index and (others is None or others.find(leaf) is None):
            found.append(index)
    return found


class _FixedPart(NamedTuple):
    """The first 96 bytes, checked."""

    base_root: bytes
    target_root: bytes
    target_blocks: int
    base_blocks: int
    missing: int
    frames: int
    leaf_bytes: int

    @classmethod
    def parse(cls, data: bytes) -> _FixedPart:
        magic, found_format, zero16, *values, zero32 = FIXED.unpack_from(data)
        _require(magic == MAGIC, "does not begin with ZPS1")
        _require(found_format == FORMAT, f"has format {found_format}, this software knows format {FORMAT}")
        _require(not zero16 and not zero32, "has a reserved field that is not zero")
        fixed = cls(*values)
        from_nothing = fixed.base_root == FROM_NOTHING
        _require(1 <= fixed.target_blocks <= MAX_BLOCKS, f"has a target of {fixed.target_blocks} blocks")
        _require(fixed.base_blocks <= MAX_BLOCKS, f"has a base of {fixed.base_blocks} blocks")
        _require(from_nothing == (not fixed.base_blocks), "has a base without blocks, or blocks without a base")
        _require(fixed.missing <= fixed.target_blocks, "has more missing blocks than blocks")
        _require(fixed.frames <= min(fixed.missing, MAX_FRAMES), f"has {fixed.frames} frames, more than allowed")
        _require(fixed.frames * MAX_FRAME_BLOCKS >= fixed.missing, "has too few frames for its missing blocks")
        leaf_limit = max_compressed_bytes(fixed.target_blocks * HASH_BYTES)
        _require(1 <= fixed.leaf_bytes <= leaf_limit, f"has a leaf section of {fixed.leaf_bytes} bytes")
        return fixed


@dataclass(frozen=True)
class PatchHeader:
    """A stream's fixed part and frame table; tells where the leaf section and each frame lie."""

    base_root: bytes
    """32 bytes; all zero: the patch is from nothing."""
    target_root: bytes
    target_blocks: int
    base_blocks: int
    missing: int
    """How many blocks the frames hold together."""
    leaf_offset: int
    """Of the leaf section in the stream; also the length of this header (bytes)."""
    leaf_bytes: int
    frames: tuple[FrameEntry, ...]

    @property
    def from_nothing(self) -> bool:
        """Whether this is a full payload."""
        return self.base_root == FROM_NOTHING

    @property
    def stream_bytes(self) -> int:
        """The length of the whole stream."""
        if not self.frames:
            return self.leaf_offset + self.leaf_bytes
        return self.frames[-1].offset + self.frames[-1].compressed_bytes

    @staticmethod
    def bytes_needed(data: bytes) -> int:
        """Return how many more bytes `parse` needs after `data`, as far as can be told now; 0: it has enough.

        Raises PatchError as soon as the bytes that are there cannot begin a stream.
        """
        if len(data) < FIXED.size:
            _require(data[: len(MAGIC)] == MAGIC[: len(data)], "does not begin with ZPS1")
            return FIXED.size - len(data)
        return max(0, FIXED.size + TABLE_ENTRY.size * _FixedPart.parse(data).frames - len(data))

    @classmethod
    def parse(cls, data: bytes) -> PatchHeader:
        """Return the header that `data` begins with; bytes after it are ignored. Raises PatchError."""
        _require(not cls.bytes_needed(data), "ends inside its header")
        fixed = _FixedPart.parse(data)
        leaf_offset = FIXED.size + TABLE_ENTRY.size * fixed.frames
        frames = tuple(_parse_table(data, fixed, leaf_offset + fixed.leaf_bytes))
        return cls(
            base_root=fixed.base_root,
            target_root=fixed.target_root,
            target_blocks=fixed.target_blocks,
            base_blocks=fixed.base_blocks,
            missing=fixed.missing,
            leaf_offset=leaf_offset,
            leaf_bytes=fixed.leaf_bytes,
            frames=frames,
        )

    @classmethod
    def read(cls, stream: Reader) -> PatchHeader:
        """Read exactly the header from the stream's beginning. Raises PatchError, or what reading raises."""
        data = b""
        while needed := cls.bytes_needed(data):
            part = read_exactly(stream, needed)
            _require(part, "ends inside its header")
            data += part
        return cls.parse(data)

    def decode_leaves(self, data: bytes, base: HashTree | None = None) -> HashTree:
        """Return the target's tree from the leaf section (`leaf_bytes` at `leaf_offset`) and the base's tree.

        Raises PatchError unless the tree has exactly the root and the missing blocks that this header names. That the
        root is the one in the signed manifest is for the caller to check.
        """
        base_root = FROM_NOTHING if base is None else base.root
        base_blocks = 0 if base is None else base.n_blocks
        _require(
            (base_root, base_blocks) == (self.base_root, self.base_blocks), "is from another base than the given one"
        )
        _require(len(data) == self.leaf_bytes, "ends inside its leaf section")
        leaves = _decompress(
            data, self.target_blocks * HASH_BYTES, b"" if base is None else base.leaves, "its leaf section"
        )
        tree = HashTree(leaves)
        _require(tree.root == self.target_root, "has leaf hashes that do not give its target's root hash")
        missing = len(missing_blocks(tree, base))
        _require(missing == self.missing, f"claims {self.missing} missing blocks where {missing} are")
        return tree


def _parse_table(data: bytes, fixed: _FixedPart, first_offset: int) -> Iterator[FrameEntry]:
    first, offset = 0, first_offset
    table = memoryview(data)[FIXED.size : FIXED.size + TABLE_ENTRY.size * fixed.frames]
    for index, (count, zero, compressed, start, blocks) in enumerate(TABLE_ENTRY.iter_unpack(table)):
        _require(1 <= count <= MAX_FRAME_BLOCKS and not zero, f"frame {index} holds {count} blocks")
        limit = max_compressed_bytes(count * BLOCK_BYTES)
        _require(1 <= compressed <= limit, f"frame {index} has {compressed} bytes, the limit is {limit}")
        _require(blocks <= MAX_WINDOW_BLOCKS, f"frame {index} has a window of {blocks} blocks")
        _require(start + blocks <= fixed.base_blocks, f"frame {index} has a window outside the base")
        _require(blocks or not start, f"frame {index} has an empty window that starts at {start}")
        yield FrameEntry(first, count, offset, compressed, start, blocks)
        first, offset = first + count, offset + compressed
    _require(first == fixed.missing, f"has {first} blocks in its frames where {fixed.missing} are missing")


def decode_frame(header: PatchHeader, index: int, data: bytes, dictionary: bytes = b"") -> list[bytes]:
    """Return the blocks of frame `index` (4096 bytes each) from its bytes and its window's blocks, joined.

    Raises PatchError unless the frame gives exactly its blocks; never allocates more than they take. Whether they are
    the right blocks is for the caller to check, against the leaf hashes.
    """
    frame = header.frames[index]
    what = f"frame {index}"
    _require(len(data) == frame.compressed_bytes, f"{what} has {len(data)} bytes, not {frame.compressed_bytes}")
    window_bytes = frame.window_blocks * BLOCK_BYTES
    _require(len(dictionary) == window_bytes, f"{what} needs a window of {window_bytes} bytes, not {len(dictionary)}")
    plain = _decompress(data, frame.blocks * BLOCK_BYTES, dictionary, what)
    return [plain[start : start + BLOCK_BYTES] for start in range(0, len(plain), BLOCK_BYTES)]


def raw_dictionary(content: bytes) -> zstandard.ZstdCompressionDict | None:
    """Return `content` as a zstd dictionary without structure; None for no content."""
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if content else None


def _decompress(data: bytes, plain_bytes: int, dictionary: bytes, what: str) -> bytes:
    """Return exactly `plain_bytes` from one zstd frame that says so itself; PatchError otherwise."""
    try:
        # A frame that claims another size is refused before anything is allocated; one that gives more than it claims
        # is refused by zstd, which writes into a buffer of the claimed size.
        claimed = zstandard.get_frame_parameters(data).content_size
        _require(claimed == plain_bytes, f"{what} does not say that it holds {plain_bytes} bytes")
        decompressor = zstandard.ZstdDecompressor(dict_data=raw_dictionary(dictionary))
        plain = decompressor.decompress(data, max_output_size=plain_bytes, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError):
        raise PatchError(f"{what} cannot be decompressed") from None
    _require(len(plain) == plain_bytes, f"{what} gives {len(plain)} bytes, not {plain_bytes}")
    return plain


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise PatchError(problem)


def unpack_full(
    stream: Reader,
    expected_root: bytes,
    size_bytes: int,
    write_at: Callable[[int, bytes], object] | None = None,
) -> PatchHeader:
    """Read a full payload's whole stream and check everything: root, every block, nothing after the end.

    `size_bytes` is the payload's true size. `write_at(offset_bytes, block)` gets every block of the payload once,
    checked, the last one with its filling; without it nothing is kept. Raises PatchError, or what reading and writing
    raise.
    """
    header = PatchHeader.read(stream)
    _require(header.from_nothing, "is from a base, a full payload is needed here")
    _require(header.target_root == expected_root, "is for another payload than the manifest names")
    blocks = _blocks_of(size_bytes)
    _require(header.target_blocks == blocks, f"has {header.target_blocks} blocks, the manifest's size needs {blocks}")
    tree = header.decode_leaves(read_exactly(stream, header.leaf_bytes))
    ordinals = missing_blocks(tree)
    copies = _copies(tree) if write_at is not None else {}
    for index, frame in enumerate(header.frames):
        data = read_exactly(stream, frame.compressed_bytes)
        for ordinal, block in enumerate(decode_frame(header, index, data), start=frame.first):
            target = ordinals[ordinal]
            _require(tree.verify_block(target, block), f"frame {index} gives a wrong block {target}")
            _require(_filling_is_zero(block, target, size_bytes), f"block {target} goes on after the payload's end")
            if write_at is not None:
                for place in (target, *copies.get(target, ())):
                    write_at(place * BLOCK_BYTES, block)
    _require(not stream.read(1), "goes on after its last frame")
    return header


def _blocks_of(size_bytes: int) -> int:
    try:
        return blocks_for(size_bytes)
    except TreeError as error:
        raise PatchError(str(error)) from None


def _filling_is_zero(block: bytes, index: int, size_bytes: int) -> bool:
    end = size_bytes - index * BLOCK_BYTES
    return end >= BLOCK_BYTES or not any(block[max(0, end) :])


def _copies(tree: HashTree) -> dict[int, list[int]]:
    """Return for blocks that occur again where: index of the first → indices of the others."""
    leaves = LeafIndex(tree)
    copies: dict[int, list[int]] = {}
    for index in range(tree.n_blocks):
        first = leaves.find(tree.leaf(index))
        if first is not None and first != index:
            copies.setdefault(first, []).append(index)
    return copies
