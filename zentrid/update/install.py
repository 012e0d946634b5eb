"""Filling a slot: blocks from where they already are, the rest from the patch stream; then reading everything back.

The order of the design: what is right on the target stays, what the device has elsewhere is copied, only the frames that hold a
block still missing are fetched. A cut at any point costs at most the moment since data was made durable last.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zentrid.adapters.blockdev import read_at, size_bytes
from zentrid.bundle.patch import PatchError
from zentrid.bundle.tree import BLOCK_BYTES, HashTree, TreeError, blocks_for, tree_bytes_for
from zentrid.core.fit import read_configuration
from zentrid.core.names import SlotName
from zentrid.core.version import Version
from zentrid.update.errors import PayloadError, UntrustedError
from zentrid.update.frames import Patch
from zentrid.update.payloads import PatchNotReadyError, Payloads
from zentrid.update.sources import Past, Source, is_whole, prepared, use_what_is_here
from zentrid.update.spool import Spool
from zentrid.update.target import TargetPayload, direct, not_as_written, read_back, write_tree
from zentrid.update.transport import StreamChangedError

log = logging.getLogger(__name__)

_PARTS: Final = 10
"""Of the progress bar: nine tenths are getting the blocks there, one tenth is reading them back."""
_MOST_CHANGES: Final = 3
"""How often a stream may change on the server while one payload is fetched."""
_MOST_WRONG: Final = 4096
"""A read-back with more wrong blocks than this (16 MiB) is not worth a repair."""


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
    """The first one that is whole is the base that the server may make a patch from."""
    with_tree: bool = False
    """The verity tree follows the data."""
    old: Source | None = None
    """What the target held before, as far as its own description says."""
    kernel_checks: bool = False
    """The supervisor reads it back through the kernel's verity check; not done here."""


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


def install(
    jobs: tuple[ItemJob, ...],
    payloads: Payloads,
    tell: Callable[[str, int], None],
    spool: Spool | None = None,
    *,
    repair: bool = False,
) -> None:
    """Fill every target and read it back, but for those that the kernel checks afterwards.

    When this returns, what the signed manifest names is on the medium, or was handed to it. `tell(phase, percent)` is called
    often. `repair`: a read-back has failed; nothing is believed of the targets, every block is looked at. Raises
    PayloadError (which item, what is wrong), UpdateRefusedError for the budget, or the transport's errors.
    """
    news = News(tell, sum(blocks_for(job.size_bytes) for job in jobs))
    spool = spool or Spool(None, "")
    past = {job.name: _past(job, jobs, spool) for job in jobs}
    try:
        fills = [_Fill(job, payloads, spool, news) for job in jobs]
        for fill in fills:
            fill.guarded("written", lambda fill=fill: fill.run(past[fill.job.name], repair=repair))  # type: ignore[misc]
        spool.purge()
        for fill in fills:
            if not fill.job.kernel_checks:
                fill.guarded("read back", fill.read_back)
    finally:
        spool.close()


def _past(job: ItemJob, jobs: tuple[ItemJob, ...], spool: Spool) -> Past:
    if spool.knows(job.root_hash):
        return Past.SAME
    return Past.OTHER if spool.knows_others({other.root_hash for other in jobs}) else Past.UNKNOWN


