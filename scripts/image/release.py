"""A release: one version of the root file system and its signed FIT. And the image: a ROM and a disk with a release on it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from scripts.board_driver.boards import DEFAULT, BoardKind
from scripts.board_driver.chosen import BOARD
from scripts.bundle_tool.elfcheck import check_tree
from scripts.image import boardfiles, bootenv, compile, disk, fit, rootfs, samples, sbom, sources, symbols, webapp
from scripts.image.cache import Cache, hash_files
from scripts.image.run import BuildError
from scripts.image.sbom import DEBIAN, PackageOrigin
from zentrid import ZENTRI_VERSION
from zentrid.bundle.tree import HashTree
from zentrid.core import names

BUILT = "2026-01-01T00:00:00Z"
RECIPE = "1"
"""Raised by hand when a step's result changes for a reason that its hashed inputs do not show."""

KEEP = {
    "sources": 2, "linux": 3, "u-boot": 6, "base": 3, "samples": 3, "tree": 6, "symbols": 6, "release": 24, "rom": 6, "disk": 4,
}  # fmt: skip
"""How many results of each step stay in the cache, the most recently used ones: every change of the code makes a new tree."""


@dataclass(frozen=True)
class ReleaseSpec:
    """What distinguishes one release from another."""

    product: str
    version: str
    production: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    """More files for the root file system: path → text; a path below `etc/zentri/hooks` becomes executable."""


