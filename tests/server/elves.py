"""Symbol files for tests: small programs from the compiler, and hostile ones."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

COMPILER = shutil.which("aarch64-linux-gnu-gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no cross compiler is installed")

SOURCE = """
int depth;
void crash_now(void)
{
    depth = 1;
}
int main(void)
{
    crash_now();
    return 0;
}
"""


@dataclass(frozen=True)
class Program:
    """A program with symbols, and where its function `crash_now` is."""

    path: Path
    build_id: str
    crash: int

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def frame(self, offset: int = 0, **more: object) -> dict[str, object]:
        """Return the frame for a place in `crash_now`."""
        return {"module": "/opt/sample-arm", "build_id": self.build_id, "address": self.crash + offset, **more}


def program(folder: Path, build_id: str = "sha1", *options: str) -> Program:
    """Compile a program; the same build-id can be forced with `build_id` `0x…`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sample.c").write_text(SOURCE)
    subprocess.run(
        [str(COMPILER), "-g", "-O0", "-nostdlib", "-Wl,-e,main", f"-Wl,--build-id={build_id}", *options,
         "-o", "sample", "sample.c"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    with (folder / "sample").open("rb") as stream:
        elf: Any = ELFFile(stream)
        note = next(iter(elf.get_section_by_name(".note.gnu.build-id").iter_notes()), None)
        [symbol] = elf.get_section_by_name(".symtab").get_symbol_by_name("crash_now")
        assert note is not None
        return Program(folder / "sample", str(note["n_desc"]), int(symbol["st_value"]))
