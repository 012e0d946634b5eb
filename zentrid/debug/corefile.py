"""Reads an ELF core of AArch64 from a stream, once from the front to the back, and keeps only what a backtrace needs.

Source of the format: core(5), elf(5), and the kernel's `fs/binfmt_elf.c`: the notes come first and the crashed thread's
registers first among them, then the memory, each piece announced by a program header. A core describes whatever its
program did, so all of it is hostile input: every count and size has a limit, and what is not needed is read past.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from zentrid.errors import ZentriError

PAGE_BYTES: Final = 4096
MAX_STACK_BYTES: Final = 512 * 1024
"""Of the stack this much above the stack pointer is kept: 32 frames lie far below it."""
MAX_MODULES: Final = 512
"""So many files' first pages are kept."""
MAX_SEGMENTS: Final = 70_000
"""A little more than the kernel lets one process have (vm.max_map_count)."""
MAX_NOTES: Final = 20_000
MAX_FILE_NOTE_BYTES: Final = 4 * 1024 * 1024
"""The kernel's own limit."""
MAX_CORE_BYTES: Final = 64 * 1024 * 1024 * 1024

_CHUNK: Final = 256 * 1024
_MACHINE_AARCH64: Final = 183
_TYPE_CORE: Final = 4
_PT_LOAD, _PT_NOTE = 1, 4
_PF_X: Final = 1
_NT_PRSTATUS, _NT_FILE, _NT_ARM_PAC_MASK = 1, 0x46494C45, 0x406
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_SIGNAL_OFFSET: Final = 12
_REGISTERS_OFFSET: Final = 112
"""Of `pr_reg` in `struct elf_prstatus`: x0 to x30, sp, pc, pstate."""
_REGISTERS = struct.Struct("<34Q")
_PRSTATUS_BYTES: Final = 392
_ADDRESS_BITS: Final = 48


class BadCoreError(ZentriError):
    """A stream that is no core of an AArch64 program, or ends before its registers."""

    reason = "bad_core"


class CoreStream(Protocol):
    """Where a core comes from: a file, or the kernel's pipe."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; nothing at the end."""


@dataclass(frozen=True)
class Registers:
    """Those of the thread that crashed."""

    pc: int
    lr: int
    fp: int
    sp: int


@dataclass(frozen=True)
class Mapping:
    """A part of a file in the program's memory."""

    start: int
    end: int
    offset: int
    """Of the first byte inside the file."""
    path: str


@dataclass
class Core:
    """What a backtrace needs of a core."""

    signal: int
    registers: Registers
    address_mask: int = (1 << _ADDRESS_BITS) - 1
    """The bits of a pointer to code that are address; the others may hold its signature."""
    mappings: list[Mapping] = field(default_factory=list)
    """By ascending address."""
    code: list[tuple[int, int]] = field(default_factory=list)
    """First address and the one behind the last of everything executable."""
    heads: dict[int, bytes] = field(default_factory=dict)
    """The first page of files, by the address where it was."""
    stacks: list[tuple[int, bytes]] = field(default_factory=list)
    whole: bool = True
    """False: the stream ended before everything wanted had come."""

    def is_code(self, address: int) -> bool:
        """Tell whether instructions can be at `address`."""
        return any(start <= address < end for start, end in self.code)

    def stack_words(self, address: int) -> tuple[int, int] | None:
        """Return the two 64-bit words at `address` of the stack, None if they were not kept."""
        for start, data in self.stacks:
            at = address - start
            if 0 <= at <= len(data) - 16:
                first, second = struct.unpack_from("<QQ", data, at)
                return first, second
        return None


@dataclass(frozen=True)
class _Segment:
    offset: int
    start: int
    size: int


class _Ended(Exception):  # noqa: N818  # no error by itself: a core may be cut off
    """The stream is at its end."""


