"""What a finished Buildroot build leaves for the rest: the parts of the image, and a note of what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from scripts.image.run import BuildError

NOTE: Final = "zentri.json"
PARTS: Final = ("Image", "u-boot-nodtb.bin", "rootfs.tar")


@dataclass(frozen=True)
class Note:
    """What the post-image hook writes beside the parts."""

    buildroot: str
    production: bool
    cross: str
    """Compiler of the build: what its programs' paths begin with."""
    host: str
    """Folder of the host programs that the build made."""
    packages: list[dict[str, str]]

    def write(self, images: Path) -> None:
        """Write the note into the folder of images."""
        (images / NOTE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    def version(self, package: str) -> str:
        """Return a package's version. Raises BuildError when it is not in the build."""
        for entry in self.packages:
            if entry["name"] == package:
                return entry["version"]
        raise BuildError(
            f"the Buildroot build has no {package}; use one of the configurations in buildroot_external/configs"
        )


def read_note(images: Path) -> Note:
    """Return the note of a finished build. Raises BuildError when something of it is missing."""
    missing = [name for name in (NOTE, *PARTS) if not (images / name).is_file()]
    if missing:
        raise BuildError(f"{images} lacks {', '.join(missing)}: the Buildroot build did not finish; run it again")
    try:
        return Note(**json.loads((images / NOTE).read_text()))
    except (ValueError, TypeError) as error:
        raise BuildError(f"{images / NOTE} is damaged ({error}); build again") from error


def packages_of(show_info: Mapping[str, Any], architecture: str) -> list[dict[str, str]]:
    """Return what is in the image and the ROM, from `make show-info`: the target's packages that have a version."""
    found = []
    for name, about in show_info.items():
        if about.get("type") != "target" or about.get("virtual") or not about.get("version"):
            continue
        name = "u-boot" if name == "uboot" else name
        version = re.sub(r"^v(?=\d)", "", about["version"])
        found.append({"name": name, "version": version, "architecture": architecture, "source": name})
    if not found:
        raise BuildError(
            "`make show-info` lists no package of the target: a bill of materials without them would be false"
        )
    return sorted(found, key=lambda entry: entry["name"])


def settings(config: str) -> dict[str, str]:
    """Return the options that are set in the text of a Buildroot `.config`, strings without their quotes."""
    found = {}
    for line in config.splitlines():
        name, separator, value = line.partition("=")
        if separator and name.startswith("BR2_"):
            found[name] = value[1:-1] if value.startswith('"') else value
    return found
