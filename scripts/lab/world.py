"""Makes what a story needs, each thing once: image, fleet, product, releases, signed bundles, the board's identity."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from scripts.board_driver.chosen import BOARD
from scripts.bundle_tool.symbols import BUILD_ID_FOLDER
from scripts.image.cache import Cache, default_cache_dir
from scripts.image.release import Builder, ReleaseSpec
from scripts.image.select import builder
from scripts.lab.places import DEMO, PRODUCT, TOP, Places
from scripts.lab.tools import LabError, call

FACTORY_VERSION: Final = "1.0.0"

SICK_HOOK: Final = """#!/bin/sh
# Part of the demonstration: a release whose device never does its work.
echo "the pump controller does not answer (this release is made to fail)"
exit 1
"""

EXTRA: Final[Mapping[str, Mapping[str, str]]] = {"1.2.0": {"etc/zentri/hooks/health/10-pump": SICK_HOOK}}
"""What makes a demonstration release different from the others, by version."""


def _silent(_sentence: str) -> None:
    """Say nothing."""


@dataclass
class World:
    """One lab's things. Every method may be called again: what is there already is left alone."""

    places: Places = DEMO
    say: Callable[[str], None] = _silent
    production: bool = False
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: EXTRA)

    @cached_property
    def builder(self) -> Builder:
        """The image builder on this user's cache."""
        return builder(TOP, Cache(default_cache_dir()), self.places.keys, self.say)

    def spec(self, version: str) -> ReleaseSpec:
        """Return what is special about a release of the demonstration product."""
        return ReleaseSpec(PRODUCT, version, self.production, dict(self.extra.get(version, {})))

    def image(self) -> Path:
        """Return the folder with everything a board boots from, built if needed."""
        return self.builder.image(self.spec(FACTORY_VERSION), self.places.image)

    @property
    def _mark(self) -> Path:
        return self.places.root / "made-from"

    def changed(self) -> bool:
        """Tell whether the code that releases are made from has changed since `begin_anew`."""
        return (
            not self._mark.is_file() or self._mark.read_text() != self.builder.release(self.spec(FACTORY_VERSION)).name
        )

    def begin_anew(self) -> None:
        """Forget what was published: a published version never changes, but a developer's 1.1.0 does all the time.

        The server must not be running.
        """
        if self.places.dms.exists():
            self.say("the code has changed since the last time: server, releases and board begin anew")
        for folder in (self.places.dms, self.places.metadata, self.places.bundles):
            shutil.rmtree(folder, ignore_errors=True)
        self.places.root.mkdir(parents=True, exist_ok=True)
        self._mark.write_text(self.builder.release(self.spec(FACTORY_VERSION)).name)

    def fleet(self) -> Path:
        """Return the fleet folder: certificate authorities, TUF keys, root and targets, one product delegated."""
        places = self.places
        if not (places.fleet / "complete").is_file():
            self.say("making the demonstration's keys and certificates (never use them for a real fleet)")
            if places.fleet.exists():
                shutil.rmtree(places.fleet)
            places.root.mkdir(parents=True, exist_ok=True)
            call("scripts.provision_tool", "fleet", "--out", places.fleet)
            call("scripts.provision_tool", "delegate", "--fleet", places.fleet, "--product", PRODUCT)
            note = "Made at set-up for demonstration and tests. Never use them for a real fleet.\n"
            (places.fleet / "DEMO-KEYS").write_text(note)
            (places.fleet / "complete").touch()
        return places.fleet

    def ssh_key(self) -> Path:
        """Return the developer's SSH key."""
        key = self.places.ssh_key
        if not key.with_suffix(".pub").is_file():
            key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            key.unlink(missing_ok=True)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "zentri-developer", "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return key

    def identity(self, dms_port: int, folder: Path | None = None) -> Path:
        """Return an identity folder of a board that finds its DMS at `dms_port` of this host."""
        folder = folder or self.places.identity
        known = folder / "identity.json"
        if known.is_file() and json.loads(known.read_text())["dms_port"] == dms_port:
            return folder
        words: list[str | Path] = []
        if known.is_file():  # the same board, told another port
            old = json.loads(known.read_text())
            words = ["--uuid", old["uuid"], "--mac", old["mac"]]
            shutil.rmtree(folder)
        call(
            "scripts.provision_tool", "device", "--fleet", self.fleet(), "--out", folder, "--dms-port", str(dms_port),
            "--authorized-keys", self.ssh_key().with_suffix(".pub"), *words,
        )  # fmt: skip
        return folder

    def bundle(self, version: str) -> Path:
        """Return the signed bundle of a demonstration release."""
        bundle = self.places.bundles / f"{PRODUCT}-{version}.zb"
        release = self.builder.release(self.spec(version))
        mark = bundle.with_suffix(".made-from")
        made_from = f"{release.name} {(self.fleet() / 'complete').stat().st_mtime_ns}"
        if mark.is_file() and mark.read_text() == made_from:
            return bundle
        self.say(f"building and signing the bundle of {version}")
        bundle.parent.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        call(
            "scripts.bundle_tool", "build", "--product", PRODUCT, "--version", version, "--compatible", BOARD.name,
            "--kernel", release / "kernel.itb", "--rootfs", release / "rootfs.erofs", "--out", bundle,
        )  # fmt: skip
        self.sign(bundle)
        mark.write_text(made_from)
        return bundle

    def sign(self, bundle: Path, metadata: Path | None = None) -> None:
        """Sign a bundle with the product's release key.

        `metadata`: the folder that says what was signed before, where a version is signed once; the lab's own if none.
        """
        metadata = metadata or self.places.metadata
        if not metadata.is_dir():
            shutil.copytree(self.fleet() / "public", metadata)
        keys = self.fleet() / "products" / PRODUCT
        call("scripts.bundle_tool", "sign", bundle, "--keys", keys, "--metadata", metadata)

    def publish(self, version: str, web_url: str, token: str, tag: str = "release") -> None:
        """Publish a release at a running DMS and give it a tag."""
        symbols = self.builder.release(self.spec(version)) / "symbols"
        more = ["--symbols", symbols] if (symbols / BUILD_ID_FOLDER).is_dir() else ["--no-symbols"]
        call(
            "scripts.bundle_tool", "publish", self.bundle(version), "--server", web_url, "--token", token, "--tag", tag,
            *more,
        )  # fmt: skip

    def check(self) -> None:
        """Raise LabError unless everything a board needs is there."""
        for name in ("rom.bin", "disk.img"):
            if not (self.places.image / name).exists():
                raise LabError(f"{self.places.image / name} is missing; build it with `make image`")
