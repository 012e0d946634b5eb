"""The open files of an installation: the target's partitions, the partitions to copy from, a bundle file."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from zentrid.adapters import dmverity
from zentrid.bundle.manifest import Manifest
from zentrid.bundle.tree import blocks_for
from zentrid.core.fit import VerityTable
from zentrid.core.names import SAFE_SLOT, SLOTS, SlotName
from zentrid.update.errors import PayloadError, UpdateRefusedError
from zentrid.update.link import SlotAccess
from zentrid.update.protocol import InstallSpec, ItemSpec, SourceSpec
from zentrid.update.readback import kernel_can_check, read_back

log = logging.getLogger(__name__)


class InstallFiles:
    """Opens everything for writing one release into one slot; an asynchronous context manager that closes it all at its end.

    Refuses a target that runs, whoever asks: by the slot's name, and by the PARTUUID that the kernel mounted. Where the kernel
    can check blocks while they are read, sources get a verity mapping of their own: a rotten block of the running system is
    then an error of one read, while the mapping that the system runs from would restart the board.
    """

    def __init__(
        self, slots: SlotAccess, target: SlotName, manifest: Manifest, *, verify_fit: bool, budget_bytes: int = 0
    ) -> None:
        self._slots = slots
        self._target = target
        self._manifest = manifest
        self._verify_fit = verify_fit
        self._budget_bytes = budget_bytes
        self._stack = ExitStack()
        self.fds: tuple[int, ...] = ()
        """All descriptors, to be inherited by the worker."""
        self.spec: InstallSpec

    async def __aenter__(self) -> Self:
        refuse_running(self._slots, self._target)
        await asyncio.to_thread(dmverity.remove_leftovers)
        try:
            items = (self._item("kernel"), self._item("rootfs"))
        except BaseException as error:
            await asyncio.to_thread(self._stack.close)
            if isinstance(error, OSError):
                sentence = f"the slot's partition cannot be opened ({error.strerror}); check the disk"
                raise PayloadError(sentence) from error
            raise
        self.spec = InstallSpec(
            str(self._manifest.version), self._target, items, self._verify_fit, budget_bytes=self._budget_bytes
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The last close of a block device writes back what a stopped worker left in the cache, which may take long.
        await asyncio.to_thread(self._stack.close)

    def read_back(self) -> AsyncGenerator[int, None]:
        """Read back, through the kernel, what the worker leaves to it; yields percent. Raises PayloadError."""
        return read_back(tuple(item for item in self.spec.items if item.kernel_checks))

    def _item(self, name: str) -> ItemSpec:
        item = self._manifest.item("kernel" if name == "kernel" else "rootfs")
        if item is None:
            raise UpdateRefusedError("no_firmware", f"the release has no {name}")
        fd = self._open(self._slots.device(f"{name}_{self._target}"), os.O_RDWR)
        rootfs = name == "rootfs"
        return ItemSpec(
            name,
            item.root_hash,
            item.size_bytes,
            fd,
            with_tree=rootfs,
            sources=self._rootfs_sources() if rootfs else self._kernel_sources(),
            old=self._old() if rootfs else None,
            kernel_checks=rootfs and kernel_can_check(fd),
        )

    def _old(self) -> SourceSpec | None:
        """Return what the target's own FIT says that its root file system is."""
        found = self._slots.configuration(self._target)
        verity = found.verity if found else None
        if verity is None:
            return None
        # A descriptor of its own: the other one goes past the page cache, where reads must be aligned.
        fd = self._open(self._slots.device(f"rootfs_{self._target}"), os.O_RDONLY)
        return SourceSpec(fd, verity.data_blocks, verity.tree_start_block, verity.root_hash)

    def _source_slots(self) -> list[SlotName]:
        """Return the running slot first: it is the base that the server may make a patch from."""
        running = self._slots.running
        return [running, *(slot for slot in (*SLOTS, SAFE_SLOT) if slot not in (running, self._target))]

    def _kernel_sources(self) -> tuple[SourceSpec, ...]:
        found = []
        for slot in self._source_slots():
            size_bytes = self._slots.kernel_bytes(slot)
            if size_bytes:
                fd = self._open(self._slots.device(f"kernel_{slot}"), os.O_RDONLY)
                found.append(SourceSpec(fd, blocks_for(size_bytes)))
        return tuple(found)

    def _rootfs_sources(self) -> tuple[SourceSpec, ...]:
        sources = []
        for slot in self._source_slots():
            found = self._slots.configuration(slot)
            verity = found.verity if found else None
            if verity is not None:
                fd = self._open(self._slots.device(f"rootfs_{slot}"), os.O_RDONLY)
                sources.append(
                    SourceSpec(
                        fd,
                        verity.data_blocks,
                        verity.tree_start_block,
                        verity.root_hash,
                        self._checked(slot, fd, verity),
                    )
                )
        return tuple(sources)

    def _checked(self, slot: SlotName, fd: int, verity: VerityTable) -> int | None:
        """Return the slot's data under the kernel's check, opened for direct reading; None where that cannot be had."""
        if not kernel_can_check(fd) or verity.tree_start_block != verity.data_blocks:
            return None
        try:
            mapping = dmverity.make(f"{dmverity.PREFIX}source-{slot}", fd, verity.root_hash, verity.data_blocks)
        except OSError as error:
            # Without it every block is hashed before it is used: slower, not worse.
            log.warning("update: the kernel does not check slot %s (%s)", slot, error.strerror)
            return None
        self._stack.callback(_remove, mapping)
        return self._open(mapping.device, os.O_RDONLY | os.O_DIRECT)

    def _open(self, device: Path, flags: int) -> int:
        fd = os.open(device, flags | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        self.fds = (*self.fds, fd)
        return fd


def _remove(mapping: dmverity.Mapping) -> None:
    with suppress(OSError):
        dmverity.remove(mapping)


def refuse_running(slots: SlotAccess, target: SlotName) -> None:
    """Raise UpdateRefusedError if `target` is the running slot by any of the two ways to know."""
    labels = (f"kernel_{target}", f"rootfs_{target}")
    if target not in SLOTS or target == slots.running or any(slots.is_running_partition(label) for label in labels):
        raise UpdateRefusedError(
            "running_slot", f"slot {target} is in use and must not be overwritten; restart the board"
        )


@contextmanager
def open_bundle_file(source: str | None) -> Iterator[int | None]:
    """Open the bundle file to install from; None without one. Raises UpdateRefusedError if it cannot be read."""
    if source is None:
        yield None
        return
    try:
        # Without waiting: a pipe that nobody writes to must not hold up the supervisor.
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise UpdateRefusedError("no_bundle", f"the bundle file {source} cannot be read ({error.strerror})") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UpdateRefusedError("no_bundle", f"{source} is no ordinary file; name a bundle file")
        yield fd
    finally:
        os.close(fd)
