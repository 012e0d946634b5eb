"""Real crashes of a real program: build-ids, addresses inside the file, and the right functions."""

import io
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from tests.support.cores import Built, CoreParts, Piece, needs_qemu_user, write_core
from zentrid.crash import open_module
from zentrid.debug.backtrace import backtrace
from zentrid.debug.corefile import read_core
from zentrid.debug.modules import function_start, read_module
from zentrid.debug.symbols import SymbolFile
from zentrid.ports import Frame

pytestmark = needs_qemu_user


def frames_of(parts: CoreParts, *, files: bool = True) -> tuple[Frame, ...]:
    core = read_core(io.BytesIO(write_core(parts)))
    return backtrace(core, open_module) if files else backtrace(core)


def functions(frames: tuple[Frame, ...], sample: Built) -> list[str]:
    """Return the functions of the sample's own frames, as the symbol file names them."""
    with sample.symbols.open("rb") as stream:
        file = SymbolFile(stream)
        places = [file.resolve(frame.address) for frame in frames if frame.build_id == file.build_id]
    return [place.function for place in places if place is not None]


OWN = ["crash_now", "read_sensor", "do_crash", "run", "main"]


def test_a_leafs_caller_is_there_once(sample: Built, crashes):
    frames = frames_of(crashes["segv"])
    assert functions(frames, sample)[:6] == ["store_reading", *OWN]
    assert frames[0].module == str(sample.program)


def test_what_is_left_in_lr_is_no_frame(sample: Built, crashes):
    """In a system call of the C library lr still points behind the function's last call."""
    frames = frames_of(crashes["raise"])
    assert functions(frames, sample)[:6] == ["crash_now", "check_reading", *OWN[1:]]
    # Without the files nobody can tell, and the leftover is shown.
    assert len(frames_of(crashes["raise"], files=False)) == len(frames) + 1


def test_addresses_are_those_of_the_symbol_table(sample: Built, crashes):
    with sample.symbols.open("rb") as stream:
        found = SymbolFile(stream).resolve(frames_of(crashes["segv"])[1].address)
    assert found is not None
    lines = Path("scripts/samples/sample-arm/sample-arm.c").read_text().splitlines()
    assert lines[found.line - 1].strip() == "store_reading(nowhere, depth);"


def test_build_ids_come_from_memory_else_from_the_file(sample: Built, crashes):
    parts = crashes["segv"]
    with_heads = frames_of(parts, files=False)
    without = replace(
        parts, pieces=[Piece(p.start, b"", p.flags, 4096) if p.data[:4] == b"\x7fELF" else p for p in parts.pieces]
    )
    assert all(frame.build_id for frame in with_heads)
    assert frames_of(without) == frames_of(parts)
    lost = frames_of(without, files=False)
    assert not any(frame.build_id for frame in lost)
    assert [frame.module for frame in lost] == [frame.module for frame in with_heads]


def test_another_file_at_the_same_path_is_not_believed(sample: Built, crashes):
    """Applications are replaced while they run: the header in memory says which one it was."""
    other = next(Path(part.path) for part in crashes["raise"].mappings if part.path != str(sample.program))

    def wrong(_path: str) -> AbstractContextManager[BinaryIO]:
        return sample.program.open("rb") if "libc" in _path else other.open("rb")

    core = read_core(io.BytesIO(write_core(crashes["raise"])))
    frames = backtrace(core, wrong)
    assert frames[0].build_id == frames_of(crashes["raise"])[0].build_id
    assert len(frames) == len(frames_of(crashes["raise"])) + 1, "the leftover could not be told"


def test_the_table_for_exceptions_tells_functions_apart(sample: Built):
    data = sample.program.read_bytes()

    def read_at(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    module = read_module(read_at)
    assert module is not None
    with sample.symbols.open("rb") as stream:
        file = SymbolFile(stream)
        for start in range(0xB40, 0x1400, 4):
            place = file.resolve(start)
            if place is not None and place.file:
                assert function_start(module, read_at, start) == start - place.offset


def test_files_that_would_block_are_not_opened(tmp_path):
    import os

    os.mkfifo(tmp_path / "fifo")
    assert open_module(str(tmp_path / "fifo")) is None
    assert open_module(str(tmp_path)) is None
    assert open_module("/dev/zero") is None
    assert open_module("\0") is None
    assert open_module(str(tmp_path / "none")) is None
