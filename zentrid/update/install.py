"""Filling a slot: blocks from where they already are, the rest from the patch stream; then reading everything back.

The order of the design: what is right on the target stays, what the running slot or the safe-mode system has is copied, only
the frames that hold a block still missing are fetched. A cut at any point costs at most the frame that was under way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from zentrid.adapters.blockdev import read_at, size_bytes
from zentrid.bundle.patch import FrameEntry, PatchError, decode_frame, missing_blocks, vanished_blocks, window_places
from zentrid.bundle.tree import BLOCK_BYTES, HashTree, TreeError, blocks_for, tree_bytes_for
from zentrid.core.fit import read_configuration
from zentrid.core.names import SlotName
from zentrid.core.version import Version
from zentrid.update.errors import PayloadError, UntrustedError
from zentrid.update.payloads import PatchSource, Payloads, read_header, read_range
from zentrid.update.target import Source, TargetPayload, copy_known, leaves_of, read_back, write_tree

_PARTS = 10
"""Of the progress bar: nine tenths are getting the blocks there, one tenth is reading them back."""


@dataclass(frozen=True)
class ItemJob:
    """One payload and where it goes."""

    name: str
    """`kernel` or `rootfs`, for messages."""
    root_hash: str
    """64 hexadecimal digits, from the signed manifest."""
    size_bytes: int
    """True size, from the signed manifest."""
    fd: int
    """The target partition, open for reading and writing."""
    sources: tuple[Source, ...] = ()
    """The first one is the base that the server may make a patch from."""
    with_tree: bool = False
    """The verity tree follows the data."""


class News:
    """Counts blocks and turns them into percent."""

    def __init__(self, tell: Callable[[str, int], None], total_blocks: int) -> None:
        self._tell = tell
        self._total = max(total_blocks, 1)
        self._there = 0
        self._checked = 0

    def there(self, blocks: int) -> None:
        """Count blocks that are on the target."""
        self._there = min(self._there + blocks, self._total)
        self._tell("downloading", self._there * 100 * (_PARTS - 1) // (self._total * _PARTS))

    def checked(self, blocks: int) -> None:
        """Count blocks that were read back."""
        self._checked = min(self._checked + blocks, self._total)
        self._tell("verifying", 100 * (_PARTS - 1) // _PARTS + self._checked * 100 // (self._total * _PARTS))


def install(jobs: tuple[ItemJob, ...], payloads: Payloads, tell: Callable[[str, int], None]) -> None:
    """Fill every target and read it back. When this returns, what the signed manifest names is on the medium.

    `tell(phase, percent)` is called often. Raises PayloadError (which item, what is wrong), or the transport's errors.
    """
    news = News(tell, sum(blocks_for(job.size_bytes) for job in jobs))
    trees = []
    for job in jobs:
        try:
            trees.append(_fill(job, payloads, news))
        except (PatchError, TreeError) as error:
            raise PayloadError(f"{job.name}: {error}") from error
        except OSError as error:
            raise PayloadError(
                f"{job.name}: the target cannot be written ({error.strerror}); check the disk"
            ) from error
    for job, tree in zip(jobs, trees, strict=True):
        try:
            read_back(job.name, job.fd, tree, news.checked, with_tree=job.with_tree)
        except OSError as error:
            raise PayloadError(
                f"{job.name}: the target cannot be read back ({error.strerror}); check the disk"
            ) from error


def _fill(job: ItemJob, payloads: Payloads, news: News) -> HashTree:
    _check_room(job)
    base = _base_tree(job)
    target: TargetPayload | None = None
    for base_hash in (base.root.hex(), None) if base else (None,):
        patch = _Patch(job, payloads.open(job.root_hash, base_hash), base)
        if target is None:
            target = TargetPayload(job.fd, patch.tree, news.there)
            target.scan()
            _copy_from_sources(target, job)
        patch.fetch_into(target)
        if target.complete:
            break
        # A block of the base turned out to be damaged: the patch from nothing has every block.
    if target is None or not target.complete:
        raise PayloadError(f"{job.name}: the payload lacks blocks that the signed tree has; publish the bundle again")
    if job.with_tree:
        write_tree(job.fd, target.tree)
    os.fsync(job.fd)
    return target.tree


def _check_room(job: ItemJob) -> None:
    blocks = blocks_for(job.size_bytes)
    needed = blocks * BLOCK_BYTES + (tree_bytes_for(blocks) if job.with_tree else 0)
    room = size_bytes(job.fd)
    if needed > room:
        raise PayloadError(f"{job.name}: takes {needed} bytes, the partition has {room}; build a smaller image")


def _base_tree(job: ItemJob) -> HashTree | None:
    """Return the tree of the first source if it has one that is whole."""
    if not job.sources or job.sources[0].data_blocks is None:
        return None
    leaves = leaves_of(job.sources[0])
    try:
        return HashTree(leaves) if len(leaves) // 32 == job.sources[0].data_blocks else None
    except TreeError:
        return None


def _copy_from_sources(target: TargetPayload, job: ItemJob) -> None:
    for source in job.sources:
        if target.complete:
            return
        copy_known(target, source, leaves_of(source))


class _Patch:
    """One patch stream, its header and leaf hashes read and checked against the signed manifest."""

    def __init__(self, job: ItemJob, stream: PatchSource, base: HashTree | None) -> None:
        self._job = job
        self._stream = stream
        self._header = read_header(stream)
        self._base = None if self._header.from_nothing else base
        self._check(base)
        end = self._header.leaf_offset + self._header.leaf_bytes
        self.tree = self._header.decode_leaves(read_range(stream, self._header.leaf_offset, end), self._base)
        self._missing = missing_blocks(self.tree, self._base)
        self._vanished = [] if self._base is None else vanished_blocks(self.tree, self._base)

    def _check(self, base: HashTree | None) -> None:
        header = self._header
        if header.target_root.hex() != self._job.root_hash:
            raise PatchError("its hash tree is not the one that the signed manifest names")
        if header.target_blocks != blocks_for(self._job.size_bytes):
            raise PatchError(f"has {header.target_blocks} blocks, which is not the size that the signed manifest names")
        if not header.from_nothing and (base is None or header.base_root != base.root):
            raise PatchError("starts from a base that this device does not have")

    def fetch_into(self, target: TargetPayload) -> None:
        """Fetch the frames that hold a block the target lacks, and write their blocks."""
        for start, stop in self._runs_needed(target):
            frames = self._header.frames[start:stop]
            for number, data in enumerate(_cut(self._stream, frames), start):
                self._apply(target, number, data)
        target.flush()

    def _runs_needed(self, target: TargetPayload) -> Iterator[tuple[int, int]]:
        """Yield ranges of consecutive frames that are needed: one request each."""
        start: int | None = None
        for number, frame in enumerate(self._header.frames):
            ordinals = range(frame.first, frame.first + frame.blocks)
            needed = not all(target.has(self._missing[ordinal]) for ordinal in ordinals)
            if needed and start is None:
                start = number
            elif not needed and start is not None:
                yield start, number
                start = None
        if start is not None:
            yield start, len(self._header.frames)

    def _apply(self, target: TargetPayload, number: int, data: bytes) -> None:
        frame = self._header.frames[number]
        try:
            blocks = decode_frame(self._header, number, data, self._dictionary(number))
            for ordinal, block in enumerate(blocks, frame.first):
                if not target.put(self._missing[ordinal], block):
                    raise PatchError(f"frame {number} gives a wrong block {self._missing[ordinal]}")
            # So that a killed worker loses no frame that had arrived.
            target.flush()
        except PatchError:
            # With a dictionary of this device's own blocks the fault may be ours: the full payload decides.
            if not frame.windows:
                raise

    def _dictionary(self, number: int) -> bytes:
        places = window_places(self._header, number, self._missing, self._vanished)
        fds = {place.in_base: self._job.sources[0].fd if place.in_base else self._job.fd for place in places}
        return b"".join(read_at(fds[place.in_base], place.index * BLOCK_BYTES, BLOCK_BYTES) for place in places)


def _cut(stream: PatchSource, frames: tuple[FrameEntry, ...]) -> Iterator[bytes]:
    """Yield each frame's bytes out of one continuous read; holds one frame and one chunk at a time."""
    chunks = stream.read(frames[0].offset, frames[-1].offset + frames[-1].compressed_bytes)
    held = bytearray()
    for frame in frames:
        while len(held) < frame.compressed_bytes:
            held += next(chunks)
        yield bytes(held[: frame.compressed_bytes])
        del held[: frame.compressed_bytes]


def check_fit(kernel_fd: int, slot: SlotName, version: Version, rootfs_hash: str, rootfs_blocks: int) -> None:
    """Check that the kernel just written starts this slot with the rootfs just written: no mixture of releases.

    Raises UntrustedError.
    """
    found = read_configuration(lambda offset, size: read_at(kernel_fd, offset, size), slot)
    verity = found.verity if found else None
    if found is None or verity is None:
        raise UntrustedError(
            f"the kernel image has no configuration for slot {slot}; build the release again", "bad_fit"
        )
    if (verity.root_hash, verity.data_blocks, verity.tree_start_block) != (rootfs_hash, rootfs_blocks, rootfs_blocks):
        raise UntrustedError(
            "the kernel image belongs to another root file system than the one in the manifest; build the release again",
            "mixed_release",
        )
    if found.version != version:
        raise UntrustedError(
            f"the kernel image says version {found.version}, the manifest says {version}; build the release again",
            "mixed_release",
        )
