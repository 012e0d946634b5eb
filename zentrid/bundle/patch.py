"""The patch stream: what a device needs to make a target payload out of a base payload that it has, or out of nothing.

Layout, all numbers big-endian:

- fixed part, 96 bytes: `ZPS1`, format (u16), 0 (u16), base root (32; zeros: from nothing), target root (32), blocks of
  the target, blocks of the base, missing blocks, frames, windows, bytes of the compressed run list (u32 each);
- frame table, 8 bytes a frame: blocks in it minus one (u8), kind (u8; 1: delta), windows (u8), 0 (u8), compressed bytes (u32);
- window table, 4 bytes a window, in the frames' order: space (2 bits), start (20 bits), blocks minus one (10 bits);
- leaf section: the run list (`zentrid/bundle/runs.py`, one zstd frame), then the missing blocks' hashes (32 each);
- frames: one zstd frame each, the next missing blocks, or a delta (`zentrid/bundle/delta.py`) that gives them; its
  dictionary is its windows' blocks, joined.

*Missing* are the blocks of the target that the base lacks, *vanished* those of the base that the target lacks; each
block counts once, where it comes first. Both sides compute both lists from the two trees, so they are not sent. A
window is a range of the base's blocks, of the vanished list, or of the missing list before its own frame: frames are
applied in order. From nothing, every block is missing, and a window reaches back 4 MiB at most, so that a stream can be
checked without keeping its payload.

Nothing here is trusted: the leaf hashes must give the root that the signed manifest names, and each block must match
its leaf hash, which the caller checks before using it. Every length is bounded before anything is allocated for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import zstandard

from zentrid.bundle.delta import DeltaError, apply_delta, limit_bytes
from zentrid.bundle.layout import (
    FIXED,
    FROM_NOTHING,
    MAGIC,
    MAX_REACH_BLOCKS,
    WINDOW_ENTRY,
    FixedPart,
    FrameEntry,
    FrameKind,
    PatchError,
    Place,
    Space,
    max_compressed_bytes,
    parse_table,
    require,
    window_at,
)
from zentrid.bundle.leafset import only_in
from zentrid.bundle.runs import RUN_LIMIT_BYTES, RunError, expand_runs
from zentrid.bundle.tree import (
    BLOCK_BYTES,
    HASH_BYTES,
    HashTree,
    LeafIndex,
    Reader,
    TreeError,
    blocks_for,
    read_exactly,
)

__all__ = [
    "FrameEntry",
    "PatchError",
    "PatchHeader",
    "Place",
    "decode_frame",
    "max_compressed_bytes",
    "missing_blocks",
    "unpack_full",
    "vanished_blocks",
    "window_places",
]


def missing_blocks(target: HashTree, base: HashTree | None = None) -> Sequence[int]:
    """Return the indices in the target of the blocks that the base lacks; of equal ones the first. In target order."""
    return only_in(target.leaves, None if base is None else base.leaves)


def vanished_blocks(target: HashTree, base: HashTree) -> Sequence[int]:
    """Return the indices in the base of the blocks that the target lacks; of equal ones the first. In base order."""
    return only_in(base.leaves, target.leaves)


@dataclass(frozen=True)
class PatchHeader:
    """A stream's fixed part and tables; tells where the leaf section and each frame lie."""

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
    window_table: bytes
    """As in the stream: there may be many, and a device has little memory."""

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
            require(data[: len(MAGIC)] == MAGIC[: len(data)], "does not begin with ZPS1")
            return FIXED.size - len(data)
        return max(0, FixedPart.parse(data).leaf_offset - len(data))

    @classmethod
    def parse(cls, data: bytes) -> PatchHeader:
        """Return the header that `data` begins with; bytes after it are ignored. Raises PatchError."""
        require(not cls.bytes_needed(data), "ends inside its header")
        fixed = FixedPart.parse(data)
        leaf_bytes = fixed.runs_bytes + fixed.missing * HASH_BYTES
        window_table = data[fixed.leaf_offset - WINDOW_ENTRY.size * fixed.windows : fixed.leaf_offset]
        return cls(
            base_root=fixed.base_root,
            target_root=fixed.target_root,
            target_blocks=fixed.target_blocks,
            base_blocks=fixed.base_blocks,
            missing=fixed.missing,
            leaf_offset=fixed.leaf_offset,
            leaf_bytes=leaf_bytes,
            frames=tuple(parse_table(data, fixed, window_table, fixed.leaf_offset + leaf_bytes)),
            window_table=window_table,
        )

    @classmethod
    def read(cls, stream: Reader) -> PatchHeader:
        """Read exactly the header from the stream's beginning. Raises PatchError, or what reading raises."""
        data = b""
        while needed := cls.bytes_needed(data):
            part = read_exactly(stream, needed)
            require(part, "ends inside its header")
            data += part
        return cls.parse(data)

    def decode_leaves(self, data: bytes | memoryview, base: HashTree | None = None) -> HashTree:
        """Return the target's tree from the leaf section (`leaf_bytes` at `leaf_offset`) and the base's tree.

        Raises PatchError unless the tree has exactly the root and the missing blocks that this header names. That the
        root is the one in the signed manifest is for the caller to check.
        """
        base_root = FROM_NOTHING if base is None else base.root
        base_blocks = 0 if base is None else base.n_blocks
        require(
            (base_root, base_blocks) == (self.base_root, self.base_blocks), "is from another base than the given one"
        )
        require(len(data) == self.leaf_bytes, "ends inside its leaf section")
        runs_bytes = self.leaf_bytes - self.missing * HASH_BYTES
        runs = _decompress(data[:runs_bytes], None, self.target_blocks * RUN_LIMIT_BYTES, b"", "its run list")
        try:
            tree = HashTree(expand_runs(runs, data[runs_bytes:], self.target_blocks, base))
        except RunError as error:
            raise PatchError(str(error)) from None
        require(tree.root == self.target_root, "has leaf hashes that do not give its target's root hash")
        missing = len(missing_blocks(tree, base))
        require(missing == self.missing, f"claims {self.missing} missing blocks where {missing} are")
        return tree


