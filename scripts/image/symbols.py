"""The symbol files of an image: what turns an address of a crashed program into function and line, beside the image.

Named by build-id as debuggers look for them: `.build-id/ab/cdef….debug`. A program of our own has its file with lines from
its compilation. A stripped Debian file still names its exported functions; a small ELF file with just those is made here.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Final

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection

from scripts.bundle_tool.elfcheck import is_elf

FOLDER: Final = "symbols"
INDEX: Final = "index.json"
SUFFIX: Final = ".debug"
KEPT_SECTIONS: Final = (".note.gnu.build-id", ".dynsym", ".dynstr")

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SHT_STRTAB: Final = 3


def symbol_path(build_id: str) -> str:
    """Return where in a folder of symbols the file of a build-id is."""
    return f".build-id/{build_id[:2]}/{build_id[2:]}{SUFFIX}"


def build_id_of(path: Path) -> str:
    """Return the GNU build-id of an ELF file as hexadecimal, empty when it has none or is no ELF file."""
    with path.open("rb") as stream:
        if not is_elf(stream):
            return ""
        section = ELFFile(stream).get_section_by_name(".note.gnu.build-id")
        notes = section.iter_notes() if isinstance(section, NoteSection) else ()
        return next((str(note["n_desc"]) for note in notes if note["n_type"] == "NT_GNU_BUILD_ID"), "")


def collect(root: Path, own: Path, out: Path, *, bits: int = 64) -> int:
    """Make `out/.build-id/…` for every ELF file with a build-id below `root`, and `out/index.json`; return how many.

    `own`: symbol files with lines, which come first. Same inputs give the same bytes. `bits`: of the board's word; where it is
    not 64, nothing reads crashes (`zentrid/debug`), and there are no files.
    """
    index: dict[str, dict[str, object]] = {}
    for path in sorted(_regular_files(root)) if bits == 64 else ():
        build_id = build_id_of(path)
        if not build_id or build_id in index:
            continue
        target = out / symbol_path(build_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        compiled = own / symbol_path(build_id)
        if compiled.is_file():
            shutil.copy(compiled, target)
        else:
            target.write_bytes(exported_only(path))
        target.chmod(0o644)
        index[build_id] = {"file": f"/{path.relative_to(root)}", "lines": compiled.is_file()}
    (out / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return len(index)


def exported_only(path: Path) -> bytes:
    """Return an ELF file that has nothing of the one at `path` but its build-id and the names that it exports."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        header = elf.header
        found = [section for name in KEPT_SECTIONS if (section := elf.get_section_by_name(name)) is not None]
        names = [section.name for section in found] + [".shstrtab"]
        contents = [section.data() for section in found]
        headers = [section.header for section in found]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    table = [_SHDR.pack(*(0,) * 10)]
    body = bytearray()
    for name, content, old in zip(names, [*contents, strings], [*headers, None], strict=True):
        body += bytes(-len(body) % 8)
        at = strings.index(b"\0" + name.encode() + b"\0") + 1
        kind = (
            _SHT_STRTAB if old is None else {"SHT_DYNSYM": 11, "SHT_STRTAB": _SHT_STRTAB, "SHT_NOTE": 7}[old["sh_type"]]
        )
        link = names.index(".dynstr") + 1 if name == ".dynsym" else 0
        rest = (0, 0) if old is None else (old["sh_flags"], old["sh_addr"])
        last = (0, 1, 0) if old is None else (old["sh_info"], old["sh_addralign"], old["sh_entsize"])
        table.append(_SHDR.pack(at, kind, *rest, _EHDR.size + len(body), len(content), link, *last))
        body += content
    body += bytes(-len(body) % 8)
    ident = bytes(header["e_ident"]["EI_MAG"]) + bytes((2, 1, 1, 0)) + bytes(8)
    machine = 183 if header["e_machine"] == "EM_AARCH64" else 0
    kind = {"ET_EXEC": 2, "ET_DYN": 3}.get(header["e_type"], 0)
    head = _EHDR.pack(
        ident, kind, machine, 1, 0, 0, _EHDR.size + len(body), 0, _EHDR.size, 0, 0, _SHDR.size, len(table), len(names)
    )
    return head + bytes(body) + b"".join(table)


def _regular_files(root: Path) -> list[Path]:
    found = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return [path for path in found if path.is_file() and not path.is_symlink()]