class _Fill:
    """One payload being brought to its partition."""

    def __init__(self, job: ItemJob, payloads: Payloads, spool: Spool, news: News) -> None:
        self.job = job
        self._payloads = payloads
        self._spool = spool
        self._news = news
        self.sources: tuple[Source, ...] = ()
        self._patient = True
        """The server has not let us wait for the patch in vain yet."""
        self.target: TargetPayload

    def guarded(self, what: str, step: Callable[[], None]) -> None:
        """Run a step; what goes wrong in it is told with the payload's name."""
        name = self.job.name
        try:
            step()
        except (PatchError, TreeError) as error:
            raise PayloadError(f"{name}: {error}") from error
        except OSError as error:
            raise PayloadError(f"{name}: the target cannot be {what} ({error.strerror}); check the disk") from error

    def run(self, past: Past, *, repair: bool) -> None:
        """Bring every block there and make it durable; the tree comes last."""
        job = self.job
        _check_room(job)
        self.sources, base = prepared(job.sources)
        old = None if repair or job.old is None or not is_whole(job.old) else job.old
        self._spool.fds.add(job.fd)
        with direct(job.fd):
            patch = self._open(base)
            del base  # and with it a list of hashes
            self.target = TargetPayload(job.fd, patch.tree, self._news.there)
            if repair:
                self.target.check_all()
            use_what_is_here(self.target, self.sources, old, past)
            self._fetch(patch)
            os.fdatasync(job.fd)
            if job.with_tree:
                write_tree(self.target)
                os.fdatasync(job.fd)

    def _open(self, base: HashTree | None) -> Patch:
        """Return the patch from the base if there is a base and the server has made it, else the full payload."""
        if base is not None and self._patient:
            try:
                return self._patch(base)
            except PatchNotReadyError:
                self._patient = False
            except (PatchError, TreeError) as error:
                # A patch is a help, and nobody vouches for it: the full payload decides.
                log.warning("%s: the patch is no good, the full payload is taken: %s", self.job.name, error)
        return self._patch(None)

    def _patch(self, base: HashTree | None) -> Patch:
        job, root = self.job, None if base is None else base.root.hex()
        spool = self._spool.stream(job.root_hash, root)
        for last in [False] * _MOST_CHANGES + [True]:
            stream = self._payloads.open(job.root_hash, root)
            base_fd = self.sources[0].checked_fd or self.sources[0].fd if self.sources else None
            try:
                return Patch(job.root_hash, blocks_for(job.size_bytes), stream, spool, base, base_fd)
            except StreamChangedError:
                spool.forget()
                if last:
                    raise
        raise AssertionError("the last one raises")

    def _fetch(self, patch: Patch) -> None:
        """Fetch what is missing; of a stream that changed, of the full payload if a block of the base is damaged."""
        for _ in range(_MOST_CHANGES):
            try:
                patch.fetch_into(self.target)
            except StreamChangedError:
                patch.forget()
                patch = self._open(prepared(self.job.sources)[1])
                continue
            except PatchNotReadyError:
                self._patient = False
                patch = self._patch(None)
                continue
            except PatchError as error:
                if patch.from_nothing:
                    raise
                log.warning("%s: the patch is no good, the full payload is taken: %s", self.job.name, error)
            if self.target.complete or patch.from_nothing:
                break
            patch = self._patch(None)
        if not self.target.complete:
            raise PayloadError(
                f"{self.job.name}: the payload lacks blocks that the signed tree has; publish the bundle again"
            )

    def read_back(self) -> None:
        """Read everything from the medium; what is wrong is repaired once, and then everything is read again."""
        wrong = self._wrong()
        if wrong:
            if len(wrong) > _MOST_WRONG:
                raise self._not_as_written(wrong[0])
            self._repair(wrong)
            again = self._wrong()
            if again:
                raise self._not_as_written(again[0])

    def _wrong(self) -> list[int]:
        found = read_back(self.job.fd, self.target.tree, self._news.checked, with_tree=self.job.with_tree)
        return [block for block, _ in zip(found, range(_MOST_WRONG + 1), strict=False)]

    def _repair(self, wrong: list[int]) -> None:
        target, job = self.target, self.job
        for block in wrong:
            if block < target.tree.n_blocks:
                target.unmark(block)
        with direct(job.fd):
            use_what_is_here(target, self.sources, None, Past.SAME)
            self._fetch(self._open(prepared(job.sources)[1]))
            os.fdatasync(job.fd)
            if job.with_tree:
                write_tree(target)
                os.fdatasync(job.fd)

    def _not_as_written(self, block: int) -> PayloadError:
        return not_as_written(self.job.name, block, self.target.tree.n_blocks)


def _check_room(job: ItemJob) -> None:
    blocks = blocks_for(job.size_bytes)
    needed = blocks * BLOCK_BYTES + (tree_bytes_for(blocks) if job.with_tree else 0)
    room = size_bytes(job.fd)
    if needed > room:
        raise PayloadError(f"{job.name}: takes {needed} bytes, the partition has {room}; build a smaller image")


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
