"""A bounded reader of the few facts that zentrid takes from a slot's signed FIT: its version and its verity table.

Source of the format: the devicetree specification, chapter "Flattened devicetree". The boot script trusts the same
properties only after the signature was checked; here they are for showing and for cross-checking. Reading costs a few
hundred bytes however large the kernel inside is, and a damaged FIT gives None, never an exception.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from zentrid.core.names import FIT_VERSION_PROPERTY, SlotName
from zentrid.core.version import BadVersionError, Version, decode_version

ReadAt = Callable[[int, int], bytes]
"""`read_at(offset, size)` returns up to `size` bytes of the FIT from `offset` (bytes)."""

_MAGIC: Final = 0xD00DFEED
_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9
_HEADER = struct.Struct(">10I")
_MAX_FIT_BYTES: Final = 64 * 1024 * 1024
_MAX_TOKENS: Final = 4096
_MAX_DEPTH: Final = 8
_MAX_NAME_CHARS: Final = 255
_MAX_VALUE_BYTES: Final = 4096
_VERITY = re.compile(r" verity 1 \S+ \S+ 4096 4096 ([0-9]{1,8}) ([0-9]{1,8}) sha256 ([0-9a-f]{64}) ")


@dataclass(frozen=True)
class VerityTable:
    """Where a root file system's data ends and its hash tree begins, and the hash above it all."""

    data_blocks: int
    """Blocks of 4096 bytes."""
    tree_start_block: int
    """The block at which the tree (top level first) begins."""
    root_hash: str
    """64 hexadecimal digits."""


@dataclass(frozen=True)
class FitConfiguration:
    """What one slot's configuration says."""

    version: Version | None
    bootargs: str

    @property
    def verity(self) -> VerityTable | None:
        """The verity table in the kernel arguments; None when there is none in the form that the build writes."""
        return verity_of(self.bootargs)


class _DamagedError(Exception):
    """The bytes are no flattened devicetree within the limits."""


def verity_of(arguments: str) -> VerityTable | None:
    """Return the verity table in a line of kernel arguments (`dm-mod.create=`), or None."""
    match = _VERITY.search(arguments)
    return VerityTable(int(match[1]), int(match[2]), match[3]) if match else None


def fit_bytes(head: bytes) -> int:
    """Return the length that a FIT's first eight bytes tell; 0: it is none, or longer than one may be."""
    if len(head) < 8:
        return 0
    magic, total = struct.unpack_from(">2I", head)
    return total if magic == _MAGIC and _HEADER.size <= total <= _MAX_FIT_BYTES else 0


def fit_version(fit: bytes | ReadAt, slot: SlotName) -> Version | None:
    """Return the release's version in `/configurations/conf-<slot>`; None: empty, damaged, or none in it."""
    configuration = read_configuration(fit, slot)
    return configuration.version if configuration else None


def read_configuration(fit: bytes | ReadAt, slot: SlotName) -> FitConfiguration | None:
    """Return what `/configurations/conf-<slot>` says; None if the FIT is damaged or has no such configuration."""
    read_at = _reader_of(fit) if isinstance(fit, bytes) else fit
    properties: dict[str, bytes] = {}
    found = False
    try:
        for path, name, value in _properties(read_at):
            if path == ("", "configurations", f"conf-{slot}"):
                found = True
                properties.setdefault(name, value)
    except (_DamagedError, struct.error):
        return None
    if not found:
        return None
    raw = properties.get(FIT_VERSION_PROPERTY, b"")
    bootargs = properties.get("bootargs", b"").partition(b"\0")[0].decode("ascii", "replace")
    return FitConfiguration(_version(raw), bootargs)


def _version(raw: bytes) -> Version | None:
    if len(raw) != 4:
        return None
    try:
        return decode_version(int.from_bytes(raw, "big"))
    except BadVersionError:
        return None


def _reader_of(fit: bytes) -> ReadAt:
    return lambda offset, size: fit[offset : offset + size]


def _exactly(read_at: ReadAt, offset: int, size: int) -> bytes:
    data = read_at(offset, size)
    if len(data) != size:
        raise _DamagedError("cut short")
    return data


def _properties(read_at: ReadAt) -> Iterator[tuple[tuple[str, ...], str, bytes]]:
    """Yield (node path, property name, value) in order; values over the limit (the kernel itself) come as empty."""
    magic, total, off_struct, off_strings, _, version, compatible, _, size_strings, _ = _HEADER.unpack(
        _exactly(read_at, 0, _HEADER.size)
    )
    if magic != _MAGIC or not _HEADER.size <= total <= _MAX_FIT_BYTES or version < 17 or compatible > 17:
        raise _DamagedError("no devicetree of version 17")
    if off_strings + size_strings > total:
        raise _DamagedError("strings outside")
    offset, path = off_struct, list[str]()
    for _count in range(_MAX_TOKENS):
        if offset >= total:
            raise _DamagedError("no end")
        token = int.from_bytes(_exactly(read_at, offset, 4), "big")
        offset += 4
        if token == _BEGIN_NODE:
            name = _text(read_at, offset)
            path.append(name)
            if len(path) > _MAX_DEPTH:
                raise _DamagedError("too deep")
            offset += (len(name) + 4) & ~3
        elif token == _END_NODE:
            if not path:
                raise _DamagedError("ends that nothing began")
            path.pop()
        elif token == _PROP:
            size, name_at = struct.unpack(">2I", _exactly(read_at, offset, 8))
            if size > total or name_at >= size_strings:
                raise _DamagedError("a property outside")
            small = size <= _MAX_VALUE_BYTES
            yield (
                tuple(path),
                _text(read_at, off_strings + name_at),
                _exactly(read_at, offset + 8, size) if small else b"",
            )
            offset += 8 + ((size + 3) & ~3)
        elif token == _END:
            return
        elif token != _NOP:
            raise _DamagedError("unknown token")
    raise _DamagedError("too many tokens")


def _text(read_at: ReadAt, offset: int) -> str:
    raw, nul, _ = read_at(offset, _MAX_NAME_CHARS + 1).partition(b"\0")
    if not nul:
        raise _DamagedError("a name without an end")
    return raw.decode("latin-1")