def window_places(header: PatchHeader, index: int, missing: Sequence[int], vanished: Sequence[int]) -> Sequence[Place]:
    """Return the places whose blocks, joined in this order, are the dictionary of frame `index`; at most 1024.

    `missing` and `vanished` are what `missing_blocks` and `vanished_blocks` give for the two trees. Raises PatchError
    for a window outside the vanished list.
    """
    places: list[Place] = []
    frame = header.frames[index]
    for number in range(frame.first_window, frame.first_window + frame.windows):
        window = window_at(header.window_table, number)
        ordinals = range(window.start, window.start + window.blocks)
        if window.space == Space.BASE:
            places += [Place(True, ordinal) for ordinal in ordinals]
        elif window.space == Space.EARLIER:
            places += [Place(False, missing[ordinal]) for ordinal in ordinals]
        else:
            require(ordinals.stop <= len(vanished), f"frame {index} has a window outside the vanished blocks")
            places += [Place(True, vanished[ordinal]) for ordinal in ordinals]
    return places


def decode_frame(header: PatchHeader, index: int, data: bytes, dictionary: bytes | bytearray = b"") -> list[bytes]:
    """Return the blocks of frame `index` (4096 bytes each) from its bytes and its windows' blocks, joined.

    Raises PatchError unless the frame gives exactly its blocks; never allocates more than they take. Whether they are
    the right blocks is for the caller to check, against the leaf hashes.
    """
    frame = header.frames[index]
    what = f"frame {index}"
    require(len(data) == frame.compressed_bytes, f"{what} has {len(data)} bytes, not {frame.compressed_bytes}")
    needed = frame.dictionary_blocks * BLOCK_BYTES
    require(len(dictionary) == needed, f"{what} needs a dictionary of {needed} bytes, not {len(dictionary)}")
    size = frame.blocks * BLOCK_BYTES
    if frame.kind == FrameKind.PLAIN:
        plain = _decompress(data, size, size, dictionary, what)
    else:
        try:
            plain = apply_delta(_decompress(data, None, limit_bytes(size), dictionary, what), dictionary, size)
        except DeltaError as error:
            raise PatchError(f"{what} {error}") from None
    return [plain[start : start + BLOCK_BYTES] for start in range(0, len(plain), BLOCK_BYTES)]


def raw_dictionary(content: bytes | bytearray) -> zstandard.ZstdCompressionDict | None:
    """Return `content` as a zstd dictionary without structure; None for no content."""
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if content else None


def _decompress(
    data: bytes | memoryview, plain_bytes: int | None, limit_bytes: int, dictionary: bytes | bytearray, what: str
) -> bytes:
    """Return what one zstd frame says that it holds: exactly `plain_bytes` if given, never more than the limit."""
    try:
        # A frame that claims another size is refused before anything is allocated; one that gives more than it claims
        # is refused by zstd, which writes into a buffer of the claimed size.
        claimed = zstandard.get_frame_parameters(data).content_size
        if plain_bytes is not None:
            require(claimed == plain_bytes, f"{what} does not say that it holds {plain_bytes} bytes")
        require(1 <= claimed <= limit_bytes, f"{what} does not say that it holds at most {limit_bytes} bytes")
        decompressor = zstandard.ZstdDecompressor(dict_data=raw_dictionary(dictionary))
        plain = decompressor.decompress(data, max_output_size=claimed, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError):
        raise PatchError(f"{what} cannot be decompressed") from None
    require(len(plain) == claimed, f"{what} gives {len(plain)} bytes, not {claimed}")
    return plain


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
    require(header.from_nothing, "is from a base, a full payload is needed here")
    require(header.target_root == expected_root, "is for another payload than the manifest names")
    blocks = _blocks_of(size_bytes)
    require(header.target_blocks == blocks, f"has {header.target_blocks} blocks, the manifest's size needs {blocks}")
    tree = header.decode_leaves(read_exactly(stream, header.leaf_bytes))
    ordinals = missing_blocks(tree)
    copies = _copies(tree) if write_at is not None else {}
    earlier: deque[bytes] = deque(maxlen=MAX_REACH_BLOCKS if header.window_table else 0)
    for index, frame in enumerate(header.frames):
        data = read_exactly(stream, frame.compressed_bytes)
        dictionary = _earlier_blocks(header, frame, earlier)
        for ordinal, block in enumerate(decode_frame(header, index, data, dictionary), start=frame.first):
            target = ordinals[ordinal]
            earlier.append(block)
            require(tree.verify_block(target, block), f"frame {index} gives a wrong block {target}")
            require(_filling_is_zero(block, target, size_bytes), f"block {target} goes on after the payload's end")
            if write_at is not None:
                for place in (target, *copies.get(target, ())):
                    write_at(place * BLOCK_BYTES, block)
    require(not stream.read(1), "goes on after its last frame")
    return header


def _earlier_blocks(header: PatchHeader, frame: FrameEntry, earlier: deque[bytes]) -> bytes:
    """Return a frame's dictionary out of the last blocks before it."""
    parts: list[bytes] = []
    for number in range(frame.first_window, frame.first_window + frame.windows):
        window = window_at(header.window_table, number)
        start = window.start - frame.first + len(earlier)
        parts += islice(earlier, start, start + window.blocks)
    return b"".join(parts)


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