@dataclass
class Builder:
    """Builds with one cache, one keys folder and the files of one checkout."""

    top: Path
    cache: Cache
    keys: Path
    say: Callable[[str], None]
    """Called at the start of each step that really runs, with a sentence."""
    board: BoardKind = BOARD
    _trees: dict[bool, Path] = field(default_factory=dict)
    """Every release of one builder is made from the same files, even if somebody edits them meanwhile."""

    origin: ClassVar[PackageOrigin] = DEBIAN
    """Where the packages of the image come from, for the bill of materials."""

    def board_file(self, name: str) -> Path:
        """Return a file of the board: its own, else the one that all boards share."""
        return boardfiles.file_of(self.top, self.board, name)

    def fragments(self, name: str) -> list[Path]:
        """Return the fragments of a configuration, the shared one first."""
        return boardfiles.fragments_of(self.top, self.board, name)

    @property
    def _of_board(self) -> dict[str, str]:
        """What tells apart the results of a step whose other inputs are the same for every board."""
        return {} if self.board is DEFAULT else {"board": self.board.name}

    def _hash(self, *paths: str | Path) -> str:
        return hash_files([self.top / path for path in paths], self.top)

    def _step(self, name: str, inputs: Mapping[str, str], sentence: str, build: Callable[[Path, Path], None]) -> Path:
        logs = self.cache.root / "logs"

        def announced(out: Path) -> None:
            self.say(sentence)
            log = logs / f"{name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
            build(out, log)

        return self.cache.get(name, {**inputs, "recipe": RECIPE}, announced)

    def sources(self) -> Path:
        """Return the folder with the sources of Linux and U-Boot."""
        return self._step(
            "sources",
            {"suite": sources.SUITE, "linux": sources.LINUX_PACKAGE, "uboot": sources.UBOOT_SOURCE},
            "fetching the sources of Linux and U-Boot",
            lambda out, log: sources.fetch_sources(out, log=log),
        )

    def linux(self) -> Path:
        """Return the folder with the kernel."""
        source, fragments = self.sources(), self.fragments("linux.fragment")
        inputs = {"source": source.name, "config": self._hash(*fragments)}
        return self._step(
            "linux", inputs, "compiling Linux (some minutes)",
            lambda out, log: compile.build_linux(source, self.board, fragments, out, log=log),
        )  # fmt: skip

    def uboot(self, *, production: bool) -> Path:
        """Return the folder with U-Boot, the boot script inside."""
        source, fragments = self.sources(), self.fragments("u-boot.fragment")
        environment = bootenv.environment(self.board_file("boot.script").read_text(), production=production)
        inputs = {
            "source": source.name,
            "config": self._hash(*fragments),
            "environment": environment,
        }
        return self._step(
            "u-boot", inputs, "compiling U-Boot",
            lambda out, log: compile.build_uboot(source, self.board, fragments, environment, out, log=log),
        )  # fmt: skip

    def base(self) -> Path:
        """Return the folder with the root file system before overlay and zentrid."""
        inputs = {
            "suite": sources.SUITE,
            "packages": self._hash("scripts/image/packages.txt"),
            "code": self._hash("scripts/image/rootfs.py"),
            **self._of_board,
        }
        return self._step(
            "base", inputs, "fetching Debian packages for the board and compiling their Python (about a minute)",
            lambda out, log: rootfs.build_base(self.board, self.top / "scripts/image/packages.txt", out, log=log),
        )  # fmt: skip

    def samples(self) -> Path:
        """Return the folder with the sample applications and their symbol files."""
        inputs = {
            "sources": self._hash("scripts/samples"),
            "code": self._hash("scripts/image/samples.py"),
            **self._of_board,
        }
        return self._step(
            "samples", inputs, "compiling the sample applications",
            lambda out, log: samples.build_samples(self.board, self.top / "scripts/samples", out, log=log),
        )  # fmt: skip

    def tree(self, *, production: bool) -> Path:
        """Return the folder with the complete root file system, all but what names the release."""
        if production in self._trees:
            return self._trees[production]
        base, apps = self.base(), self.samples()
        inputs = {
            "base": base.name, "samples": apps.name, "files": self._hash("rootfs_overlay", "zentrid"),
            "production": str(production),
            "code": self._hash("scripts/image/webapp.py", "scripts/image/dataclasscode.py"),
        }  # fmt: skip

        def build(out: Path, log: Path) -> None:
            root = out / "root"
            shutil.copytree(base / "root", root, symlinks=True)
            rootfs.overlay(self.top / "rootfs_overlay", root)
            rootfs.install_zentrid(self.board, self.top / "zentrid", root, log=log)
            finish_tree(self.board, root, apps / "apps", production=production)

        self._trees[production] = self._step("tree", inputs, "assembling the root file system", build)
        return self._trees[production]

    def components(self) -> list[dict[str, str]]:
        """Return name, version, architecture and source of everything in the image and the ROM."""
        return sbom.components(self.board.debian, self.base() / "packages.json", self.linux(), self.sources())

    def symbols(self, *, production: bool) -> Path:
        """Return the folder with the symbol files of every program and library of the root file system."""
        tree, own = self.tree(production=production), self.samples() / "symbols"
        inputs = {"tree": tree.name, "code": self._hash("scripts/image/symbols.py")}

        def build(out: Path, _log: Path) -> None:
            symbols.collect(tree / "root", own, out, bits=self.board.bits)

        return self._step("symbols", inputs, "collecting symbol files", build)

    def release(self, spec: ReleaseSpec) -> Path:
        """Return the folder with `kernel.itb`, `rootfs.erofs`, `rootfs.img`, `packages.json`, `sbom.cdx.json`, `symbols/`."""
        fit.ensure_key(self.keys)
        with ThreadPoolExecutor(2) as pool:  # the kernel uses all cores; fetching packages and compiling Python fit in
            kernel, tree = pool.submit(self.linux), pool.submit(self.tree, production=spec.production)
            linux, files = kernel.result(), tree.result()
        names_of, template = self.symbols(production=spec.production), self.board_file("slot.its.in")
        inputs = {
            "linux": linux.name, "tree": files.name, "symbols": names_of.name, "product": spec.product, "version": spec.version,
            "extra": json.dumps(dict(spec.extra), sort_keys=True), "production": str(spec.production),
            "template": self._hash(template),
            "code": self._hash("scripts/image/fit.py"),
            "key": hash_files([self.keys / f"{fit.KEY_NAME}.crt"], self.keys),
        }  # fmt: skip

        def build(out: Path, log: Path) -> None:
            root = out / "root"
            shutil.copytree(files / "root", root, symlinks=True)
            write_release_files(self.board, root, spec)
            tree = rootfs.pack(root, out, log=log)
            shutil.rmtree(root)
            self._check_size(out / "rootfs.img", "rootfs_a")
            fit.build_fit(
                template,
                self.board,
                linux / "Image",
                tree,
                product=spec.product,
                version=spec.version,
                keys=self.keys,
                out=out,
                log=log,
            )
            (out / "root_hash").write_text(tree.root.hex() + "\n")
            shutil.copytree(names_of, out / symbols.FOLDER)
            sbom.write(self.components(), spec.product, spec.version, out, origin=self.origin)

        return self._step("release", inputs, f"packing and signing release {spec.product}-{spec.version}", build)

    @staticmethod
    def _check_size(image: Path, partition: str) -> None:
        size, limit = image.stat().st_size, names.partition(partition).size_bytes
        if size > limit:
            raise BuildError(f"the root file system with its hash tree has {size} bytes, its partition only {limit}")

    def rom(self, *, production: bool) -> Path:
        """Return the folder with `rom.bin`."""
        fit.ensure_key(self.keys)
        uboot, additions = self.uboot(production=production), self.board_file("reserved-memory.dtsi")
        inputs = {
            "uboot": uboot.name, "machine": " ".join(self.board.machine), "qemu": _qemu_version(self.board.qemu),
            "tree": self._hash(additions),
            "code": self._hash("scripts/image/fit.py"),
            "key": hash_files([self.keys / f"{fit.KEY_NAME}.crt"], self.keys),
        }  # fmt: skip
        return self._step(
            "rom", inputs, "putting the ROM together",
            lambda out, log: fit.build_rom(self.board, uboot, additions, self.keys, out, log=log),
        )  # fmt: skip

    def disk(self, spec: ReleaseSpec) -> Path:
        """Return the folder with `disk.img`."""
        release = self.release(spec)
        inputs = {"release": release.name, "code": self._hash("scripts/image/disk.py", "zentrid/core/names.py")}
        return self._step(
            "disk", inputs, "laying out the disk",
            lambda out, log: disk.build_disk(release, spec.version, out, log=log),
        )  # fmt: skip

    def image(self, spec: ReleaseSpec, out: Path) -> Path:
        """Make `out` a folder of links to everything a board boots from, and return it."""
        release, disk_folder, rom = self.release(spec), self.disk(spec), self.rom(production=spec.production)
        out.mkdir(parents=True, exist_ok=True)
        links = {"disk.img": disk_folder, "rom.bin": rom, "board.dts": rom}
        links |= dict.fromkeys(
            ("kernel.itb", "rootfs.erofs", "packages.json", "sbom.cdx.json", symbols.FOLDER), release
        )
        for name, folder in links.items():
            fresh = out / f".{name}.new"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(folder / name)
            fresh.rename(out / name)
        for step, keep in KEEP.items():
            self.cache.prune(step, keep)
        return out


