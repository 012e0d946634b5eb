"""Small ELF files for the board, made with the cross compiler."""

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("aarch64-linux-gnu-gcc")
HOST_COMPILER = shutil.which("cc") or shutil.which("gcc")

needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="aarch64-linux-gnu-gcc is not installed (package gcc-aarch64-linux-gnu)"
)


def compiled(
    out: Path, *options: str, source: str = "int main(void) { return 0; }", compiler: str | None = None
) -> Path:
    """Compile a C source to `out` without any library but what `options` name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [compiler or str(COMPILER), "-x", "c", "-", "-x", "none", "-o", out, "-nostdlib", "-Wl,-e,main", *options],
        input=source, text=True, check=True, capture_output=True,
    )  # fmt: skip
    return out


def library(folder: Path, name: str, *options: str) -> Path:
    """Make a shared library with this soname."""
    source = f"int from_{name.partition('.')[0].replace('-', '_')}(void) {{ return 1; }}"
    return compiled(folder / name, "-shared", "-fPIC", f"-Wl,-soname,{name}", *options, source=source)


def program(out: Path, *libraries: Path, options: tuple[str, ...] = ()) -> Path:
    """Make a program that needs these libraries."""
    return compiled(out, "-Wl,--no-as-needed", *options, *map(str, libraries))
