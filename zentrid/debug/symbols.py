"""Symbol files: which function and line an address inside an ELF file belongs to.

A stand-in with the agreed interface: symbol table, and line programs read from the front.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection

from zentrid.errors import ZentriError
from zentrid.ports import Frame


class BadSymbolFileError(ZentriError):
    """The file is no ELF file, or a damaged one."""

    reason = "bad_symbol_file"


@dataclass(frozen=True)
class Place:
    """Where an address lies."""

    function: str
    offset: int
    """Bytes after the function's beginning."""
    file: str | None = None
    line: int | None = None


class SymbolFile:
    """An ELF file with symbols; raises BadSymbolFileError for anything else."""

    def __init__(self, stream: BinaryIO) -> None:
        try:
            self._elf = ELFFile(stream)
            self.build_id = self._read_build_id()
            self._symbols = sorted(self._read_symbols())
        except Exception as error:
            raise BadSymbolFileError(f"not an ELF file that can be read ({type(error).__name__})") from error

    def _read_build_id(self) -> str:
        for section in self._elf.iter_sections():
            for note in section.iter_notes() if isinstance(section, NoteSection) else ():
                if note["n_type"] == "NT_GNU_BUILD_ID":
                    return str(note["n_desc"])
        return ""

    def _read_symbols(self) -> list[tuple[int, int, str]]:
        return [
            (int(symbol["st_value"]), int(symbol["st_size"]), str(symbol.name))
            for section in self._elf.iter_sections()
            if isinstance(section, SymbolTableSection)
            for symbol in section.iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"]
        ]

    def resolve(self, address: int) -> Place | None:
        """Return the place of `address`; None where no function is. Raises BadSymbolFileError."""
        for start, size, name in reversed(self._symbols):
            if start <= address < start + max(size, 1):
                try:
                    return Place(name, address - start, *self._line(address))
                except Exception as error:
                    raise BadSymbolFileError(f"its line table is damaged ({type(error).__name__})") from error
        return None

    def _line(self, address: int) -> tuple[str | None, int | None]:
        if not self._elf.has_dwarf_info():
            return None, None
        dwarf: Any = self._elf.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            before: Any = None
            for entry in program.get_entries() if program is not None else ():
                state = entry.state
                if state is None:
                    continue
                if before is not None and before.address <= address < state.address:
                    index = before.file if program["version"] >= 5 else before.file - 1
                    name = program["file_entry"][index].name
                    return name.decode("utf-8", "replace"), before.line
                before = None if state.end_sequence else state
        return None, None


def describe(frame: Frame, place: Place | None) -> str:
    """Return a frame for a person."""
    module = PurePosixPath(frame.module).name
    if place is None:
        return f"{frame.address:#x} in {module}"
    line = f" ({PurePosixPath(place.file).name}:{place.line})" if place.file else ""
    return f"{place.function}+{place.offset:#x}{line} in {module}"