def write_release_files(board: BoardKind, root: Path, spec: ReleaseSpec) -> None:
    """Write what names the release into its tree: `release.json`, and the spec's own files."""
    about = {
        "product": spec.product, "version": spec.version, "built": BUILT, "board": board.name,
        "zentri_version": ZENTRI_VERSION, "development": not spec.production,
    }  # fmt: skip
    folder = root / "etc/zentri"
    (folder / "release.json").write_text(json.dumps(about, indent=1) + "\n")
    for name, text in spec.extra.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.startswith("etc/zentri/hooks/") else 0o644)


def finish_tree(board: BoardKind, root: Path, apps: Path, *, production: bool) -> None:
    """Do what is left when packages, overlay and zentrid are in a tree, whoever put them there.

    Raises BuildError when a program of it cannot run for want of a library.
    """
    shutil.copytree(apps, root / samples.APPS)
    webapp.list_webapp(root, ZENTRI_VERSION)
    if production:
        passwd = root / "etc/passwd"
        passwd.write_text(passwd.read_text().replace(":/root:/bin/sh", ":/root:/bin/false"))
    else:
        (root / "etc/zentri/development").write_text("A development build: root has a shell over SSH.\n")
    rootfs.normalize_modes(root)
    problems = check_tree(root, board.elf_machine)
    if problems:
        raise BuildError("the root file system has programs that cannot run:\n" + "\n".join(problems[:20]))


def root_of(release: Path) -> HashTree:
    """Return the hash tree of a release's root file system."""
    with (release / "rootfs.erofs").open("rb") as stream:
        return HashTree.from_reader(stream)


def _qemu_version(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{program} is not installed; run `make host-packages`") from error
    return done.stdout.splitlines()[0]
