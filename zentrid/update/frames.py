"""One patch stream on its way into a target: head, frames that are needed, and what an interruption left of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from zentrid.bundle.patch import (
    PatchError,
    PatchHeader,
    Place,
    decode_frame,
    missing_blocks,
    vanished_blocks,
    window_places,
)
from zentrid.bundle.tree import BLOCK_BYTES, HashTree, TreeError
from zentrid.update.payloads import PatchSource, read_head
from zentrid.update.spool import StreamSpool
from zentrid.update.target import CHUNK_BLOCKS, TargetPayload
from zentrid.update.transport import StreamChangedError


class Patch:
    """A patch stream, its header and leaf hashes read and checked against the signed manifest."""

    def __init__(
        self,
        root_hash: str,
        n_blocks: int,
        stream: PatchSource,
        spool: StreamSpool,
        base: HashTree | None,
        base_fd: int | None,
    ) -> None:
        """`base_fd` gives the base's blocks.

        Raises PatchError, StreamChangedError (forget it, and try again), or the transport's errors.
        """
        self._stream = stream
        self._spool = spool
        self._base_fd = base_fd
        self._header: PatchHeader
        self.tree = self._read_tree(root_hash, n_blocks, base)
        base = None if self._header.from_nothing else base
        self._missing = missing_blocks(self.tree, base)
        self._vanished = [] if base is None else vanished_blocks(self.tree, base)

    def _read_tree(self, root_hash: str, n_blocks: int, base: HashTree | None) -> HashTree:
        """Return the target's tree, from the head that was kept or from the server; kept is only what was found right."""

        def check(header: PatchHeader) -> None:
            _check(header, root_hash, n_blocks, base)

        def decode(head: bytes) -> HashTree:
            self._header = PatchHeader.parse(head)
            check(self._header)
            leaves = memoryview(head)[self._header.leaf_offset :]
            return self._header.decode_leaves(leaves, None if self._header.from_nothing else base)

        kept = self._spool.head()
        if kept is not None:
            self._stream.known.etag, head = kept
            try:
                return decode(head)
            except (PatchError, TreeError) as error:
                raise StreamChangedError("what was kept of the stream does not fit any more") from error
        head = read_head(self._stream, check)
        tree = decode(head)
        self._spool.keep_head(self._stream.known.etag, head)
        return tree

    @property
    def from_nothing(self) -> bool:
        """Whether this is the full payload."""
        return self._header.from_nothing

    def forget(self) -> None:
        """Drop what is kept of the stream: the server has another one now."""
        self._spool.forget()

    def fetch_into(self, target: TargetPayload) -> None:
        """Fetch the frames that hold a block the target lacks, and write their blocks."""
        tried = 0
        while (run := self._next_run(target, tried)) is not None:
            self._fetch(target, *run)
            tried = run[1]
        target.flush()
        self._spool.forget_frame()

    def _next_run(self, target: TargetPayload, first: int) -> tuple[int, int] | None:
        """Return the next range of consecutive frames, from `first` on, that are needed: one request."""
        frames = self._header.frames
        while first < len(frames) and not self._needed(target, first):
            first += 1
        stop = first
        while stop < len(frames) and self._needed(target, stop):
            stop += 1
        return (first, stop) if first < stop else None

    def _needed(self, target: TargetPayload, number: int) -> bool:
        frame = self._header.frames[number]
        return not target.has_all(self._missing[frame.first : frame.first + frame.blocks])

    def _fetch(self, target: TargetPayload, start: int, stop: int) -> None:
        frames = self._header.frames
        kept = self._spool.frame(self._stream.known.etag, frames[start].offset)[: frames[start].compressed_bytes]
        if kept and not self._first_from(target, start, kept):
            # What was kept of this frame is damaged: once more, from its beginning.
            kept = b""
            self._spool.forget_frame()
        elif kept:
            start += 1
            kept = b""
        if start < stop:
            for number, data in enumerate(self._cut(start, stop), start):
                self._apply(target, number, data)

    def _first_from(self, target: TargetPayload, number: int, kept: bytes) -> bool:
        """Finish the frame whose first bytes were kept; False if they turn out to be wrong."""
        frame = self._header.frames[number]
        data = bytearray(kept)
        if len(data) < frame.compressed_bytes:
            for chunk in self._stream.read(frame.offset + len(data), frame.offset + frame.compressed_bytes):
                self._spool.append(self._stream.known.etag, frame.offset, len(data), chunk)
                data += chunk
        try:
            self._write(target, number, bytes(data))
        except PatchError:
            return False
        return not self._needed(target, number)

    def _cut(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield each frame's bytes out of one continuous read; holds one frame and one chunk at a time."""
        frames = self._header.frames[start:stop]
        chunks = self._stream.read(frames[0].offset, frames[-1].offset + frames[-1].compressed_bytes)
        held = bytearray()
        for frame in frames:
            kept = 0
            while True:
                part = memoryview(held)[kept : frame.compressed_bytes]
                if part:
                    self._spool.append(self._stream.known.etag, frame.offset, kept, part)
                    kept += len(part)
                del part
                if len(held) >= frame.compressed_bytes:
                    break
                held += next(chunks)
            data = bytes(memoryview(held)[: frame.compressed_bytes])
            del held[: frame.compressed_bytes]
            yield data

    def _apply(self, target: TargetPayload, number: int, data: bytes) -> None:
        try:
            self._write(target, number, data)
        except PatchError:
            # With a dictionary of this device's own blocks the fault may be ours: the full payload decides.
            if not self._header.frames[number].windows:
                raise

    def _write(self, target: TargetPayload, number: int, data: bytes) -> None:
        try:
            dictionary = self._dictionary(target, number)
        except OSError:
            raise PatchError(f"frame {number} needs blocks of the base that cannot be read") from None
        first = self._header.frames[number].first
        for ordinal, block in enumerate(decode_frame(self._header, number, data, dictionary), first):
            if not target.put(self._missing[ordinal], block):
                raise PatchError(f"frame {number} gives a wrong block {self._missing[ordinal]}")
        # So that a killed worker loses no frame that had arrived.
        target.flush()

    def _dictionary(self, target: TargetPayload, number: int) -> bytearray:
        # Made once and never copied: it is the largest thing that a frame needs.
        made = bytearray(self._header.frames[number].dictionary_blocks * BLOCK_BYTES)
        filled = 0
        for in_base, start, count in _pieces(window_places(self._header, number, self._missing, self._vanished)):
            fd = self._base_fd if in_base and self._base_fd is not None else target.fd
            for at in range(0, count, CHUNK_BLOCKS):
                piece = target.buffer.read(fd, start + at, min(CHUNK_BLOCKS, count - at))
                made[filled : filled + len(piece)] = piece
                filled += len(piece)
        return made


def _check(header: PatchHeader, root_hash: str, n_blocks: int, base: HashTree | None) -> None:
    """Raise PatchError for a stream that is not what was asked for."""
    if header.target_root.hex() != root_hash:
        raise PatchError("its hash tree is not the one that the signed manifest names")
    if header.target_blocks != n_blocks:
        raise PatchError(f"has {header.target_blocks} blocks, which is not the size that the signed manifest names")
    if not header.from_nothing and (base is None or header.base_root != base.root):
        raise PatchError("starts from a base that this device does not have")


def _pieces(places: Sequence[Place]) -> Iterator[tuple[bool, int, int]]:
    """Yield places as (in the base, first block, blocks) of consecutive blocks."""
    for (in_base, _), group in groupby(enumerate(places), key=lambda item: (item[1].in_base, item[1].index - item[0])):
        first, *rest = group
        yield in_base, first[1].index, 1 + len(rest)
