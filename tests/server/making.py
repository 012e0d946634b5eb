"""A publisher in memory: makes and signs bundles with the library's own parts, and spoils them on purpose."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
from tuf.api.metadata import Metadata, TargetFile, Targets  # type: ignore[attr-defined]

from zentrid.bundle.encode import encode_full
from zentrid.bundle.manifest import Item, Manifest
from zentrid.bundle.tree import HashTree
from zentrid.bundle.zbfile import write_bundle
from zentrid.core.version import parse_version


def payload(version: str, size_bytes: int = 300_000) -> bytes:
    """Return bytes that differ from version to version and do not compress to nothing."""
    parts, count = [], 0
    while count * 32 < size_bytes:
        parts.append(hashlib.sha256(f"{version}/{count // 3}".encode()).digest())
        count += 1
    return b"".join(parts)[:size_bytes]


class Publisher:
    """Holds a product's release key and its metadata, release by release."""

    def __init__(self, fleet: Path, product: str, key: Ed25519PrivateKey | None = None) -> None:
        self.fleet = fleet
        self.product = product
        loaded = key or load_pem_private_key((fleet / "products" / product / "release.key").read_bytes(), None)
        self.signer = CryptoSigner(loaded)  # type: ignore[arg-type, unused-ignore]
        self.role = Targets(version=1, expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=100))
        self.role.version = 0  # the first release raises it to 1

    def manifest(self, version: str, payloads: Mapping[str, bytes], **more: Any) -> Manifest:
        """Return the manifest of a release whose items are files with these contents."""
        items = tuple(
            Item(
                type="rootfs" if name == "rootfs" else "file",
                name=name,
                size_bytes=len(content),
                root_hash=HashTree.from_reader(io.BytesIO(content)).root.hex(),
                path=None if name == "rootfs" else name,
            )
            for name, content in payloads.items()
        )
        fields: dict[str, Any] = {"compatible": ("virt",), "items": items, **more}
        return Manifest(product=self.product, version=parse_version(version), **fields)

    def make(
        self,
        version: str,
        payloads: Mapping[str, bytes] | None = None,
        *,
        spoil_metadata: Callable[[dict[str, bytes]], None] | None = None,
        spoil_role: Callable[[Targets], None] | None = None,
        **more: Any,
    ) -> bytes:
        """Return a signed bundle, on top of the releases made before."""
        contents = payloads if payloads is not None else {"rootfs": payload(version)}
        manifest = self.manifest(version, contents, **more)
        data = manifest.to_bytes()
        self.role.targets[manifest.target_path] = TargetFile.from_data(manifest.target_path, data, ["sha256"])
        self.role.version += 1
        role = copy.deepcopy(self.role)
        if spoil_role is not None:
            spoil_role(role)
        metadata = self.chain(role)
        if spoil_metadata is not None:
            spoil_metadata(metadata)
        return zb(data, metadata, contents)

    def chain(self, role: Targets) -> dict[str, bytes]:
        """Return the TUF chain of a bundle."""
        signed = Metadata(role)
        signed.sign(self.signer)
        public = self.fleet / "public"
        return {
            "1.root.json": (public / "1.root.json").read_bytes(),
            "targets.json": (public / "targets.json").read_bytes(),
            f"{self.product}.json": signed.to_bytes(),
        }


def zb(manifest: bytes, metadata: Mapping[str, bytes], contents: Mapping[str, bytes]) -> bytes:
    """Return a bundle file."""
    streams: dict[str, io.BytesIO] = {}
    for content in contents.values():
        out = io.BytesIO()
        encoded = encode_full(io.BytesIO(content), out, level=1)
        out.seek(0)
        streams[encoded.tree.root.hex()] = out
    result = io.BytesIO()
    write_bundle(result, manifest, metadata, streams)
    return result.getvalue()


def flip(data: bytes, inside: bytes, offset: int = 0) -> bytes:
    """Return `data` with one bit flipped, `offset` bytes after the beginning of `inside`."""
    place = data.index(inside) + offset
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
