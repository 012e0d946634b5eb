"""Runs Buildroot when something that goes into it has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.board_driver.boards import BoardKind, folder_name
from scripts.board_driver.chosen import BOARD
from scripts.buildroot import pinned
from scripts.image import bootenv
from scripts.image.boardfiles import file_of, fragments_of
from scripts.image.cache import hash_files
from scripts.image.run import BuildError, run

HOURS_S: Final = 6 * 3600.0
INPUTS: Final = ("buildroot_external", "rootfs_overlay", "zentrid", "scripts/buildroot")
_STAMP: Final = "zentri-inputs.json"


def defconfig(board: BoardKind = BOARD, *, production: bool) -> str:
    """Return the name of a board's configuration."""
    return f"zentri_{board.name}{'_prod' if production else ''}_defconfig"


def rebuilt(top: Path, board: BoardKind = BOARD) -> dict[str, list[Path]]:
    """Return packages that are made anew when one of these files has changed: Buildroot itself does not look."""
    return {
        "uboot": fragments_of(top, board, "u-boot.fragment"),
        "linux": [file_of(top, board, "linux-tiny.config"), *fragments_of(top, board, "linux.fragment")],
        "busybox": [file_of(top, board, "busybox.fragment")],
        "zentrid": [top / "zentrid", top / "buildroot_external/package/zentrid"],
    }


@dataclass(frozen=True)
class Driver:
    """Builds with one Buildroot tree; everything lies below `root`, downloads of all builds in one folder."""

    top: Path
    root: Path
    tree: Path | None
    """A checkout of the pinned release; None: it is fetched."""
    say: Callable[[str], None]

    @property
    def _log(self) -> Path:
        return self.root / "buildroot.log"

    def out(self, *, production: bool) -> Path:
        """Return Buildroot's output folder of a variant."""
        return self.root / ("production" if production else "development")

    def images(self, production: bool) -> Path:
        """Return the folder of the finished images, built if something has changed since the last time. Raises BuildError."""
        out = self.out(production=production)
        stamp = out / _STAMP
        now = self.inputs(production=production)
        before = json.loads(stamp.read_text()) if stamp.is_file() else {}
        if before == now:
            return out / "images"
        tree = self._tree()
        out.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        self.say(
            f"building with Buildroot {pinned.VERSION} (an hour or more the first time); its output is in {self._log}"
        )
        self.make(tree, out, defconfig(production=production))
        stale = [name for name in rebuilt(self.top) if before and before.get(name) != now[name]]
        if stale:
            self.make(tree, out, *(f"{name}-dirclean" for name in stale))
        self.make(tree, out)
        stamp.write_text(json.dumps(now))
        return out / "images"

    def inputs(self, *, production: bool) -> dict[str, str]:
        """Return what goes into the build: a hash for each of `rebuilt`, and one for everything."""
        found = {name: hash_files(paths, self.top) for name, paths in rebuilt(self.top).items()}
        environment = bootenv.environment(file_of(self.top, BOARD, "boot.script").read_text(), production=production)
        found["uboot"] += hashlib.sha256(environment.encode()).hexdigest()
        everything = hash_files([self.top / path for path in INPUTS], self.top)
        return {**found, "all": everything, "buildroot": pinned.VERSION}

    def _tree(self) -> Path:
        self._log.unlink(missing_ok=True)
        if self.tree is not None:
            return pinned.check(self.tree)
        target = self.root / f"buildroot-{pinned.VERSION}"
        if not target.is_dir():
            self.say(f"fetching Buildroot {pinned.VERSION} from its project's repository")
        return pinned.fetch(target, log=self._log)

    def make(self, tree: Path, out: Path, *targets: str) -> None:
        """Run Buildroot's make. Raises BuildError."""
        run(make_command(self.top, tree, out, self.root / "dl", *targets), log=self._log, timeout_s=HOURS_S)


def make_command(top: Path, tree: Path, out: Path, downloads: Path, *targets: str) -> list[str]:
    """Return the words that run Buildroot out of its tree with this project's external tree."""
    return [
        "make", "-C", str(tree), f"O={out}", f"BR2_EXTERNAL={top / 'buildroot_external'}", f"BR2_DL_DIR={downloads}",
        *targets,
    ]  # fmt: skip


def tree_from(environment: Mapping[str, str]) -> Path | None:
    """Return the tree that `BUILDROOT` names; None when it is not set. Raises BuildError when there is no such folder."""
    named = environment.get("BUILDROOT")
    if not named:
        return None
    tree = Path(named).expanduser().resolve()
    if not tree.is_dir():
        raise BuildError(f"BUILDROOT={named}: there is no such folder; name a checkout of Buildroot {pinned.VERSION}")
    return tree


def from_environment(top: Path, cache: Path, say: Callable[[str], None]) -> Driver:
    """Return the driver that the variable `BUILDROOT` and the build cache ask for. Raises BuildError."""
    missing = [name for name in ("git", "rsync", "cpio", "unzip", "file", "g++") if shutil.which(name) is None]
    if missing:
        raise BuildError(f"Buildroot needs {', '.join(missing)}; install them (scripts/buildroot/host-packages.txt)")
    return Driver(top, cache / folder_name("buildroot", BOARD), tree_from(os.environ), say)
