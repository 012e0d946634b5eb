"""Turns an address inside an ELF file into function and line, by a file that has its symbols.

pyelftools reads the ELF structures. The contents of the tables are decoded here and in `lines`, because a file from
outside may claim a table without end: every section, row and name has a limit, and any damage is one typed error.
For servers and tools: nothing on the board reads symbols, so its image has no pyelftools.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Final

from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile

from zentrid.core.text import printable
from zentrid.debug.lines import LineSections, LineTable
from zentrid.errors import ZentriError
from zentrid.ports import Frame

MAX_SECTIONS: Final = 4096
MAX_TABLE_BYTES: Final = 64 * 1024 * 1024
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
MAX_SYMBOLS: Final = 500_000
MAX_NAME_CHARS: Final = 200
SHOWN_BUILD_ID_DIGITS: Final = 8

_SYMBOL = struct.Struct("<IBBHQQ")
_FUNCTIONS: Final = (2, 10)
"""STT_FUNC, STT_GNU_IFUNC."""
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2
_PREFERENCE: Final = {_GLOBAL: 0, _WEAK: 1, _LOCAL: 2}
_SHF_COMPRESSED: Final = 0x800
_CHDR = struct.Struct("<IIQQ")
_ZLIB: Final = 1
_NOTE = struct.Struct("<III")
_NT_BUILD_ID: Final = 3
_MAX_BUILD_ID_BYTES: Final = 32
_MAX_NESTED: Final = 16


class BadSymbolFileError(ZentriError):
    """A file that is no ELF file of AArch64, is damaged, or is larger than anything sensible."""

    reason = "bad_symbols"


@dataclass(frozen=True)
class Place:
    """Where in the sources an address is."""

    function: str
    offset: int
    """Bytes from the function's beginning."""
    file: str = ""
    """As the compiler wrote it; empty when the symbol file has no lines."""
    line: int = 0


@dataclass(frozen=True)
class _Function:
    start: int
    preference: int
    size: int
    name_at: int


