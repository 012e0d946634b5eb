"""Which builder makes the image: Debian's packages, or Buildroot (`BUILDER=buildroot`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.buildroot import driver
from scripts.buildroot.builder import BuildrootBuilder
from scripts.image.cache import Cache
from scripts.image.release import Builder
from scripts.image.run import BuildError

BUILDERS: Final = ("debian", "buildroot")


def builder(top: Path, cache: Cache, keys: Path, say: Callable[[str], None]) -> Builder:
    """Return the builder that the variable `BUILDER` names. Raises BuildError for a name that is none."""
    name = os.environ.get("BUILDER") or BUILDERS[0]
    if name not in BUILDERS:
        raise BuildError(f"BUILDER={name[:80]}: there are {' and '.join(BUILDERS)}")
    if name == "debian":
        return Builder(top, cache, keys, say)
    buildroot = driver.from_environment(top, cache.root, say)
    return BuildrootBuilder(top, cache, keys, say, images_of=buildroot.images)
