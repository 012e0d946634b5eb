"""Pairs of releases to measure updates with: real package versions, packed and signed by the image's own code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from scripts.bench.packages import Which, compile_changed, fetch_debs, replace_packages, versions
from scripts.board_driver.chosen import BOARD
from scripts.image import compile as kernels
from scripts.image import fit, rootfs
from scripts.image.cache import Cache
from scripts.image.release import Builder, ReleaseSpec, write_release_files
from scripts.image.run import run
from scripts.lab.places import KEYS

TOP: Final = Path(__file__).resolve().parents[2]
PRODUCT: Final = BOARD.product
LINUX: Final = "linux-source-6.12"
RECIPE: Final = "1"
"""Raised by hand when a pair's bytes change for a reason that its inputs do not show."""

OPENSSL: Final = ("libssl3t64",)
LIBRARIES: Final = (
    "libexpat1",
    "liblzma5",
    "libsqlite3-0",
    "zlib1g",
    "python3-idna",
    "python3-requests",
    "python3-urllib3",
)
INTERPRETER: Final = ("libpython3.13-minimal", "libpython3.13-stdlib", "python3.13", "python3.13-minimal")
NOT_REPLACED: Final = ("python3", "python3-minimal", "libpython3-stdlib", "python3-chardet")
"""Of the image's packages those that belong to another Python in the newer suite, or are not in it."""

Packages = tuple[tuple[tuple[str, ...], Which], ...]
"""Some packages and which version of them, more than once."""

CONFIGURATION: Final = "etc/hosts"


@dataclass(frozen=True)
class Pair:
    """Two releases; each folder holds `kernel.itb` and `rootfs.erofs`."""

    name: str
    old: Path
    new: Path
    about: str
    """What differs, in one sentence."""


@dataclass(frozen=True)
class _Recipe:
    """What one release is made of, relative to the image's own release."""

    version: str
    kernel: Literal["oldest", "current"] = "current"
    packages: Packages = ()
    line: str = ""
    """One more line in a configuration file."""


class _Maker:
    def __init__(self, cache_dir: Path, say: Callable[[str], None], keys: Path) -> None:
        self._say = say
        self._cache = Cache(cache_dir)
        self._builder = Builder(TOP, self._cache, keys, say)
        self._keys = keys
        fit.ensure_key(keys)
        self._linux = self._builder.linux()
        self._tree = self._builder.tree(production=False)

    def installed(self) -> list[str]:
        """Return the names of the image's packages."""
        return [entry["name"] for entry in json.loads((self._builder.base() / "packages.json").read_text())]

    def _log(self, name: str) -> Path:
        return self._cache.root / "logs" / f"{name}.log"

    def debs(self, packages: Sequence[str], which: Which, architecture: str = BOARD.debian) -> Path:
        """Return the folder with one version of some packages."""

        def build(out: Path) -> None:
            self._say(f"fetching the {which} version of {len(packages)} packages")
            fetch_debs(packages, which, out, log=self._log("pair-debs"), architecture=architecture)

        inputs = {"packages": " ".join(packages), "which": which, "architecture": architecture, "recipe": RECIPE}
        return self._cache.get("pair-debs", inputs, build)

    def kernel(self, which: Literal["oldest", "current"]) -> Path:
        """Return the folder with a kernel."""
        if which == "current":
            return self._linux
        source = self.debs([LINUX], "oldest", "amd64")

        def build(out: Path) -> None:
            self._say("compiling an older Linux (some minutes)")
            log, unpacked = self._log("pair-linux"), out / "source"
            run(["dpkg-deb", "-x", next(source.glob("*.deb")), unpacked], log=log)
            (unpacked / f"usr/src/{LINUX}.tar.xz").rename(unpacked / "linux.tar.xz")
            kernels.build_linux(unpacked, BOARD, self._builder.fragments("linux.fragment"), out, log=log)
            shutil.rmtree(unpacked)

        inputs = {"source": source.name, "like": self._linux.name, "recipe": RECIPE}
        return self._cache.get("pair-linux", inputs, build)

    def release(self, recipe: _Recipe) -> Path:
        """Return the folder with a release's kernel and root file system."""
        linux = self.kernel(recipe.kernel)
        parts = [(self.debs(some, "current"), self.debs(some, which)) for some, which in recipe.packages]
        inputs = {
            "recipe": RECIPE, "what": repr(recipe), "linux": linux.name, "tree": self._tree.name,
            "packages": " ".join(new.name for _, new in parts), "keys": (self._keys / f"{fit.KEY_NAME}.crt").read_text(),
        }  # fmt: skip

        def build(out: Path) -> None:
            self._say(f"packing release {recipe.version} of a pair")
            log, root = self._log("pair"), out / "root"
            shutil.copytree(self._tree / "root", root, symlinks=True)
            for old, new in parts:
                replace_packages(root, old, new, log=log)
            if parts:
                compile_changed(root, self._tree / "root", log=log)
            self._write_text(root, recipe)
            rootfs.normalize_modes(root)
            tree = rootfs.pack(root, out, log=log)
            shutil.rmtree(root)
            (out / "rootfs.img").unlink()
            template = self._builder.board_file("slot.its.in")
            fit.build_fit(
                template, BOARD, linux / "Image", tree,
                product=PRODUCT, version=recipe.version, keys=self._keys, out=out, log=log,
            )  # fmt: skip

        return self._cache.get("pair", inputs, build)

    @staticmethod
    def _write_text(root: Path, recipe: _Recipe) -> None:
        write_release_files(BOARD, root, ReleaseSpec(PRODUCT, recipe.version))
        if recipe.line:
            with (root / CONFIGURATION).open("a") as stream:
                stream.write(recipe.line + "\n")


