"""Other versions of Debian packages than the image is made from, and laying them over an image's tree.

mmdebstrap names the mirrors and the keys, as for the image itself; the host's own apt is never touched.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from scripts.board_driver.chosen import BOARD
from scripts.image.rootfs import DIST_PACKAGES, PYTHON, pruned
from scripts.image.run import BuildError, run
from scripts.image.sources import SUITE

Which = Literal["oldest", "current", "newest"]
"""Of the versions on offer: the oldest of the image's suite, the one the image has, the newest of `NEWER_SUITE`."""

NEWER_SUITE: Final = "sid"


def fetch_debs(
    packages: Sequence[str], which: Which, out: Path, *, log: Path, architecture: str = BOARD.debian
) -> None:
    """Put the `.deb` files of the packages into `out`, without their dependencies. Raises BuildError."""
    line = "tail" if which == "oldest" else "head"
    hook = (
        f'set -e; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"; cd {shlex.quote(str(out))}; '
        f"wanted=; for name in {' '.join(map(shlex.quote, packages))}; do "
        f'version=$(apt-cache madison "$name" | grep " Packages" | {line} -n 1 | cut -d "|" -f 2 | tr -d " "); '
        'wanted="$wanted $name=$version"; done; apt-get download $wanted'
    )
    more = []
    if which == "newest":
        # The main line once more with the other suite; its list may be some days old, which does not matter here.
        sources = "$1/etc/apt/sources.list"
        line = f"""sed -n 's/{SUITE} main/{NEWER_SUITE} main/p' "{sources}" > "{sources}.d/newer.list\""""
        more = [f"--setup-hook={line}", '--aptopt=Acquire::Check-Valid-Until "false"']
    run(
        ["mmdebstrap", "--mode=chrootless", "--variant=extract", f"--architectures={architecture}", "--include=netbase",
         *more, f"--extract-hook={hook}", "--format=null", SUITE, "/dev/null"],
        log=log, timeout_s=1800,
    )  # fmt: skip
    found = {path.name.split("_", 1)[0] for path in out.glob("*.deb")}
    if missing := [name for name in packages if name not in found]:
        raise BuildError(f"these packages did not arrive: {', '.join(missing)}; apt's output is in {log}")


def versions(folder: Path) -> dict[str, str]:
    """Return name → version of the `.deb` files in a folder."""
    named = (path.name.split("_") for path in sorted(folder.glob("*.deb")))
    return {name: version.replace("%3a", ":") for name, version, *_ in named}


def replace_packages(root: Path, old: Path, new: Path, *, log: Path) -> None:
    """In the tree `root`, put the packages of folder `new` in the place of the same packages of folder `old`."""
    for deb in sorted(old.glob("*.deb")):
        for name in _files_of(deb):
            (root / name).unlink(missing_ok=True)
    work = root.parent / "packages"
    for deb in sorted(new.glob("*.deb")):
        run(["dpkg-deb", "-x", deb, work], log=log)
    # Docs and so on are not in the image; what the image's own overlay put over a package's file stays as it is.
    for name in pruned(BOARD):
        path = work / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted(work.rglob("*")):
        target = root / path.relative_to(work)
        if path.is_dir() and not path.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        elif not target.exists() and not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target, follow_symlinks=False)
    shutil.rmtree(work)


def _files_of(deb: Path) -> list[str]:
    """Return the paths of a package's files, relative to the root."""
    listing = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], capture_output=True, check=True)
    names = subprocess.run(["tar", "t"], input=listing.stdout, capture_output=True, check=True)
    return [name.removeprefix("./") for name in names.stdout.decode().splitlines() if not name.endswith("/")]


def compile_changed(root: Path, before: Path, *, log: Path) -> None:
    """Compile the Python files of `root` that `before` does not have like that, with the Python of `before`."""
    changed = [
        path
        for folder in (f"usr/lib/{PYTHON}", DIST_PACKAGES)
        for path in sorted((root / folder).rglob("*.py"))
        if not _same(path, before / path.relative_to(root))
    ]
    for path in changed:
        path.with_name("__pycache__").joinpath(f"{path.stem}.cpython-313.pyc").unlink(missing_ok=True)
    for start in range(0, len(changed), 400):
        run(
            [BOARD.user_emulator, "-L", before, before / "usr/bin" / PYTHON, "-E", "-S", "-m", "compileall", "-q", "-f",
             "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/", *changed[start : start + 400]],
            log=log, env={"PYTHONHASHSEED": "0", "PYTHONHOME": str(before / "usr")},
        )  # fmt: skip
    for cached in root.rglob("*.cpython-313.pyc"):
        if not cached.parent.with_name(f"{cached.name.split('.')[0]}.py").is_file():
            cached.unlink()


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and path.read_bytes() == other.read_bytes()
