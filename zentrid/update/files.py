"""The open files of an installation: the target's partitions, the partitions to copy from, a bundle file."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from zentrid.bundle.manifest import Manifest
from zentrid.core.names import SAFE_SLOT, SLOTS, SlotName
from zentrid.update.errors import PayloadError, UpdateRefusedError
from zentrid.update.link import SlotAccess
from zentrid.update.protocol import InstallSpec, ItemSpec, SourceSpec


class InstallFiles:
    """Opens everything for writing one release into one slot; an asynchronous context manager that closes it all at its end.

    Refuses a target that runs, whoever asks: by the slot's name, and by the PARTUUID that the kernel mounted.
    """

    def __init__(self, slots: SlotAccess, target: SlotName, manifest: Manifest, *, verify_fit: bool) -> None:
        self._slots = slots
        self._target = target
        self._manifest = manifest
        self._verify_fit = verify_fit
        self._stack = ExitStack()
        self.fds: tuple[int, ...] = ()
        """All descriptors, to be inherited by the worker."""
        self.spec: InstallSpec

    async def __aenter__(self) -> Self:
        refuse_running(self._slots, self._target)
        try:
            items = (self._item("kernel"), self._item("rootfs"))
        except OSError as error:
            self._stack.close()
            raise PayloadError(f"the slot's partition cannot be opened ({error.strerror}); check the disk") from error
        self.spec = InstallSpec(str(self._manifest.version), self._target, items, self._verify_fit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The last close of a block device writes back what a stopped worker left in the cache, which may take long.
        await asyncio.to_thread(self._stack.close)

    def _item(self, name: str) -> ItemSpec:
        item = self._manifest.item("kernel" if name == "kernel" else "rootfs")
        if item is None:
            raise UpdateRefusedError("no_firmware", f"the release has no {name}")
        fd = self._open(self._slots.device(f"{name}_{self._target}"), os.O_RDWR)
        sources = self._kernel_sources() if name == "kernel" else self._rootfs_sources()
        return ItemSpec(name, item.root_hash, item.size_bytes, fd, with_tree=name == "rootfs", sources=sources)

    def _kernel_sources(self) -> tuple[SourceSpec, ...]:
        return (SourceSpec(self._open(self._slots.device(f"kernel_{self._slots.running}"), os.O_RDONLY)),)

    def _rootfs_sources(self) -> tuple[SourceSpec, ...]:
        """Return the running system's root first: it is the base that the server may make a patch from."""
        running = self._slots.running
        names = [running, *(slot for slot in (*SLOTS, SAFE_SLOT) if slot not in (running, self._target))]
        sources = []
        for slot in names:
            found = self._slots.configuration(slot)
            verity = found.verity if found else None
            if verity is not None:
                fd = self._open(self._slots.device(f"rootfs_{slot}"), os.O_RDONLY)
                sources.append(SourceSpec(fd, verity.data_blocks, verity.tree_start_block))
        return tuple(sources)

    def _open(self, device: Path, flags: int) -> int:
        fd = os.open(device, flags | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        self.fds = (*self.fds, fd)
        return fd


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
