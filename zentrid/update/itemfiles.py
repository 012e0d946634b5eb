"""Applications and files on their way in: the supervisor opens what the worker fills, and takes over what it made."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from zentrid.adapters.items import ItemFolder
from zentrid.bundle.manifest import Item, Manifest
from zentrid.bundle.tree import BLOCK_BYTES, blocks_for
from zentrid.core.items import PROGRAM_KINDS, Held, ItemSet, data_items, store_name
from zentrid.update.durable import remove_tree
from zentrid.update.protocol import WORKER_USER, ItemSpec, SourceSpec, UnpackSpec
from zentrid.update.unpack import take_over


@dataclass(frozen=True)
class _Arrival:
    item: Item
    store: str
    payload: Path
    tree: Path
    """Of an application: what it is unpacked to."""
    fd: int


def missing(folder: ItemFolder, manifest: Manifest) -> dict[str, Item]:
    """Return the items that the store lacks, by their names there. Blocking."""
    wanted = {store_name(item, manifest.version): item for item in data_items(manifest)}
    return {name: item for name, item in wanted.items() if not folder.has(name)}


class Incoming:
    """What a release brings and the store lacks; an asynchronous context manager that closes everything at its end."""

    def __init__(self, folder: ItemFolder, manifest: Manifest, base: Callable[[], ItemSet | None]) -> None:
        """`base`: reads what is there already, whose blocks need not be fetched."""
        self._folder = folder
        self._manifest = manifest
        self._base = base
        self._held: dict[tuple[str, str], Held] = {}
        self._stack = ExitStack()
        self._arrivals: list[_Arrival] = []
        self.fds: tuple[int, ...] = ()
        """All descriptors, to be inherited by the worker."""
        self.specs: tuple[ItemSpec, ...] = ()
        self.unpack: tuple[UnpackSpec, ...] = ()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._open)
        except BaseException:
            self._stack.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._stack.close)

    def _open(self) -> None:
        wanted = missing(self._folder, self._manifest)
        if not wanted:
            return
        base = self._base()
        self._held = {(held.type, held.name): held for held in (base.items if base else ())}
        incoming = self._folder.make_incoming(wanted.keys())
        for number, (name, item) in enumerate(wanted.items()):
            payload, tree = self._folder.payload(name), incoming / str(number)
            # What is there of an interrupted update is looked at block by block, like everything on a target.
            fd = self._opened(payload, os.O_RDWR | os.O_CREAT)
            # Now, and not in the middle: a full disk is noticed before anything is fetched.
            os.posix_fallocate(fd, 0, blocks_for(item.size_bytes) * BLOCK_BYTES)
            sources = self._sources(item)
            self.specs += (ItemSpec(f"{item.type} {item.name}", item.root_hash, item.size_bytes, fd, False, sources),)
            if item.type == "app":
                _make_for_worker(tree)
                self.unpack += (
                    UnpackSpec(
                        item.name, str(item.version or self._manifest.version), item.entry, item.kind or "",
                        item.size_bytes, fd, str(tree),
                    ),
                )  # fmt: skip
            self._arrivals.append(_Arrival(item, name, payload, tree, fd))

    def _sources(self, item: Item) -> tuple[SourceSpec, ...]:
        """Return the old version, where that is its payload as it is: blocks that are equal are not fetched."""
        held = self._held.get((item.type, item.name))
        path = self._plain(item, held) if held else None
        return (SourceSpec(self._opened(path, os.O_RDONLY)),) if path is not None and path.is_file() else ()

    def _plain(self, item: Item, held: Held) -> Path | None:
        path = self._folder.top / "store" / held.store
        if item.type == "file":
            return path
        return path / item.entry if item.entry and item.kind in PROGRAM_KINDS else None

    def _opened(self, path: Path, flags: int) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._stack.callback(os.close, fd)
        self.fds = (*self.fds, fd)
        return fd

    async def adopt(self) -> None:
        """Put what has arrived, verified and unpacked, into the store. Raises PayloadError, OSError."""
        await asyncio.to_thread(self._adopt)

    def _adopt(self) -> None:
        for arrival in self._arrivals:
            if arrival.item.type == "app":
                take_over(arrival.tree, _own(), arrival.item.size_bytes)
                arrival.payload.unlink()
                self._folder.keep(arrival.tree, arrival.store)
            else:
                os.ftruncate(arrival.fd, arrival.item.size_bytes)
                os.fchmod(arrival.fd, 0o755 if arrival.item.kind in PROGRAM_KINDS else 0o644)
                os.fsync(arrival.fd)
                self._folder.keep(arrival.payload, arrival.store)
        if self._arrivals:
            remove_tree(self._arrivals[0].payload.parent)


def _own() -> int | None:
    return 0 if os.geteuid() == 0 else None


def _make_for_worker(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(WORKER_USER)
    except KeyError:
        return  # the worker then says so, or stays what we are where this is no device
    os.chown(folder, user.pw_uid, user.pw_gid)
