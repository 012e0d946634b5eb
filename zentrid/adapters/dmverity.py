"""Read-only dm-verity mappings over a partition, made by the kernel's own interface: the kernel hashes every block read.

The running root has a mapping of its own that restarts the board at a wrong block. The mappings here never do: a wrong block
is an I/O error (EIO) and nothing else, so a rotten block costs an update some bytes, not the board. Only root can make them.

Sources: Linux `include/uapi/linux/dm-ioctl.h` (interface version 4) and `Documentation/admin-guide/device-mapper/verity.rst`.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import stat
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Final

from zentrid.adapters.blockdev import read_into
from zentrid.bundle.tree import BLOCK_BYTES

CONTROL: Final = Path("/dev/mapper/control")
PREFIX: Final = "zentri-"
"""Begins the name of every mapping made here, so that what a killed run left can be found."""
READERS: Final = 2
"""How many reads are under way at a time; boards of this kind have two to four processors, and memory counts."""
_STEP_BLOCKS: Final = 128

_SYS_BLOCK = Path("/sys/class/block")
_HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_SPEC = struct.Struct("=QQiI16s")
_VERSION = (4, 0, 0)
_CREATE, _REMOVE, _RESUME, _LOAD = (0xC0000000 | _HEAD.size << 16 | 0xFD << 8 | number for number in (3, 4, 6, 9))
_READ_ONLY: Final = 1 << 0
_DEFERRED: Final = 1 << 17
_BLKFLSBUF: Final = 0x1261
_SECTORS_PER_BLOCK: Final = BLOCK_BYTES // 512
_ROOT = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"zentri-[a-z0-9-]{1,32}")


@dataclass(frozen=True)
class Mapping:
    """A mapping that exists until `remove`."""

    name: str
    device: Path
    """Its block device, read-only."""
    n_blocks: int
    """Blocks of 4096 bytes."""


def available() -> bool:
    """Tell whether this process may make mappings."""
    return os.access(CONTROL, os.R_OK | os.W_OK)


def is_block_device(fd: int) -> bool:
    """Tell whether `fd` is a block device: an ordinary file cannot lie under a mapping."""
    return stat.S_ISBLK(os.fstat(fd).st_mode)


def make(name: str, fd: int, root_hash: str, n_blocks: int) -> Mapping:
    """Map the block device open at `fd`: `n_blocks` of data, the tree right behind them, under `root_hash` (hexadecimal).

    What waits in the device's cache is written first, and the cache emptied: the mapping reads the medium. One of the same
    name that an earlier run left is removed. Raises OSError.
    """
    if not _NAME.fullmatch(name) or not _ROOT.fullmatch(root_hash) or not 0 < n_blocks < 1 << 31:
        raise ValueError(name)
    status = os.fstat(fd)
    device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    table = (
        f"1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {n_blocks} {n_blocks} sha256 {root_hash} -".encode() + b"\0"
    )
    os.fsync(fd)
    fcntl.ioctl(fd, _BLKFLSBUF, 0)
    _remove(name)
    _call(_CREATE, name, _READ_ONLY)
    try:
        spec = _SPEC.pack(0, n_blocks * _SECTORS_PER_BLOCK, 0, 0, b"verity")
        _call(_LOAD, name, _READ_ONLY, spec + table + bytes(-len(table) % 8))
        number = _call(_RESUME, name)
        return Mapping(name, Path(f"/dev/dm-{number}"), n_blocks)
    except OSError:
        with suppress(OSError):
            _remove(name)
        raise


def remove(mapping: Mapping) -> None:
    """Remove a mapping; one that is still open goes when it is closed. Raises OSError."""
    _remove(mapping.name)


def remove_leftovers(sys_block: Path = _SYS_BLOCK) -> None:
    """Remove every mapping that a killed run left; errors are passed over."""
    for path in sorted(sys_block.glob("dm-*/dm/name")):
        with suppress(OSError):
            name = path.read_text(errors="replace").strip()
            if _NAME.fullmatch(name):
                _remove(name)


def read_through(mapping: Mapping) -> Iterator[int]:
    """Read the whole mapping past every cache; yields the number of blocks that are right so far.

    Several reads are under way at a time: the kernel hashes what one read brings on one processor. Raises BadBlockError at
    the first block that the kernel refuses, or OSError.
    """
    fd = os.open(mapping.device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        reader = _Reader(fd)
        with ThreadPoolExecutor(READERS) as pool:
            under_way: deque[Future[int]] = deque()
            for start in range(0, mapping.n_blocks, _STEP_BLOCKS):
                if len(under_way) == READERS:
                    yield under_way.popleft().result()
                under_way.append(pool.submit(reader.read, start, min(_STEP_BLOCKS, mapping.n_blocks - start)))
            while under_way:
                yield under_way.popleft().result()
    finally:
        os.close(fd)


class _Reader:
    """Reads for several threads, each into a buffer of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own = local()

    def read(self, start: int, count: int) -> int:
        """Read blocks; return the number of the one behind them. Raises BadBlockError, OSError."""
        if not hasattr(self._own, "view"):
            # Not closed by hand: an error's traceback still holds pieces of it.
            self._own.view = memoryview(mmap.mmap(-1, _STEP_BLOCKS * BLOCK_BYTES))
        view: memoryview = self._own.view
        try:
            read_into(self._fd, start * BLOCK_BYTES, view[: count * BLOCK_BYTES])
        except OSError:
            _find_bad(self._fd, start, count, view)
            raise
        return start + count


class BadBlockError(Exception):
    """The kernel refused a block: what is on the medium is not what the root hash covers."""

    def __init__(self, block: int) -> None:
        self.block = block
        super().__init__(f"block {block}")


def _find_bad(fd: int, start: int, count: int, view: memoryview) -> None:
    for block in range(start, start + count):
        try:
            read_into(fd, block * BLOCK_BYTES, view[:BLOCK_BYTES])
        except OSError:
            raise BadBlockError(block) from None


def _remove(name: str) -> None:
    with suppress(FileNotFoundError):
        _call(_REMOVE, name, _DEFERRED)


def _call(request: int, name: str, flags: int = 0, payload: bytes = b"") -> int:
    """Carry out one request; return the minor number of the mapping's device. Raises OSError (ENXIO: no such mapping)."""
    size = _HEAD.size + len(payload)
    targets = 1 if payload else 0
    head = _HEAD.pack(*_VERSION, size, _HEAD.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer = bytearray(head + payload)
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, request, buffer, True)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise FileNotFoundError(error.errno, "there is no such mapping") from None
        raise
    finally:
        os.close(control)
    device = int(_HEAD.unpack_from(buffer)[10])
    return (device & 0xFF) | ((device >> 12) & 0xFFF00)
