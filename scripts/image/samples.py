"""The sample applications: application packages (`app.json` and files) that every image has, and their symbol files."""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.board_driver.boards import BoardKind
from scripts.image.run import BuildError, run
from scripts.image.symbols import build_id_of, symbol_path

APPS = "usr/share/zentri/apps"
"""Where the image keeps its application packages, one folder each."""
HARDENED = (
    "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIE", "-fstack-protector-strong",
    "-fstack-clash-protection", "-D_FORTIFY_SOURCE=2", "-pie", "-Wl,-z,relro,-z,now,-z,noexecstack",
)  # fmt: skip
READABLE = ("-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-Wl,--build-id=sha1")
"""What a backtrace needs: lines, the chain of frame pointers, every caller in it, and a name for the symbol file."""


def build_samples(board: BoardKind, source: Path, out: Path, *, log: Path, cross: str = "") -> None:
    """Make `out/apps/<name>/` for each folder below `source`, and `out/symbols/.build-id/…` of what was compiled.

    A folder's `<name>.c` becomes `bin/<name>`, stripped; everything else is copied. `cross` is what the names of the
    compiler's programs begin with, those of the board if it is empty. Raises BuildError.
    """
    (out / "symbols").mkdir()
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        target = out / "apps" / folder.name
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.c", "__pycache__"))
        if (folder / f"{folder.name}.c").is_file():
            _compile(
                folder, target / "bin" / folder.name, out / "symbols", (cross or board.cross, *board.program_flags), log
            )


def _compile(folder: Path, program: Path, symbols: Path, compiler: tuple[str, ...], log: Path) -> None:
    cross, *flags = compiler
    program.parent.mkdir(exist_ok=True)
    # Compiled where the source is, by a relative name: no folder of this machine gets into the program.
    run(
        [f"{cross}gcc", *HARDENED, *flags, *READABLE, f"-ffile-prefix-map={folder}=.", "-o", program, f"{folder.name}.c"],
        cwd=folder, log=log,
    )  # fmt: skip
    build_id = build_id_of(program)
    if not build_id:
        raise BuildError(f"{program.name} has no build-id, so that its crashes could not be read; see {log}")
    target = symbols / symbol_path(build_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    run([f"{cross}objcopy", "--only-keep-debug", program, target], log=log)
    target.chmod(0o644)
    run([f"{cross}strip", "--strip-unneeded", program], log=log)
