"""What a backtrace needs to know of an ELF file that was in memory: its build-id, its addresses, where functions begin.

Source of the formats: elf(5); for `.eh_frame_hdr` the Linux Standard Base, "Exception Frames". Works on the file's first
page alone, or on the whole file. Damaged or foreign content gives empty answers, never an exception.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ReadAt = Callable[[int, int], bytes]
"""`read_at(offset, size)` returns up to `size` bytes of the file from `offset` (bytes)."""

MAX_PROGRAM_HEADERS: Final = 64
MAX_NOTES_BYTES: Final = 4096
MAX_BUILD_ID_BYTES: Final = 32

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_PT_LOAD, _PT_NOTE, _PT_EH_FRAME = 1, 4, 0x6474E550
_NT_BUILD_ID: Final = 3
_EH_HEADER: Final = bytes((1, 0x1B, 0x03, 0x3B))
"""Version 1, and the only encodings that linkers write: a sorted table of 32-bit distances from the header."""


@dataclass(frozen=True)
class Load:
    """A part of the file that is mapped."""

    offset: int
    size: int
    address: int


@dataclass(frozen=True)
class Module:
    """What an ELF file's program headers say."""

    build_id: str
    """Lower-case hexadecimal; empty when there is none, or not within reach."""
    loads: tuple[Load, ...]
    unwind: Load | None
    """Where `.eh_frame_hdr` is."""

    def address_of(self, offset: int) -> int | None:
        """Return the address inside the ELF file of the byte at `offset` of the file; None if it is not mapped."""
        for load in self.loads:
            if load.offset <= offset < load.offset + load.size:
                return offset - load.offset + load.address
        return None


def read_module(read_at: ReadAt) -> Module | None:
    """Return what the ELF file behind `read_at` says of itself, None if it is no 64-bit little-endian ELF file."""
    head = read_at(0, _EHDR.size)
    if len(head) < _EHDR.size or head[:6] != b"\x7fELF\x02\x01":
        return None
    fields = _EHDR.unpack(head)
    table, entry_bytes, count = fields[5], fields[9], fields[10]
    if entry_bytes != _PHDR.size:
        return None
    build_id, loads, unwind = "", [], None
    for number in range(min(count, MAX_PROGRAM_HEADERS)):
        entry = read_at(table + number * _PHDR.size, _PHDR.size)
        if len(entry) < _PHDR.size:
            break
        kind, _, offset, address, _, size, _, _ = _PHDR.unpack(entry)
        load = Load(offset, size, address)
        if kind == _PT_LOAD:
            loads.append(load)
        elif kind == _PT_NOTE and not build_id:
            build_id = _build_id(read_at(offset, min(size, MAX_NOTES_BYTES)))
        elif kind == _PT_EH_FRAME:
            unwind = load
    return Module(build_id, tuple(loads), unwind)


def _build_id(notes: bytes) -> str:
    at = 0
    while at + _NOTE.size <= len(notes):
        name_bytes, size, kind = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        content_at = name_at + (name_bytes + 3 & ~3)
        content = notes[content_at : content_at + size]
        if kind == _NT_BUILD_ID and notes[name_at : name_at + name_bytes] == b"GNU\0":
            return content.hex() if len(content) == size <= MAX_BUILD_ID_BYTES else ""
        at = content_at + (size + 3 & ~3)
    return ""


def function_start(module: Module, read_at: ReadAt, address: int) -> int | None:
    """Return where the function around `address` begins, by the file's table for exceptions; None if it does not say.

    Reads 12 bytes and then one entry for each halving of the table, however large the file is.
    """
    if module.unwind is None:
        return None
    header = read_at(module.unwind.offset, 12)
    if len(header) < 12 or header[:4] != _EH_HEADER:
        return None
    low, high = 0, min(struct.unpack_from("<I", header, 8)[0], module.unwind.size // 8)
    best: int | None = None
    while low < high:
        middle = (low + high) // 2
        entry = read_at(module.unwind.offset + 12 + 8 * middle, 4)
        if len(entry) < 4:
            return None
        start = module.unwind.address + struct.unpack("<i", entry)[0]
        if start <= address:
            best, low = start, middle + 1
        else:
            high = middle
    return best
