"""Compiles the kernel and U-Boot from sources as Debian packs them, with the board's fragments."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.board_driver.boards import BoardKind
from scripts.image.run import BuildError, run


def lost_options(fragment: str, config: str) -> list[str]:
    """Return the fragment's lines that the final configuration does not honour."""
    lines = set(config.splitlines())
    set_names = {line.split("=", 1)[0] for line in lines if line.startswith("CONFIG_")}
    lost = []
    for raw in fragment.splitlines():
        line = raw.strip()
        if line.startswith("# CONFIG_") and line.endswith(" is not set"):
            wanted_off = line.removeprefix("# ").removesuffix(" is not set")
        elif line.startswith("CONFIG_") and line.endswith("=n"):
            wanted_off = line.removesuffix("=n")
        else:
            if line.startswith("CONFIG_") and line not in lines:
                lost.append(line)
            continue
        if wanted_off in set_names:
            lost.append(line)
    return lost


def _configure(source: Path, defconfig: str, fragments: Sequence[Path], make: list[str], log: Path) -> None:
    run([*make, defconfig], cwd=source, log=log)
    run(["./scripts/kconfig/merge_config.sh", "-m", ".config", *fragments], cwd=source, log=log)
    run([*make, "olddefconfig"], cwd=source, log=log)
    for fragment in fragments:
        lost = lost_options(fragment.read_text(), (source / ".config").read_text())
        if lost:
            raise BuildError(f"{fragment}: these options do not survive into the configuration: {', '.join(lost)}")


def _unpack(tar: Path, work: Path, log: Path) -> Path:
    work.mkdir(parents=True)
    run(["tar", "xf", tar, "-C", work, "--strip-components=1"], log=log)
    return work


def _jobs() -> str:
    return f"-j{os.cpu_count() or 2}"


def build_linux(sources: Path, board: BoardKind, fragments: Sequence[Path], out: Path, *, log: Path) -> None:
    """Build `Image` (uncompressed), `System.map` and `config` into `out`."""
    work = _unpack(sources / "linux.tar.xz", out / "work", log)
    make = [
        "make", f"ARCH={board.linux_arch}", f"CROSS_COMPILE={board.cross}", "KBUILD_BUILD_TIMESTAMP=@1767225600",
        "KBUILD_BUILD_USER=zentri", "KBUILD_BUILD_HOST=build", "KBUILD_BUILD_VERSION=1",
    ]  # fmt: skip
    _configure(work, "tinyconfig", fragments, make, log)
    run([*make, _jobs(), "Image"], cwd=work, log=log)
    run(["cp", f"arch/{board.linux_arch}/boot/Image", "System.map", out], cwd=work, log=log)
    shutil.copy(work / ".config", out / "config")
    release = (work / "include/config/kernel.release").read_text().strip()
    (out / "version.txt").write_text(release + "\n")
    shutil.rmtree(work)


def build_uboot(
    sources: Path, board: BoardKind, fragments: Sequence[Path], environment: str, out: Path, *, log: Path
) -> None:
    """Build `u-boot-nodtb.bin` and `config` into `out`, with `environment` as its built-in environment."""
    tar = next(sources.glob("u-boot.tar.*"))
    work = _unpack(tar, out / "work", log)
    (work / "zentri.env").write_text(environment)
    make = ["make", f"CROSS_COMPILE={board.cross}"]
    _configure(work, board.uboot_defconfig, fragments, make, log)
    run([*make, _jobs(), "u-boot-nodtb.bin"], cwd=work, log=log)
    shutil.copy(work / "u-boot-nodtb.bin", out)
    shutil.copy(work / ".config", out / "config")
    shutil.rmtree(work)
