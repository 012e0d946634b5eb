"""What a target folder of Buildroot must have before it is packed, and what it must not have."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scripts.board_driver.chosen import BOARD
from scripts.bundle_tool.elfcheck import check_tree

PROGRAMS: Final = (
    "usr/bin/dbus-daemon", "usr/bin/dropbearkey", "usr/bin/killall", "usr/bin/python3", "usr/bin/timeout",
    "usr/sbin/dropbear", "usr/sbin/e2fsck", "usr/sbin/init", "usr/sbin/ip", "usr/sbin/mke2fs", "usr/sbin/reboot",
    "usr/sbin/udhcpc",
)  # fmt: skip
"""What the overlay's scripts and zentrid start."""
MODULES: Final = (
    "aiohttp", "cryptography", "gi", "gpiod", "pydbus", "securesystemslib", "tuf", "urllib3", "zentrid", "zstandard",
)  # fmt: skip
MODULES_FOLDER: Final = "usr/lib/python3/dist-packages"
"""Of the image, whatever its Python's version: programs without site modules are told this one path."""


def tidy(target: Path) -> None:
    """Remove what Buildroot brings and the board does not start: init scripts of packages, marks of empty folders."""
    for path in (target / "etc/init.d").glob("[SK][0-9]*"):
        path.unlink()
    for path in target.rglob(".gitkeep"):
        path.unlink()


def problems(target: Path) -> list[str]:
    """Return a sentence for each thing that keeps the target from working; none when it is as it must be."""
    found = [f"/{name} is missing" for name in PROGRAMS if not _there(target, target / name)]
    modules = target / MODULES_FOLDER
    found += [f"the Python module {name} is missing" for name in MODULES if not (modules / name).is_dir()]
    return found + check_tree(target, BOARD.elf_machine)


def _there(root: Path, path: Path) -> bool:
    """Tell whether there is a file, following links as the device would: absolute ones begin at `root`."""
    for _ in range(40):
        if not path.is_symlink():
            return path.is_file()
        link = path.readlink()
        path = root / str(link).lstrip("/") if link.is_absolute() else path.parent / link
    return False
