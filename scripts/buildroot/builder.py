"""The image builder whose kernel, boot loader and root file system come from Buildroot. What follows is the same code."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from scripts.buildroot.output import NOTE, Note, read_note
from scripts.image import rootfs, samples
from scripts.image.release import Builder, ReleaseSpec, finish_tree
from scripts.image.run import run
from scripts.image.sbom import PackageOrigin
from zentrid import ZENTRI_VERSION


@dataclass
class BuildrootBuilder(Builder):
    """Builds from a finished Buildroot output. One build of it serves any number of releases."""

    origin: ClassVar[PackageOrigin] = PackageOrigin("generic", None)
    images_of: Callable[[bool], Path] = field(kw_only=True)
    """Gives the folder of Buildroot's images, built if needed, for development or production."""
    _images: dict[bool, Path] = field(default_factory=dict)
    _production: bool = False

    def _part(self, name: str) -> Path:
        return self._folder(self._production) / name

    def _folder(self, production: bool) -> Path:
        if production not in self._images:
            self._images[production] = self.images_of(production)
            host = Path(read_note(self._images[production]).host)
            # The programs that the pinned release made come before those of this machine.
            os.environ["PATH"] = f"{host / 'bin'}:{host / 'sbin'}:{os.environ.get('PATH', '')}"
        return self._images[production]

    def note(self) -> Note:
        """Return what the build says about itself."""
        return read_note(self._folder(self._production))

    def linux(self) -> Path:
        """Return the folder with the kernel, `Image`."""
        return self._take("linux", "Image")

    def uboot(self, *, production: bool) -> Path:
        """Return the folder with U-Boot, the boot script inside."""
        self._production = production
        return self._take("u-boot", "u-boot-nodtb.bin")

    def _take(self, step: str, name: str) -> Path:
        part = self._part(name)

        def build(out: Path, _log: Path) -> None:
            shutil.copy(part, out)

        return self._step(step, {"buildroot": _digest(part)}, f"taking {name} from Buildroot", build)

    def samples(self) -> Path:
        """Return the folder with the sample applications, compiled by Buildroot's compiler."""
        cross = self.note().cross
        inputs = {
            "sources": self._hash("scripts/samples"), "code": self._hash("scripts/image/samples.py"),
            "compiler": _digest(Path(f"{cross}gcc")), "cross": cross,
        }  # fmt: skip
        return self._step(
            "samples", inputs, "compiling the sample applications",
            lambda out, log: samples.build_samples(self.board, self.top / "scripts/samples", out, log=log, cross=cross),
        )  # fmt: skip

    def tree(self, *, production: bool) -> Path:
        """Return the folder with the complete root file system, all but what names the release."""
        self._production = production
        if production in self._trees:
            return self._trees[production]
        tar, apps = self._part("rootfs.tar"), self.samples()
        inputs = {
            "buildroot": _digest(tar), "samples": apps.name, "files": self._hash("rootfs_overlay"),
            "code": self._hash("scripts/buildroot/builder.py", "scripts/image/webapp.py"), "production": str(production),
        }  # fmt: skip

        def build(out: Path, log: Path) -> None:
            root = out / "root"
            root.mkdir()
            run(["tar", "xf", tar, "-C", root, "--no-same-owner", "--exclude=./dev/*"], log=log)
            run(["chmod", "-R", "u+rwX", root], log=log)
            # Buildroot adds its packages' users to the overlay's; the device has those that are written down, and no others.
            rootfs.overlay(self.top / "rootfs_overlay", root)
            finish_tree(self.board, root, apps / "apps", production=production)

        self._trees[production] = self._step("tree", inputs, "taking the root file system from Buildroot", build)
        return self._trees[production]

    def components(self) -> list[dict[str, str]]:
        """Return name, version, architecture and source of everything in the image and the ROM."""
        packages = self.note().packages
        linux = next(entry for entry in packages if entry["name"] == "linux")
        own = {"name": "zentrid", "version": ZENTRI_VERSION, "architecture": linux["architecture"], "source": "zentrid"}
        return sorted([*packages, own], key=lambda entry: entry["name"])

    def release(self, spec: ReleaseSpec) -> Path:
        """Return the folder of a release; see `Builder.release`."""
        self._production = spec.production
        self._folder(spec.production)  # before two threads ask for it
        return super().release(spec)


def finished(images: Path) -> Callable[[bool], Path]:
    """Return an `images_of` for a build that is finished: the hooks of Buildroot itself use it."""
    return lambda _production: images


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


__all__ = ["NOTE", "BuildrootBuilder", "finished"]