def pairs(cache_dir: Path, say: Callable[[str], None], keys: Path = KEYS) -> list[Pair]:
    """Make the pairs, or find them in the cache. `say` hears what is being done. Raises BuildError or OSError.

    `keys`: the folder of the boot chain's signing key; it is made if it is not there.
    """
    maker = _Maker(cache_dir, say, keys)
    every = tuple(name for name in maker.installed() if name not in NOT_REPLACED)
    first, second = _Recipe("1.0.0"), _Recipe("1.0.1")
    older_ssl: Packages = ((OPENSSL, "oldest"),)
    newer: Packages = ((LIBRARIES, "newest"),)

    def change(packages: Sequence[str], old: Which, new: Which) -> str:
        before, after = versions(maker.debs(packages, old)), versions(maker.debs(packages, new))
        return ", ".join(f"{name} {before[name]} → {after[name]}" for name in before)

    def pair(name: str, old: _Recipe, new: _Recipe, about: str) -> Pair:
        return Pair(name, maker.release(old), maker.release(new), about)

    (older,) = versions(maker.debs([LINUX], "oldest", "amd64")).values()
    now = (maker.kernel("current") / "version.txt").read_text().strip()
    security = replace(first, packages=older_ssl), replace(second, packages=newer)
    update = f"{change(OPENSSL, 'oldest', 'current')}, {change(LIBRARIES, 'current', 'newest')}"
    return [
        pair("one-file", first, replace(second, line="192.0.2.7 collector"), f"one line more in {CONFIGURATION}"),
        pair("one-library", replace(first, packages=older_ssl), second, change(OPENSSL, "oldest", "current")),
        pair("security-update", *security, update),
        pair("python", first, replace(second, packages=((INTERPRETER, "newest"),)), change(INTERPRETER, "current", "newest")),
        pair("kernel", replace(first, kernel="oldest"), second, f"Linux {older} → {now}, same configuration"),
        pair(
            "all-rebuilt", replace(first, kernel="oldest"), replace(second, packages=((every, "newest"),)),
            f"Linux {older} → {now}, and {len(every)} packages as the next suite has them",
        ),
        pair(
            "downgrade", replace(second, packages=newer), replace(first, packages=older_ssl, kernel="oldest"),
            f"back to what came before: {update}; Linux {now} → {older}",
        ),
    ]  # fmt: skip
