"""Compiles the kernel and U-Boot from Debian's sources with the board's fragments."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from scripts.image.run import BuildError, run

CROSS = "aarch64-linux-gnu-"


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


def _configure(source: Path, defconfig: str, fragment: Path, make: list[str], log: Path) -> None:
    run([*make, defconfig], cwd=source, log=log)
    run(["./scripts/kconfig/merge_config.sh", "-m", ".config", fragment], cwd=source, log=log)
    run([*make, "olddefconfig"], cwd=source, log=log)
    lost = lost_options(fragment.read_text(), (source / ".config").read_text())
    if lost:
        raise BuildError(f"{fragment.name}: these options do not survive into the configuration: {', '.join(lost)}")


def _unpack(tar: Path, work: Path, log: Path) -> Path:
    work.mkdir(parents=True)
    run(["tar", "xf", tar, "-C", work, "--strip-components=1"], log=log)
    return work


def _jobs() -> str:
    return f"-j{os.cpu_count() or 2}"


def build_linux(sources: Path, board: Path, out: Path, *, log: Path) -> None:
    """Build `Image` (uncompressed), `System.map` and `config` into `out`."""
    work = _unpack(sources / "linux.tar.xz", out / "work", log)
    make = [
        "make", "ARCH=arm64", f"CROSS_COMPILE={CROSS}", "KBUILD_BUILD_TIMESTAMP=@1767225600", "KBUILD_BUILD_USER=zentri",
        "KBUILD_BUILD_HOST=build", "KBUILD_BUILD_VERSION=1",
    ]  # fmt: skip
    _configure(work, "tinyconfig", board / "linux.fragment", make, log)
    run([*make, _jobs(), "Image"], cwd=work, log=log)
    run(["cp", "arch/arm64/boot/Image", "System.map", out], cwd=work, log=log)
    shutil.copy(work / ".config", out / "config")
    release = (work / "include/config/kernel.release").read_text().strip()
    (out / "version.txt").write_text(release + "\n")
    shutil.rmtree(work)


def build_uboot(sources: Path, board: Path, environment: str, out: Path, *, log: Path) -> None:
    """Build `u-boot-nodtb.bin` and `config` into `out`, with `environment` as its built-in environment."""
    tar = next(sources.glob("u-boot.tar.*"))
    work = _unpack(tar, out / "work", log)
    (work / "zentri.env").write_text(environment)
    make = ["make", f"CROSS_COMPILE={CROSS}"]
    _configure(work, "qemu_arm64_defconfig", board / "u-boot.fragment", make, log)
    run([*make, _jobs(), "u-boot-nodtb.bin"], cwd=work, log=log)
    shutil.copy(work / "u-boot-nodtb.bin", out)
    shutil.copy(work / ".config", out / "config")
    shutil.rmtree(work)
