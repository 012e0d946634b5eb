"""The same payloads in the others' forms: RAUC bundles (plain and adaptive), SWUpdate archives (whole and delta)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.bench.image import device_of
from scripts.bench.keys import Keys
from scripts.image.run import BuildError, run

PAYLOADS: Final[Mapping[str, str]] = {"kernel": "kernel.itb", "rootfs": "rootfs.erofs"}
"""Partition of the slot, without its letter → file of a release."""
BLOCK_INDEX: Final = "block-hash-index"


@dataclass(frozen=True)
class Maker:
    """Makes bundles of one release in `folder`, from which they are served."""

    folder: Path
    keys: Keys
    log: Path

    def rauc(self, release: Path, *, adaptive: bool) -> Path:
        """Make a RAUC bundle in the verity format; adaptive: with a block index, in the block size that its manual advises."""
        bundle = self.folder / ("adaptive.raucb" if adaptive else "plain.raucb")
        if bundle.is_file():
            return bundle
        content = self.folder / "content"
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir(parents=True)
        manifest = ["[update]\ncompatible=bench\nversion=2\n", "[bundle]\nformat=verity\n"]
        for name, file in PAYLOADS.items():
            shutil.copy(release / file, content / f"{name}.img")
            manifest.append(
                f"[image.{name}]\nfilename={name}.img\n" + (f"adaptive={BLOCK_INDEX}\n" if adaptive else "")
            )
        (content / "manifest.raucm").write_text("\n".join(manifest))
        squash = "-comp zstd -Xcompression-level 15" + (" -b 64k" if adaptive else "")
        run(
            ["rauc", "bundle", f"--cert={self.keys.signer}", f"--key={self.keys.signer_key}", f"--mksquashfs-args={squash}",
             content, self._fresh(bundle)],
            log=self.log, timeout_s=600,
        )  # fmt: skip
        shutil.rmtree(content)
        return self._done(bundle)

    def swupdate(self, release: Path) -> Path:
        """Make an SWUpdate archive that is written while it arrives, each image compressed by zstd at level 15."""
        archive = self.folder / "whole.swu"
        if archive.is_file():
            return archive
        images, files = [], {}
        for name, file in PAYLOADS.items():
            packed = self.folder / f"{name}.zst"
            run(["zstd", "-q", "-f", "-15", "-T0", release / file, "-o", packed], log=self.log, timeout_s=600)
            files[packed.name] = packed.read_bytes()
            images.append(
                _image(packed.name, "raw", device_of(f"{name}_b"), files[packed.name])
                + ' compressed = "zstd"; installed-directly = true; }'
            )
            packed.unlink()
        return self._archive(archive, images, files)

    def swupdate_delta(self, release: Path, old: Path, url: Callable[[str], str]) -> Path:
        """Make an SWUpdate archive with the index alone; the chunks lie beside it and are fetched from `url(name)`.

        The address goes into the signed description, so this archive is made anew for each server.
        """
        images, files = [], {}
        for name, file in PAYLOADS.items():
            packed = self.folder / f"{name}.zck"
            if not packed.is_file():
                run(
                    ["zck", "-u", "-h", "sha256", "-o", self._fresh(packed), release / file],
                    log=self.log, timeout_s=600,
                )  # fmt: skip
                self._done(packed)
            header = f"{name}.header"
            files[header] = packed.read_bytes()[: self._header_bytes(packed)]
            images.append(
                _image(header, "delta", device_of(f"{name}_b"), files[header])
                + f' properties: {{ url = "{url(packed.name)}"; chain = "raw"; source = "{device_of(f"{name}_a")}";'
                f' source-size = "{(old / file).stat().st_size}"; zckloglevel = "error"; }}; }}'
            )
        return self._archive(self.folder / "delta.swu", images, files)

    def _header_bytes(self, packed: Path) -> int:
        listing = self.folder / "header.txt"
        listing.unlink(missing_ok=True)
        run(["zck_read_header", "-v", packed], log=listing)
        for line in listing.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "Header size":
                return int(value)
        raise BuildError(f"zck_read_header does not tell the header's size; its output is in {listing}")

    def _archive(self, archive: Path, images: list[str], files: Mapping[str, bytes]) -> Path:
        description = self.folder / "sw-description"
        signature = self.folder / "sw-description.sig"
        listed = ",\n".join(f"    {image}" for image in images)
        description.write_text(
            f'software =\n{{\n  version = "2";\n  hardware-compatibility: [ "1.0" ];\n  images: (\n{listed}\n  );\n}}\n'
        )
        run(
            ["openssl", "cms", "-sign", "-in", description, "-out", signature, "-signer", self.keys.signer,
             "-inkey", self.keys.signer_key, "-outform", "DER", "-nosmimecap", "-binary"],
            log=self.log, timeout_s=60,
        )  # fmt: skip
        content = {path.name: path.read_bytes() for path in (description, signature)} | dict(files)
        self._fresh(archive).write_bytes(cpio(content))
        return self._done(archive)

    @staticmethod
    def _fresh(path: Path) -> Path:
        """Return the name under which `path` is made, so that one that was cut off in the making does not count."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"new-{path.name}")
        fresh.unlink(missing_ok=True)
        return fresh

    @staticmethod
    def _done(path: Path) -> Path:
        path.with_name(f"new-{path.name}").rename(path)
        return path


def _image(name: str, kind: str, device: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f'{{ filename = "{name}"; type = "{kind}"; device = "{device}"; sha256 = "{digest}";'


def cpio(files: Mapping[str, bytes]) -> bytes:
    """Return an archive in cpio's `newc` form with checksums, as SWUpdate reads it (cpio(5))."""
    out = bytearray()
    for number, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        raw = name.encode() + b"\0"
        fields = (number, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), sum(data) & 0xFFFFFFFF)
        out += b"070702" + b"".join(b"%08X" % field for field in fields) + raw
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)
