"""ELF cores for tests: written piece by piece as the kernel lays them out, or left by a real program under qemu-user."""

import re
import resource
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.board_driver.boards import VIRT
from scripts.image.samples import build_samples
from zentrid.debug.corefile import Mapping, Registers
from zentrid.debug.modules import read_module

QEMU = shutil.which("qemu-aarch64-static")
SYSROOT = Path("/usr/aarch64-linux-gnu")
SAMPLES = Path(__file__).resolve().parents[2] / "scripts/samples"

needs_qemu_user = pytest.mark.skipif(
    QEMU is None or not SYSROOT.is_dir() or shutil.which("aarch64-linux-gnu-gcc") is None,
    reason="needs qemu-user-static, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross",
)

PAGE = 4096
READ, EXECUTE = 4, 1
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")


@dataclass
class Piece:
    """A piece of memory; `size`: of the memory, where less of it was dumped than there is."""

    start: int
    data: bytes = b""
    flags: int = READ
    size: int = 0


@dataclass
class CoreParts:
    """What a core is written from."""

    registers: Registers
    pieces: list[Piece] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    signal: int = 11
    more_notes: list[tuple[int, bytes]] = field(default_factory=list)


def note(kind: int, content: bytes, name: bytes = b"CORE\0\0\0\0") -> bytes:
    """Return one note with its padding."""
    return struct.pack("<III", 5, len(content), kind) + name + content + bytes(-len(content) % 4)


def prstatus(registers: Registers, signal: int) -> bytes:
    """Return `struct elf_prstatus`."""
    words = [0] * 34
    words[29:34] = [registers.fp, registers.lr, registers.sp, registers.pc, 0]
    head = struct.pack("<iiihxx", signal, 0, 0, signal).ljust(112, b"\0")
    return head + struct.pack("<34Q", *words) + bytes(8)


def file_note(mappings: Sequence[Mapping]) -> bytes:
    """Return the content of NT_FILE."""
    body = struct.pack("<QQ", len(mappings), PAGE)
    body += b"".join(struct.pack("<QQQ", part.start, part.end, part.offset // PAGE) for part in mappings)
    return body + b"".join(part.path.encode() + b"\0" for part in mappings)


def write_core(parts: CoreParts) -> bytes:
    """Return a core as the kernel writes it."""
    notes = note(1, prstatus(parts.registers, parts.signal)) + note(0x46494C45, file_note(parts.mappings))
    notes += b"".join(note(kind, content) for kind, content in parts.more_notes)
    count = 1 + len(parts.pieces)
    notes_at = _EHDR.size + count * _PHDR.size
    at = -(-(notes_at + len(notes)) // PAGE) * PAGE
    table = [_PHDR.pack(4, 0, notes_at, 0, 0, len(notes), 0, 4)]
    for piece in parts.pieces:
        size = max(piece.size, len(piece.data))
        table.append(_PHDR.pack(1, piece.flags, at, piece.start, 0, len(piece.data), size, PAGE))
        at += len(piece.data)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    shown = min(count, 0xFFFF)
    head = _EHDR.pack(ident, 4, 183, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, shown, 64, 0, 0)
    body = head + b"".join(table) + notes
    return body + bytes(-len(body) % PAGE) + b"".join(piece.data for piece in parts.pieces)


# --- real programs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """The sample application, compiled as for the image."""

    program: Path
    symbols: Path


def build_sample(folder: Path) -> Built:
    """Compile sample-arm below `folder`."""
    folder.mkdir()
    build_samples(VIRT, SAMPLES, folder, log=folder / "log")
    [symbols] = (folder / "symbols").glob(".build-id/*/*.debug")
    return Built(folder / "apps/sample-arm/bin/sample-arm", symbols)


def crash_of(program: Path, folder: Path, *words: str) -> CoreParts:
    """Run a program until it crashes; return its core, with what the kernel would have noted besides.

    qemu-user writes real registers and the real stack, but neither NT_FILE nor the files' first pages. Where the files
    are in memory the dynamic loader itself tells.
    """
    folder.mkdir(parents=True)
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limit[1], limit[1]))
    try:
        done = subprocess.run(
            [str(QEMU), "-L", SYSROOT, "-E", "LD_DEBUG=files", "-E", "LD_DEBUG_OUTPUT=ld", program, *words],
            cwd=folder, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limit)
    assert done.returncode < 0, done
    [core] = folder.glob("qemu_*.core")
    [debug] = folder.glob("ld.*")
    data, said = core.read_bytes(), debug.read_text()
    shutil.rmtree(folder)
    return _parts(data, program, said)


def _parts(data: bytes, program: Path, said: str) -> CoreParts:
    fields = _EHDR.unpack_from(data)
    table = [_PHDR.unpack_from(data, fields[5] + n * _PHDR.size) for n in range(fields[10])]
    notes = dict(_notes(next(data[entry[2] : entry[2] + entry[5]] for entry in table if entry[0] == 4)))
    words = struct.unpack_from("<34Q", notes[1], 112)
    registers = Registers(pc=words[32], lr=words[30], fp=words[29], sp=words[31])
    vector = dict(struct.iter_unpack("<QQ", notes[6]))  # NT_AUXV: where program headers and the loader are
    files = {vector[3] - _EHDR.size: program, vector[7]: SYSROOT / "lib/ld-linux-aarch64.so.1"}
    for name, base in re.findall(r"file=(\S+) \[0\];\s+generating link map\n.*base: (0x[0-9a-f]+)", said):
        files[int(base, 16)] = SYSROOT / "lib" / Path(name).name
    mappings = [part for base, path in files.items() for part in _mappings(base, path)]
    heads = {base: path.read_bytes()[:PAGE] for base, path in files.items()}
    pieces = []
    for kind, flags, offset, start, _, size, memory_size, _ in table:
        is_stack = start <= registers.sp < start + memory_size
        if kind == 1:
            pieces.append(Piece(start, data[offset : offset + size] if is_stack else b"", flags, memory_size))
    pieces += [Piece(base, head) for base, head in heads.items()]
    return CoreParts(registers, pieces, sorted(mappings, key=lambda part: part.start), _signal(notes[1]))


def _signal(status: bytes) -> int:
    """Return the signal in `struct elf_prstatus`."""
    return int(struct.unpack_from("<h", status, 12)[0])


def _notes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 12 <= len(data):
        name_bytes, size, kind = struct.unpack_from("<III", data, at)
        content_at = at + 12 + (name_bytes + 3 & ~3)
        yield kind, data[content_at : content_at + size]
        at = content_at + (size + 3 & ~3)


def _mappings(base: int, path: Path) -> Iterator[Mapping]:
    data = path.read_bytes()
    module = read_module(lambda at, size: data[at : at + size])
    assert module is not None, path
    for load in module.loads:
        skew = load.address % PAGE
        end = -(-(load.address + load.size) // PAGE) * PAGE
        yield Mapping(base + load.address - skew, base + end, load.offset - skew, str(path))
