"""The root file system: Debian packages, the overlay, zentrid, compiled Python; packed as EROFS with its hash tree."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.board_driver.boards import BoardKind
from scripts.image.run import BuildError, run
from scripts.image.sources import fetch_packages
from zentrid.bundle.tree import HashTree

PYTHON = "python3.13"
DIST_PACKAGES = "usr/lib/python3/dist-packages"
DATACLASS_CODE = Path(__file__).with_name("dataclasscode.py")
EROFS_UUID = "5a454e54-00e0-4000-8000-0000000000e0"

PRUNE = (
    "boot", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/zoneinfo",
    "usr/share/doc-base", "usr/share/perl5", "usr/share/bash-completion", "usr/share/initramfs-tools", "usr/share/pixmaps",
    "usr/share/applications", "usr/share/gdb", "usr/share/bug", "usr/lib/systemd", "usr/lib/udev", "usr/lib/valgrind",
    "usr/lib/tmpfiles.d", "usr/lib/binfmt.d", "usr/lib/@TRIPLET@/perl-base", "usr/lib/@TRIPLET@/gconv",
    "usr/lib/@TRIPLET@/e2initrd_helper", "usr/lib/apt", "usr/lib/dpkg", "usr/share/dpkg", "usr/lib/python3.13/idlelib",
    "usr/lib/python3.13/ensurepip", "usr/lib/python3.13/tkinter", "usr/lib/python3.13/turtledemo", "usr/lib/python3.13/test",
    "usr/lib/python3.13/lib2to3", "usr/lib/python3.13/pydoc_data", "usr/lib/valgrind", "usr/lib/ssl/private", "etc/cron.d",
    "etc/cron.daily", "etc/logrotate.d", "etc/update-motd.d", "etc/skel", "etc/dpkg", "etc/apt", "etc/systemd",
    "var/cache", "var/lib", "var/log", "usr/bin/perl", "usr/bin/openssl", "usr/bin/c_rehash",
)  # fmt: skip
"""Not needed on the board, `@TRIPLET@` being its own. A folder or file that a later package version no longer has is no error."""

MAX_MODULE_JOBS = 2
LISTING_FIELDS = ("name", "version", "architecture", "source")


def pruned(board: BoardKind) -> tuple[str, ...]:
    """Return the folders and files that are removed from a board's root file system, relative to it."""
    return tuple(name.replace("@TRIPLET@", board.triplet) for name in PRUNE)


def build_base(board: BoardKind, package_file: Path, out: Path, *, log: Path) -> None:
    """Unpack the packages into `out/root`, prune, add BusyBox's links, compile; write `out/packages.json`."""
    packages = [line for line in package_file.read_text().split("\n") if line and not line.startswith("#")]
    tar = out / "packages.tar"
    fetch_packages(board.debian, packages, tar, log=log)
    root = out / "root"
    root.mkdir()
    # This user owns the files, device nodes stay out; the image gives everything to root and settles the modes.
    run(["tar", "xf", tar, "-C", root, "--no-same-owner", "--exclude=./dev/*"], log=log)
    run(["chmod", "-R", "u+rwX", root], log=log)
    tar.unlink()
    listing = out / "packages.tsv"
    (out / "packages.json").write_text(json.dumps(parse_listing(listing.read_text()), indent=1) + "\n")
    listing.unlink()
    for name in pruned(board):
        _remove(root / name)
    for cached in list(root.rglob("__pycache__")):
        shutil.rmtree(cached)
    _busybox_links(board, root, log)
    (root / "usr/bin/python3").unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to(PYTHON)
    compile_python(board, root, [root / f"usr/lib/{PYTHON}", root / DIST_PACKAGES], log=log)


