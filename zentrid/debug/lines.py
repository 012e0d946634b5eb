"""The line table of an ELF file (`.debug_line`, DWARF 2 to 5): which source line an address belongs to.

Source of the format: the DWARF 5 standard, section 6.2. Only this table is read, no description of types and variables.
Every loop consumes bytes of the section or counts against a limit. pyelftools would make objects of whole programs first.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MAX_ROWS: Final = 1_000_000
"""Rows of all programs together; what comes behind them is left out."""
MAX_FILES: Final = 50_000
MAX_PATH_BYTES: Final = 512
_MAX_FORMATS: Final = 16

_DIR_INDEX, _PATH = 2, 1
_FORM_STRING, _FORM_STRP, _FORM_LINE_STRP = 0x08, 0x0E, 0x1F
_FIXED_FORMS: Final = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}
"""data1, data2, data4, data8, data16."""
_FORM_BLOCK, _FORM_UDATA = 0x09, 0x0F
_MASK: Final = (1 << 64) - 1


class BadLinesError(ValueError):
    """The table contradicts itself or ends too early."""


@dataclass(frozen=True)
class LineSections:
    """The contents of the sections that a line table needs."""

    line: bytes = b""
    line_str: bytes = b""
    str: bytes = b""


class _Cursor:
    """Reads little-endian values; never past `end`."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, min(end, len(data))

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise BadLinesError("a line table ends in the middle")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def uleb(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _MASK
        raise BadLinesError("a number in a line table has no end")

    def sleb(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value - (1 << shift + 7) if byte & 0x40 else value
        raise BadLinesError("a number in a line table has no end")

    def string(self) -> bytes:
        end = self.data.find(b"\0", self.at, self.end)
        if end < 0:
            raise BadLinesError("a name in a line table has no end")
        found = self.data[self.at : end]
        self.at = end + 1
        return found[:MAX_PATH_BYTES]


@dataclass
class _Program:
    """One unit's header."""

    body: _Cursor
    min_length: int
    line_base: int
    line_range: int
    opcode_base: int
    argument_counts: bytes
    files: list[int]
    """Of the unit's file numbers: index into the table's names."""
    first_file: int
    """1 before DWARF 5, 0 since."""


class LineTable:
    """All rows of a `.debug_line`, ready to be asked. Raises BadLinesError when made from a damaged one."""

    def __init__(self, sections: LineSections) -> None:
        self._sections = sections
        self._addresses = array("Q")
        self._files = array("I")
        self._lines = array("I")
        self._names: list[bytes] = []
        self._sequences: list[tuple[int, int, int, int]] = []
        """First address, the one behind the last, first row, the one behind the last."""
        at = 0
        while at + 4 <= len(sections.line) and len(self._lines) < MAX_ROWS:
            at = self._unit(at)
        self._sequences.sort()
        self._starts = [sequence[0] for sequence in self._sequences]

    def find(self, address: int) -> tuple[str, int] | None:
        """Return source file and line number of an address, None if no row covers it."""
        number = bisect_right(self._starts, address) - 1
        if number < 0:
            return None
        low, high, first, last = self._sequences[number]
        if not low <= address < high:
            return None
        row = bisect_right(self._addresses, address, first, last) - 1
        if row < first:
            return None
        file = self._files[row]
        name = self._names[file].decode(errors="replace") if file < len(self._names) else "?"
        return name, self._lines[row]

    # --- decoding ---------------------------------------------------------------------------------------------------
    def _unit(self, at: int) -> int:
        """Decode one unit; return where the next one begins."""
        data = self._sections.line
        cursor = _Cursor(data, at, len(data))
        size, offset_bytes = cursor.number(4), 4
        if size == 0xFFFFFFFF:
            size, offset_bytes = cursor.number(8), 8
        end = cursor.at + size
        if end > len(data):
            raise BadLinesError("a line table is longer than its section")
        cursor.end = end
        version = cursor.number(2)
        if 2 <= version <= 5:
            self._run(self._header(cursor, version, offset_bytes))
        return end

    def _header(self, cursor: _Cursor, version: int, offset_bytes: int) -> _Program:
        if version >= 5 and cursor.take(2)[0] != 8:
            raise BadLinesError("a line table has addresses that are not 8 bytes long")
        size = cursor.number(offset_bytes)
        body = _Cursor(cursor.data, cursor.at + size, cursor.end)
        min_length = cursor.number(1)
        if version >= 4:
            cursor.take(1)
        cursor.take(1)
        line_base = struct.unpack("<b", cursor.take(1))[0]
        line_range, opcode_base = cursor.number(1), cursor.number(1)
        if not line_range or not opcode_base:
            raise BadLinesError("a line table's header has a zero where none may be")
        counts = cursor.take(opcode_base - 1)
        names = self._names_v5(cursor, offset_bytes) if version >= 5 else self._names_v2(cursor)
        return _Program(
            body, min_length, line_base, line_range, opcode_base, counts, names, first_file=0 if version >= 5 else 1
        )

    def _add_name(self, folder: bytes, name: bytes) -> int:
        if len(self._names) >= MAX_FILES:
            raise BadLinesError(f"a line table names more than {MAX_FILES} files")
        absolute = name.startswith(b"/") or not folder
        self._names.append((name if absolute else folder + b"/" + name)[-MAX_PATH_BYTES:])
        return len(self._names) - 1

    def _names_v2(self, cursor: _Cursor) -> list[int]:
        folders = [b""]
        while folder := cursor.string():
            if len(folders) > MAX_FILES:
                raise BadLinesError(f"a line table names more than {MAX_FILES} folders")
            folders.append(folder)
        files = []
        while name := cursor.string():
            folder_number = cursor.uleb()
            cursor.uleb()
            cursor.uleb()
            files.append(self._add_name(folders[folder_number] if folder_number < len(folders) else b"", name))
        return files

    def _names_v5(self, cursor: _Cursor, offset_bytes: int) -> list[int]:
        folders = [path for path, _ in self._entries(cursor, offset_bytes)]
        # The first folder is where the compiler ran: names are shown relative to it.
        folders[:1] = [b""] if folders else []
        return [
            self._add_name(folders[number] if number < len(folders) else b"", path)
            for path, number in self._entries(cursor, offset_bytes)
        ]

    def _entries(self, cursor: _Cursor, offset_bytes: int) -> list[tuple[bytes, int]]:
        """Return path and folder number of each entry of a list of DWARF 5."""
        formats = [(cursor.uleb(), cursor.uleb()) for _ in range(cursor.number(1))]
        count = cursor.uleb()
        if len(formats) > _MAX_FORMATS or count > MAX_FILES or (count and not formats):
            raise BadLinesError("a line table has an impossible list of files")
        found = []
        for _ in range(count):
            path, folder = b"", 0
            for content, form in formats:
                value = self._value(cursor, form, offset_bytes)
                if content == _PATH and isinstance(value, bytes):
                    path = value
                elif content == _DIR_INDEX and isinstance(value, int):
                    folder = value
            found.append((path, folder))
        return found

    def _value(self, cursor: _Cursor, form: int, offset_bytes: int) -> bytes | int:
        if form == _FORM_STRING:
            return cursor.string()
        if form in (_FORM_LINE_STRP, _FORM_STRP):
            section = self._sections.line_str if form == _FORM_LINE_STRP else self._sections.str
            return _Cursor(section, cursor.number(offset_bytes), len(section)).string()
        if form == _FORM_UDATA:
            return cursor.uleb()
        if form in _FIXED_FORMS:
            return cursor.number(_FIXED_FORMS[form])
        if form == _FORM_BLOCK:
            return cursor.take(cursor.uleb())
        raise BadLinesError(f"a line table describes its files in an unknown form (0x{form:x})")

    def _run(self, program: _Program) -> None:
        """Run a unit's program, which makes the rows."""
        body = program.body
        address, file, line, first, extended = 0, 1, 1, len(self._lines), 0
        while body.at < body.end and len(self._lines) < MAX_ROWS:
            opcode = body.data[body.at]
            body.at += 1
            if opcode >= program.opcode_base:
                step = opcode - program.opcode_base
                address += step // program.line_range * program.min_length
                line += program.line_base + step % program.line_range
                self._row(program, address, file, line)
            elif opcode == 0:
                size = body.uleb()
                after = body.at + size
                extended = body.number(1) if size else 0
                if extended == 1:
                    self._end_sequence(first, address)
                    address, file, line, first = 0, 1, 1, len(self._lines)
                elif extended == 2:
                    address = body.number(min(8, size - 1))
                if after > body.end:
                    raise BadLinesError("a line table ends in the middle")
                body.at = after
            elif opcode == 1:
                self._row(program, address, file, line)
            elif opcode == 2:
                address += body.uleb() * program.min_length
            elif opcode == 3:
                line += body.sleb()
            elif opcode == 4:
                file = body.uleb()
            elif opcode == 8:
                address += (255 - program.opcode_base) // program.line_range * program.min_length
            elif opcode == 9:
                address += body.number(2)
            else:
                for _ in range(program.argument_counts[opcode - 1]):
                    body.uleb()
        # Rows that no end closes cover nothing.
        if first < len(self._lines) and len(self._lines) >= MAX_ROWS:
            self._end_sequence(first, address)

    def _row(self, program: _Program, address: int, file: int, line: int) -> None:
        index = file - program.first_file
        known = program.files[index] if 0 <= index < len(program.files) else 0xFFFFFFFF
        self._addresses.append(address & _MASK)
        self._files.append(known)
        self._lines.append(max(0, min(line, 0xFFFFFFFF)))

    def _end_sequence(self, first: int, end: int) -> None:
        last = len(self._lines)
        rows = self._addresses[first:last]
        # A sequence that begins at 0 belongs to code that the linker has thrown away.
        if last > first and rows[0] and all(a <= b for a, b in pairwise(rows)):
            self._sequences.append((rows[0], end & _MASK, first, last))
