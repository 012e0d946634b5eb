"""Which Buildroot it is, and where to get it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from scripts.image.cache import hash_files
from scripts.image.run import BuildError, run

VERSION: Final = "2025.02.16"
REPOSITORY: Final = "https://gitlab.com/buildroot.org/buildroot.git"
COMMIT: Final = "135af563b945b8c3d18f8fd370370075b9edb140"
"""What the tag of the release points to."""
TREE_SHA256: Final = "7042ac8393833df23918b2316b121c5402971a86798c09cb10795e6aea70e104"
"""Over names, modes and contents of all files of that commit (`hash_files`)."""


def version_of(tree: Path) -> str:
    """Return the version that a Buildroot tree says it has. Raises BuildError when it is none."""
    try:
        text = (tree / "Makefile").read_text()
    except OSError as error:
        raise BuildError(f"{tree} is no Buildroot tree: its Makefile cannot be read ({error.strerror})") from error
    found = re.search(r"^export BR2_VERSION := (\S+)$", text, re.MULTILINE)
    if not found or not (tree / "support/scripts/br2-external").is_file():
        raise BuildError(f"{tree} is no Buildroot tree; name the folder of a checkout of release {VERSION}")
    return found[1]


def check(tree: Path) -> Path:
    """Return a tree that somebody named. Raises BuildError unless it is the pinned release."""
    version = version_of(tree)
    if version != VERSION:
        raise BuildError(
            f"{tree} is Buildroot {version}, pinned is {VERSION}: packages and options were chosen for that one. "
            f"Check out the tag {VERSION} there, or leave BUILDROOT out to have it fetched"
        )
    return tree


def fetch(target: Path, *, log: Path, source: str = REPOSITORY) -> Path:
    """Return `target` with the pinned release in it, fetched unless it is there.

    Raises BuildError when what arrives is not, file by file, what was pinned.
    """
    if (target / "Makefile").is_file():
        return check(target)
    work = target.with_name(f"{target.name}.new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run(["git", "init", "-q", work], log=log)
    run(["git", "-C", work, "fetch", "-q", "--depth", "1", source, COMMIT], log=log)
    run(["git", "-C", work, "-c", "advice.detachedHead=false", "checkout", "-q", "FETCH_HEAD"], log=log)
    shutil.rmtree(work / ".git")
    found = hash_files([work], work)
    if found != TREE_SHA256:
        shutil.rmtree(work)
        raise BuildError(f"the files of Buildroot {VERSION} from {source} are not the pinned ones (SHA-256 {found})")
    work.rename(target)
    return target