def parse_listing(text: str) -> list[dict[str, str]]:
    """Return name, version, architecture and source of each package of a listing, sorted by name.

    Raises BuildError when there is none: a bill of materials that forgets the packages would be worse than no image.
    """
    rows = [line.split("\t") for line in text.splitlines() if line]
    if not rows or any(len(row) != len(LISTING_FIELDS) for row in rows):
        raise BuildError("the list of the image's packages is empty or malformed")
    return sorted((dict(zip(LISTING_FIELDS, row, strict=True)) for row in rows), key=lambda package: package["name"])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _busybox_links(board: BoardKind, root: Path, log: Path) -> None:
    listing = log.with_suffix(".applets")
    listing.unlink(missing_ok=True)
    run([board.user_emulator, root / "usr/bin/busybox", "--list-full"], log=listing)
    for line in listing.read_text().splitlines():
        if line.startswith(("bin/", "sbin/", "usr/")):
            folder, name = line.rsplit("/", 1)
            link = root / "usr" / folder.removeprefix("usr/") / name
            if not link.exists() and not link.is_symlink():
                link.symlink_to("/usr/bin/busybox")
    listing.unlink()


def compile_python(board: BoardKind, root: Path, folders: list[Path], *, log: Path) -> None:
    """Compile modules below `folders` for the image's own Python.

    The `.pyc` files are checked against nothing at run time: their sources lie beside them on a verified, read-only file
    system whose time stamps are all zero.
    """
    parts = [p for folder in folders for p in sorted(folder.iterdir()) if p.is_dir() or p.suffix == ".py"]
    halves = [parts[n::MAX_MODULE_JOBS] for n in range(MAX_MODULE_JOBS)]

    def compile_some(part: tuple[int, list[Path]]) -> None:
        number, paths = part
        if not paths:
            return
        run(
            [*_python(board, root), "-E", "-S", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash",
             "-s", root, "-p", "/", *paths],
            log=log.with_suffix(f".{number}.log"), env=_python_env(root),
        )  # fmt: skip

    with ThreadPoolExecutor(MAX_MODULE_JOBS) as pool:
        list(pool.map(compile_some, enumerate(halves)))


def _python(board: BoardKind, root: Path) -> list[str | Path]:
    return [board.user_emulator, "-L", root, root / "usr/bin" / PYTHON]


def _python_env(root: Path) -> dict[str, str]:
    return {"PYTHONHASHSEED": "0", "PYTHONHOME": str(root / "usr"), "PYTHONPATH": ""}


def install_zentrid(board: BoardKind, package: Path, root: Path, *, log: Path) -> None:
    """Copy zentrid's modules and data files into the image's tree and compile them, the code of its dataclasses too."""
    target = root / DIST_PACKAGES / "zentrid"
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__", "pyproject.toml", "*.md"))
    compile_python(board, root, [target], log=log)
    run([*_python(board, root), "-s", "-B", DATACLASS_CODE, root / DIST_PACKAGES], log=log, env=_python_env(root))


def overlay(source: Path, root: Path) -> None:
    """Lay a folder's files over the tree: modes are kept, existing files replaced."""
    for path in sorted(source.rglob("*")):
        if path.name == ".gitkeep":
            continue
        target = root / path.relative_to(source)
        if path.is_dir() and not path.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            shutil.copy(path, target)
            target.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def normalize_modes(root: Path) -> None:
    """Give every file the mode that does not depend on the builder's umask."""
    for path in root.rglob("*"):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        path.chmod(0o755 if path.is_dir() or mode & 0o111 else 0o644)
    for private in ("root", "home/zentri"):
        (root / private).mkdir(parents=True, exist_ok=True)
        (root / private).chmod(0o755)
    (root / "tmp").chmod(0o1777)


def pack(root: Path, out: Path, *, log: Path) -> HashTree:
    """Pack the tree as `out/rootfs.erofs` (the payload) and `out/rootfs.img` (payload and its hash tree)."""
    image = out / "rootfs.erofs"
    run(["mkfs.erofs", "-T0", "-U", EROFS_UUID, "--all-root", image, root], log=log)
    size = image.stat().st_size
    if size % 4096:
        raise BuildError(f"mkfs.erofs made {size} bytes, which is not a whole number of 4 KiB blocks")
    with image.open("rb") as stream:
        tree = HashTree.from_reader(stream)
    shutil.copy(image, out / "rootfs.img")
    with (out / "rootfs.img").open("ab") as stream:
        stream.write(tree.levels_bytes())
    return tree
