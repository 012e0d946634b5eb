"""What ELF files need, and whether an image has it: so that a bundle cannot bring a program that does not start.

Source of the rules: the System V ABI with its supplements for AArch64 and ARM, and ld.so(8): a library is looked for in the
file's own RUNPATH, in the folders of `ld.so.conf`, in the default folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment, NoteSegment

from scripts.board_driver.boards import BOARDS, DEFAULT
from zentrid.bundle.manifest import MAX_NEEDED, ElfFacts, RelroLevel
from zentrid.errors import ZentriError

ELF_MAGIC: Final = b"\x7fELF"
_TRIPLETS: Final = tuple(board.triplet for board in BOARDS.values())
DEFAULT_FOLDERS: Final = (
    "lib",
    "usr/lib",
    "lib64",
    "usr/lib64",
    *(f"lib/{triplet}" for triplet in _TRIPLETS),
    *(f"usr/lib/{triplet}" for triplet in _TRIPLETS),
    "usr/local/lib",
    *(f"usr/local/lib/{triplet}" for triplet in _TRIPLETS),
)
"""Of every board: an image has those of its own."""
MAX_LINKS: Final = 40
_MAX_CONF_FILES = 64

_DF_BIND_NOW = 0x8
_DF_1_NOW = 0x1


class ElfError(ZentriError):
    """An ELF file that must not go into a bundle; `file` names it."""

    reason = "bad_elf"

    def __init__(self, file: str, problem: str) -> None:
        self.file = file
        super().__init__(f"{file}: {problem}")


@dataclass(frozen=True)
class ElfFile:
    """What one ELF file says about itself."""

    facts: ElfFacts
    kind: str
    """`ET_EXEC`, `ET_DYN`, `ET_REL` (kernel modules), …"""
    interpreter: str | None
    """The dynamic loader that it asks for; None for libraries and static programs."""
    runpath: tuple[str, ...]
    """Its own library folders, as written (`$ORIGIN` not replaced)."""


def is_elf(stream: BinaryIO) -> bool:
    """Tell whether a seekable file is ELF; leaves it at its beginning."""
    stream.seek(0)
    magic = stream.read(len(ELF_MAGIC))
    stream.seek(0)
    return magic == ELF_MAGIC


def read_elf(stream: BinaryIO, name: str) -> ElfFile:
    """Return what the ELF file in `stream` says; `name` is for the error. Raises ElfError if it cannot be read."""
    try:
        return _read(ELFFile(stream))
    except Exception as error:
        # pyelftools raises whatever a damaged structure leads it to: one answer for all of them.
        raise ElfError(name, f"is a damaged ELF file ({type(error).__name__}); build it again") from error


def _read(elf: ELFFile) -> ElfFile:
    needed: list[str] = []
    runpath: list[str] = []
    now = False
    for tag in _dynamic_tags(elf):
        name, value = tag.entry.d_tag, tag.entry.d_val
        if name == "DT_NEEDED":
            needed.append(tag.needed)
        elif name in ("DT_RUNPATH", "DT_RPATH"):
            text = tag.runpath if name == "DT_RUNPATH" else tag.rpath
            runpath += [part for part in text.split(":") if part]
        elif name == "DT_BIND_NOW":
            now = True
        elif name == "DT_FLAGS":
            now = now or bool(value & _DF_BIND_NOW)
        elif name == "DT_FLAGS_1":
            now = now or bool(value & _DF_1_NOW)
    if len(needed) > MAX_NEEDED:
        raise ValueError("too many libraries")
    segments = {segment["p_type"]: segment for segment in elf.iter_segments()}
    if elf["e_type"] in ("ET_EXEC", "ET_DYN") and "PT_LOAD" not in segments:
        raise ValueError("nothing to load")
    relro: RelroLevel = "none"
    if "PT_GNU_RELRO" in segments:
        relro = "full" if now else "partial"
    loader = segments.get("PT_INTERP")
    interpreter = loader.get_interp_name() if isinstance(loader, InterpSegment) else None
    stack = segments.get("PT_GNU_STACK")
    facts = ElfFacts(
        machine=str(elf["e_machine"]).removeprefix("EM_"),
        needed=tuple(needed),
        build_id=_build_id(elf),
        pie=elf["e_type"] == "ET_DYN",
        relro=relro,
        nx=stack is not None and not stack["p_flags"] & 1,
    )
    return ElfFile(facts, str(elf["e_type"]), interpreter, tuple(runpath))


def _dynamic_tags(elf: ELFFile) -> Iterator[Any]:
    for segment in elf.iter_segments():
        if isinstance(segment, DynamicSegment):
            yield from segment.iter_tags()


def _build_id(elf: ELFFile) -> str | None:
    for segment in elf.iter_segments():
        for note in segment.iter_notes() if isinstance(segment, NoteSegment) else ():
            if note["n_type"] == "NT_GNU_BUILD_ID" and note["n_name"] == "GNU":
                return str(note["n_desc"])
    return None


def check_file(stream: BinaryIO, name: str, libraries: Iterable[str], machine: str = DEFAULT.elf_machine) -> ElfFacts:
    """Return the facts about a program or library for the board. `libraries`: file names that the image has.

    `machine`: the board's processor, as `BoardKind.elf_machine` names it.

    Raises ElfError for another architecture and for libraries that are missing, naming them.
    """
    elf = read_elf(stream, name)
    _require_machine(elf, name, machine)
    have = set(libraries)
    missing = [library for library in elf.facts.needed if library not in have]
    if missing:
        raise ElfError(
            name,
            f"needs {_listed(missing)}, which the image does not have; add the package to the image, put the library into "
            "the application, or link it statically",
        )
    return elf.facts


def _require_machine(elf: ElfFile, name: str, machine: str) -> None:
    if elf.facts.machine != machine:
        raise ElfError(name, f"is built for {elf.facts.machine}, the board is {machine}; build it for {machine}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


# --- a whole image --------------------------------------------------------------------------------------------------


def resolve(root: Path, path: str) -> Path | None:
    """Return the real file or folder for `path` inside the image at `root`, links followed inside it; None if there is none.

    Never leaves `root`: an absolute link starts at it, and `..` above it stays there.
    """
    done: list[str] = []
    todo = list(reversed([part for part in path.split("/") if part]))
    links = 0
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            done = done[:-1]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink():
            links += 1
            if links > MAX_LINKS:
                return None
            target = str(here.readlink())
            if target.startswith("/"):
                done = []
            todo += reversed([piece for piece in target.split("/") if piece])
        else:
            done.append(part)
    found = root.joinpath(*done)
    return found if found.exists() else None


def library_folders(root: Path) -> list[str]:
    """Return the folders (relative to the image) where its loader looks for libraries by default."""
    folders = list(DEFAULT_FOLDERS)
    conf = resolve(root, "etc/ld.so.conf.d")
    names = sorted(conf.glob("*.conf"))[:_MAX_CONF_FILES] if conf is not None else []
    for path in names:
        if path.is_file():
            lines = path.read_text(errors="replace").splitlines()
            folders += [line.strip().strip("/") for line in lines if line.strip().startswith("/")]
    return list(dict.fromkeys(folders))


def libraries_of(root: Path) -> set[str]:
    """Return the names of all files in the library folders of the image at `root`; what DT_NEEDED is compared with."""
    found: set[str] = set()
    for folder in library_folders(root):
        real = resolve(root, folder)
        if real is not None and real.is_dir():
            found |= {entry.name for entry in real.iterdir() if resolve(root, f"{folder}/{entry.name}") is not None}
    return found


def check_tree(root: Path, machine: str = DEFAULT.elf_machine) -> list[str]:
    """Check every ELF file below the image folder `root`; return one sentence for each problem, sorted by file.

    `machine`: the board's processor. Checked: that it can be read, its architecture, that its dynamic loader and all its
    libraries are in the image. Not followed: links (what they lead to is checked where it is). Relocatable files (kernel
    modules) need no libraries.
    """
    elves: dict[str, ElfFile] = {}
    problems: list[str] = []
    for path in _regular_files(root):
        name = str(path.relative_to(root))
        with path.open("rb") as stream:
            if not is_elf(stream):
                continue
            try:
                elf = read_elf(stream, name)
                _require_machine(elf, name, machine)
            except ElfError as error:
                problems.append(str(error))
                continue
        elves[name] = elf
    common = libraries_of(root)
    # A plugin often relies on a folder that only the program which loads it names.
    named = {folder for name, elf in elves.items() for folder in _own_folders(name, elf)}
    private = {folder: _names_in(root, folder) for folder in named}
    elsewhere = common.union(*private.values())
    for name, elf in elves.items():
        if elf.interpreter is not None and resolve(root, elf.interpreter) is None:
            problems.append(f"{name}: its loader {elf.interpreter} is not in the image; add the C library's package")
        missing = [library for library in elf.facts.needed if library not in elsewhere]
        if missing:
            problems.append(f"{name}: needs {_listed(missing)}, which the image does not have; add the package")
    return sorted(problems)


def _own_folders(name: str, elf: ElfFile) -> list[str]:
    folder = str(PurePosixPath(name).parent)
    return [part.replace("${ORIGIN}", folder).replace("$ORIGIN", folder).strip("/") for part in elf.runpath]


def _names_in(root: Path, folder: str) -> set[str]:
    real = resolve(root, folder)
    return {entry.name for entry in real.iterdir()} if real is not None and real.is_dir() else set()


def _regular_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path