class _Source:
    """A stream with a position."""

    def __init__(self, stream: CoreStream) -> None:
        self._stream = stream
        self.at = 0

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes. Raises _Ended."""
        parts, left = [], size
        while left:
            part = self._stream.read(min(left, _CHUNK))
            if not part:
                raise _Ended
            parts.append(part)
            left -= len(part)
            self.at += len(part)
        return b"".join(parts)

    def skip_to(self, offset: int) -> None:
        """Read past everything before `offset`. Raises _Ended."""
        if offset > MAX_CORE_BYTES:
            raise _Ended
        while self.at < offset:
            part = self._stream.read(min(offset - self.at, _CHUNK))
            if not part:
                raise _Ended
            self.at += len(part)


def read_core(stream: CoreStream) -> Core:
    """Return what a backtrace needs of the core in `stream`, which is read no further than that.

    A core that is cut off after its registers gives what there is, with `whole` unset. Raises BadCoreError.
    """
    source = _Source(stream)
    try:
        notes, segments, code = _headers(source)
        core = _notes(source, notes)
    except _Ended:
        raise BadCoreError("the core ends before the registers of the thread that crashed") from None
    core.code = code
    try:
        _memory(source, core, segments)
    except _Ended:
        core.whole = False
    return core


def _headers(source: _Source) -> tuple[_Segment, list[_Segment], list[tuple[int, int]]]:
    """Return where the notes are, the memory that was dumped by ascending offset, and what is executable."""
    fields = _EHDR.unpack(source.take(_EHDR.size))
    ident, kind, machine, table, entry_bytes = fields[0], fields[1], fields[2], fields[5], fields[9]
    if ident[:6] != b"\x7fELF\x02\x01" or (kind, machine, entry_bytes) != (_TYPE_CORE, _MACHINE_AARCH64, _PHDR.size):
        raise BadCoreError("this is no core of a 64-bit ARM program")
    source.skip_to(table)
    first = _PHDR.unpack(source.take(_PHDR.size))
    if first[0] != _PT_NOTE or first[2] < table + _PHDR.size:
        raise BadCoreError("the core does not begin with its notes")
    # The header's count has 16 bits only. The notes follow the table directly, which gives the count for any size.
    count = (first[2] - table) // _PHDR.size
    if count > MAX_SEGMENTS:
        raise BadCoreError(f"the core has more than {MAX_SEGMENTS} pieces of memory")
    segments, code = [], []
    for _ in range(count - 1):
        kind, flags, offset, start, _, size, memory_size, _ = _PHDR.unpack(source.take(_PHDR.size))
        if kind == _PT_LOAD and size:
            segments.append(_Segment(offset, start, size))
        if kind == _PT_LOAD and flags & _PF_X:
            code.append((start, start + memory_size))
    return _Segment(first[2], 0, first[5]), sorted(segments, key=lambda segment: segment.offset), code


def _notes(source: _Source, notes: _Segment) -> Core:
    source.skip_to(notes.offset)
    end = notes.offset + notes.size
    core: Core | None = None
    for _ in range(MAX_NOTES):
        if source.at + _NOTE.size > end:
            break
        name_bytes, size, kind = _NOTE.unpack(source.take(_NOTE.size))
        source.skip_to(min(end, source.at + _padded(name_bytes)))
        after = source.at + _padded(size)
        if after > end:
            break
        if kind == _NT_PRSTATUS and core is None and size >= _PRSTATUS_BYTES:
            core = _crashed_thread(source.take(size if size <= PAGE_BYTES else _PRSTATUS_BYTES))
        elif core is not None and kind == _NT_FILE and size <= MAX_FILE_NOTE_BYTES and not core.mappings:
            core.mappings = list(_mappings(source.take(size)))
        elif core is not None and kind == _NT_ARM_PAC_MASK and size == 16:
            core.address_mask = ~struct.unpack("<QQ", source.take(size))[1] & (1 << 64) - 1
        source.skip_to(after)
    if core is None:
        raise BadCoreError("the core has no registers of the thread that crashed")
    return core


def _padded(size: int) -> int:
    return (size + 3) & ~3


def _crashed_thread(data: bytes) -> Core:
    registers = _REGISTERS.unpack_from(data, _REGISTERS_OFFSET)
    (signal,) = struct.unpack_from("<H", data, _SIGNAL_OFFSET)
    return Core(signal, Registers(pc=registers[32], lr=registers[30], fp=registers[29], sp=registers[31]))


def _mappings(note: bytes) -> Iterator[Mapping]:
    if len(note) < 16:
        return
    count, page_bytes = struct.unpack_from("<QQ", note)
    names_at = 16 + 24 * count
    if count > MAX_SEGMENTS or names_at > len(note):
        return
    names = note[names_at:].split(b"\0")
    for (start, end, page), name in zip(struct.iter_unpack("<QQQ", note[16:names_at]), names, strict=False):
        yield Mapping(start, end, page * page_bytes, name.decode(errors="replace"))


def _memory(source: _Source, core: Core, segments: list[_Segment]) -> None:
    """Read the pieces that matter, in the order in which they come, and stop behind the last of them."""
    beginnings = {mapping.start for mapping in core.mappings if mapping.offset == 0}
    wanted: list[tuple[_Segment, int, int]] = []
    """Segment, how much of it to skip, how much to take."""
    heads = 0
    pointers = (core.registers.sp, core.registers.fp)
    for segment in segments:
        inside = [pointer for pointer in pointers if segment.start <= pointer < segment.start + segment.size]
        if inside:
            skip = min(inside) - segment.start
            wanted.append((segment, skip, min(MAX_STACK_BYTES, segment.size - skip)))
        elif segment.start in beginnings and heads < MAX_MODULES:
            heads += 1
            wanted.append((segment, 0, min(PAGE_BYTES, segment.size)))
    for segment, skip, size in wanted:
        if segment.offset + skip < source.at:  # pieces that overlap: no kernel wrote this
            continue
        source.skip_to(segment.offset + skip)
        data = source.take(size)
        if segment.start in beginnings and not skip:
            core.heads[segment.start] = data[:PAGE_BYTES]
        if any(segment.start <= pointer < segment.start + segment.size for pointer in pointers):
            core.stacks.append((segment.start + skip, data))
