"""Reads a GUID partition table. Pure. Source: UEFI specification 2.10, chapter 5.3."""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

from scripts.board_driver.errors import MachineError

SECTOR_BYTES: Final = 512
MAX_ENTRIES: Final = 128
GPT_AREA_BYTES: Final = SECTOR_BYTES * 34
"""As much of a disk's beginning as holds its table."""

_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")


class Extent(NamedTuple):
    """Where a partition lies, in bytes from the beginning of the disk."""

    offset_bytes: int
    size_bytes: int


def parse_gpt(head: bytes) -> dict[str, Extent]:
    """Return the partitions by label. `head`: the disk's first GPT_AREA_BYTES or more.

    MachineError if there is no sound table, or two partitions share a label.
    """
    if len(head) < GPT_AREA_BYTES:
        raise MachineError("the disk is too small to have a partition table; build the image again")
    header = bytearray(head[SECTOR_BYTES : SECTOR_BYTES + _HEADER.size])
    signature, _, header_bytes, header_crc, _, _, _, first, last, _, entries_lba, count, entry_bytes, entries_crc = (
        _HEADER.unpack(header)
    )
    if signature != b"EFI PART":
        raise MachineError("the disk has no GUID partition table; build the image again")
    header[16:20] = bytes(4)
    if header_bytes != _HEADER.size or zlib.crc32(header) != header_crc:
        raise MachineError("the header of the partition table is damaged; `scripts/board up --fresh` makes a new disk")
    start = entries_lba * SECTOR_BYTES
    entries = head[start : start + count * entry_bytes]
    if count > MAX_ENTRIES or entry_bytes != _ENTRY.size or len(entries) < count * entry_bytes:
        raise MachineError(f"the partition table has an unusual shape ({count} entries of {entry_bytes} bytes)")
    if zlib.crc32(entries) != entries_crc:
        raise MachineError("the partition table is damaged; `scripts/board up --fresh` makes a new disk")
    found: dict[str, Extent] = {}
    for kind, _, begin, end, _, label_utf16 in _ENTRY.iter_unpack(entries):
        if kind == bytes(16):
            continue
        label = label_utf16.decode("utf-16-le", errors="replace").split("\0", 1)[0]
        if label in found or not first <= begin <= end <= last:
            raise MachineError(f"partition {label!r} is there twice or lies outside the disk; build the image again")
        found[label] = Extent(begin * SECTOR_BYTES, (end - begin + 1) * SECTOR_BYTES)
    return found
