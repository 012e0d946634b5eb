"""What is in the image: a list of every package and version, and the same as a CycloneDX bill of materials."""

from __future__ import annotations

import datetime
import json
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from scripts.image.run import SOURCE_DATE_EPOCH
from zentrid import ZENTRI_VERSION


class PackageOrigin(NamedTuple):
    """Whose packages they are: type and namespace of a package URL."""

    kind: str
    namespace: str | None


DEBIAN: Final = PackageOrigin("deb", "debian")


def components(architecture: str, packages: Path, linux: Path, sources: Path) -> list[dict[str, str]]:
    """Return name, version, origin and architecture (Debian's name) of everything in the image and the ROM."""
    found: list[dict[str, str]] = json.loads(packages.read_text())
    uboot = (sources / "versions.txt").read_text().split()[1]
    own = [("linux", (linux / "version.txt").read_text().strip()), ("u-boot", uboot), ("zentrid", ZENTRI_VERSION)]
    found += [{"name": n, "version": v, "architecture": architecture, "source": n} for n, v in own]
    return sorted(found, key=lambda entry: entry["name"])


def write(
    entries: list[dict[str, str]], product: str, version: str, out: Path, *, origin: PackageOrigin = DEBIAN
) -> None:
    """Write `packages.json` and `sbom.cdx.json` (CycloneDX 1.6); same inputs give the same bytes."""
    (out / "packages.json").write_text(json.dumps(entries, indent=1) + "\n")
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{product}-{version}-{json.dumps(entries)}"),
    )
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(int(SOURCE_DATE_EPOCH), datetime.UTC)
    bom.metadata.component = Component(name=product, version=version, type=ComponentType.FIRMWARE, bom_ref="image")
    parts = []
    for entry in entries:
        kind = ComponentType.OPERATING_SYSTEM if entry["name"] == "linux" else ComponentType.LIBRARY
        purl = PackageURL(*origin, entry["name"], entry["version"], {"arch": entry["architecture"]})
        parts.append(
            Component(
                name=entry["name"], version=entry["version"], type=kind, bom_ref=f"{entry['name']}@{entry['version']}",
                purl=None if entry["name"] == "zentrid" else purl,
            )
        )  # fmt: skip
    bom.components.update(parts)
    bom.register_dependency(bom.metadata.component, parts)
    JsonV1Dot6(bom).output_to_file(str(out / "sbom.cdx.json"), allow_overwrite=True, indent=1)