class SymbolFile:
    """One ELF file with symbols. Everything but `build_id` is read when it is first needed, then kept."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read the section headers of a seekable file. Raises BadSymbolFileError, as every method does."""
        self._stream = stream
        try:
            self._sections = dict(self._read_headers())
            self.build_id = self._read_build_id()
            """The GNU build-id, lower-case hexadecimal; empty when the file has none."""
        except Exception as error:
            raise self._damaged(error) from error

    def resolve(self, address: int) -> Place | None:
        """Return function and line of an address, None if no function covers it."""
        try:
            found = self._function_at(address)
            if found is None:
                return None
            function, names = found
            line = self._lines.find(address) or ("", 0)
            return Place(_name(names, function.name_at), address - function.start, printable(line[0]), line[1])
        except Exception as error:
            raise self._damaged(error) from error

    @staticmethod
    def _damaged(error: Exception) -> BadSymbolFileError:
        # Whatever a damaged structure leads to: one answer for all of it.
        if isinstance(error, BadSymbolFileError):
            return error
        return BadSymbolFileError(f"the symbol file is damaged ({type(error).__name__}); build it again")

    # --- sections ---------------------------------------------------------------------------------------------------
    def _read_headers(self) -> Iterator[tuple[str, Any]]:
        elf = ELFFile(self._stream)
        header = elf.header
        if elf.elfclass != 64 or not elf.little_endian or header["e_machine"] != "EM_AARCH64":
            raise BadSymbolFileError("the symbol file is not for 64-bit ARM; take the one of the board's build")
        count, names_index = header["e_shnum"], header["e_shstrndx"]
        if (
            not 0 < count <= MAX_SECTIONS
            or names_index >= count
            or header["e_shentsize"] != elf.structs.Elf_Shdr.sizeof()
        ):
            raise BadSymbolFileError("the symbol file has no sections; it may have been stripped")
        headers = [
            struct_parse(elf.structs.Elf_Shdr, self._stream, header["e_shoff"] + number * header["e_shentsize"])
            for number in range(count)
        ]
        names = self._content(headers[names_index], MAX_TABLE_BYTES)
        for section in headers:
            yield _name(names, section["sh_name"]), section

    def _content(self, header: Any, limit: int) -> bytes:  # noqa: ANN401  # a container of pyelftools
        """Return what is in a section, unpacked; empty for one that is not in this file (SHT_NOBITS)."""
        if header is None or header["sh_type"] == "SHT_NOBITS":
            return b""
        if header["sh_size"] > limit:
            raise BadSymbolFileError(f"a section of the symbol file has more than {limit} bytes")
        self._stream.seek(header["sh_offset"])
        data = self._stream.read(header["sh_size"])
        if len(data) != header["sh_size"]:
            raise BadSymbolFileError("the symbol file is cut off; build it again")
        if not header["sh_flags"] & _SHF_COMPRESSED:
            return data
        kind, _, size, _ = _CHDR.unpack_from(data)
        if kind != _ZLIB:
            raise BadSymbolFileError("the symbol file is compressed in a way other than zlib; build it without that")
        if size > limit:
            raise BadSymbolFileError(f"a section of the symbol file has more than {limit} bytes")
        return zlib.decompressobj().decompress(data[_CHDR.size :], size) if size else b""

    def _section(self, name: str, limit: int = MAX_TABLE_BYTES) -> bytes:
        return self._content(self._sections.get(name), limit)

    def _read_build_id(self) -> str:
        notes = self._section(".note.gnu.build-id", 4096)
        if len(notes) < _NOTE.size:
            return ""
        name_bytes, size, kind = _NOTE.unpack_from(notes)
        content = notes[_NOTE.size + 4 : _NOTE.size + 4 + size]
        if kind != _NT_BUILD_ID or name_bytes != 4 or size != len(content) or size > _MAX_BUILD_ID_BYTES:
            return ""
        return content.hex()

    # --- functions --------------------------------------------------------------------------------------------------
    @cached_property
    def _functions(self) -> tuple[list[_Function], list[int], bytes]:
        """The functions by ascending start, their starts, the names. `.symtab` has all; `.dynsym` is in stripped files."""
        symbols = self._section(".symtab")
        names = self._section(".strtab")
        if not symbols:
            symbols, names = self._section(".dynsym"), self._section(".dynstr")
        if len(symbols) // _SYMBOL.size > MAX_SYMBOLS:
            raise BadSymbolFileError(f"the symbol file has more than {MAX_SYMBOLS} symbols")
        found = [
            _Function(value, _PREFERENCE.get(info >> 4, 3), size, name)
            for name, info, _, section, value, size in _SYMBOL.iter_unpack(symbols[: len(symbols) // 24 * 24])
            if info & 15 in _FUNCTIONS and section and size
        ]
        # The best name of those that begin together comes last, where the search begins.
        found.sort(key=lambda function: (function.start, -function.preference, -function.size))
        return found, [function.start for function in found], names

    def _function_at(self, address: int) -> tuple[_Function, bytes] | None:
        functions, starts, names = self._functions
        after = bisect_right(starts, address)
        for function in reversed(functions[max(0, after - _MAX_NESTED) : after]):
            if address < function.start + function.size:
                return function, names
        return None

    @cached_property
    def _lines(self) -> LineTable:
        return LineTable(
            LineSections(
                self._section(".debug_line", MAX_LINE_BYTES),
                self._section(".debug_line_str", MAX_LINE_BYTES),
                self._section(".debug_str"),
            )
        )


def _name(names: bytes, at: int) -> str:
    """Return a name of a string table, at most MAX_NAME_CHARS of it."""
    end = names.find(b"\0", at, at + MAX_NAME_CHARS)
    return printable(names[at : end if end >= 0 else at + MAX_NAME_CHARS].decode(errors="replace"))


def describe(frame: Frame, place: Place | None, number: int | None = 0) -> str:
    """Return one line of a backtrace as people know it; `number`: 0 for the innermost frame, None: the caller numbers."""
    where = f"0x{frame.address:x}"
    if place is not None:
        where = f"{place.function}+0x{place.offset:x}"
        if place.file:
            where += f" ({place.file.rpartition('/')[2]}:{place.line})"
    module = printable(frame.module.rpartition("/")[2])[:MAX_NAME_CHARS] or "?"
    known = f"build-id {printable(frame.build_id[:SHOWN_BUILD_ID_DIGITS])}" if frame.build_id else "no build-id"
    line = f"{where} in {module} [{known}]"
    return line if number is None else f"#{number} {line}"
