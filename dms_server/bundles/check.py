"""Everything that must hold before an uploaded bundle is kept. Blocks on files and hashing: call it in a thread.

Checked: the file's form and sizes; every root in it is this fleet's; the product's metadata against the delegation;
the manifest against that metadata; every payload: header, leaf hashes to the root that the manifest names, every frame
decoded within its bound, every block under the tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tuf.api.metadata import Targets  # type: ignore[attr-defined]  # the package gives it without listing it

from dms_server.bundles.metadata import MetadataStore
from dms_server.bundles.store import PayloadStore
from dms_server.errors import UploadRefusedError
from zentrid.bundle.patch import unpack_full
from zentrid.bundle.tree import Reader
from zentrid.bundle.zbfile import Bundle, open_bundle
from zentrid.core.version import encode_version
from zentrid.errors import ZentriError


@dataclass(frozen=True)
class CheckedItem:
    """One item as the database keeps it. Sizes in bytes; `payload_bytes` is the patch stream from nothing."""

    type: str
    name: str
    size_bytes: int
    root_hash: str
    payload_bytes: int


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle that passed; its payloads lie in temporary files until `store` or `drop`."""

    bundle: Bundle
    manifest_sha256: str
    items: tuple[CheckedItem, ...]
    payloads: Mapping[str, Path]

    @property
    def product(self) -> str:
        """The product code."""
        return self.bundle.manifest.product

    @property
    def version(self) -> str:
        """The release's version."""
        return str(self.bundle.manifest.version)

    @property
    def version_number(self) -> int:
        """The version as one number that sorts like it."""
        return encode_version(self.bundle.manifest.version)

    def store(self, metadata: MetadataStore, payloads: PayloadStore) -> None:
        """Keep payloads first, then signed files; whatever is there already is the same and stays."""
        for root_hash, path in self.payloads.items():
            if not payloads.path(root_hash).exists():
                payloads.keep(path, root_hash)
        signed = self.bundle.metadata
        metadata.take_over({"targets.json": signed["targets.json"]})
        metadata.store_release(
            self.product, self.version, signed[f"{self.product}.json"], self.bundle.manifest_bytes, self.manifest_sha256
        )

    def drop(self) -> None:
        """Remove what `store` did not take."""
        for path in self.payloads.values():
            path.unlink(missing_ok=True)


def read_bundle(path: Path) -> Bundle:
    """Return what an uploaded file says it is; nothing is believed yet. Raises UploadRefusedError."""
    try:
        bundle = open_bundle(path)
    except ZentriError as error:
        raise UploadRefusedError(str(error)) from error
    if not bundle.metadata:
        raise UploadRefusedError("the bundle is not signed; sign it with scripts/bundle sign")
    return bundle


def check_bundle(
    bundle: Bundle, metadata: MetadataStore, payloads: PayloadStore, held: Mapping[str, str]
) -> CheckedBundle:
    """Return the bundle, checked. `held`: versions of the product on the server and their manifests' SHA-256 (hex).

    Raises UploadRefusedError saying what is wrong; then nothing is left behind.
    """
    digest = _check_chain(bundle, metadata, held)
    kept: dict[str, Path] = {}
    lengths: dict[str, int] = {}
    try:
        for root_hash, item in bundle.manifest.payloads.items():
            kept[root_hash] = payloads.temporary()
            lengths[root_hash] = _check_payload(bundle, root_hash, item.size_bytes, kept[root_hash])
    except ZentriError as error:
        _unlink(kept)
        raise UploadRefusedError(f"payload {item.name}: {error}") from error
    except BaseException:
        _unlink(kept)
        raise
    items = tuple(
        CheckedItem(item.type, item.name, item.size_bytes, item.root_hash, lengths[item.root_hash])
        for item in bundle.manifest.items
    )
    return CheckedBundle(bundle, digest, items, kept)


def _check_chain(bundle: Bundle, metadata: MetadataStore, held: Mapping[str, str]) -> str:
    """Return the manifest's SHA-256 if the product's release key vouches for it, by the chain in the bundle."""
    product, signed = bundle.manifest.product, bundle.metadata
    metadata.verify_roots([data for name, data in signed.items() if name.endswith(".root.json")])
    top, ours = metadata.verify_targets(signed["targets.json"]).signed, metadata.targets().signed
    newest = top if top.version > ours.version else ours
    offered = metadata.verify_delegated(product, signed[f"{product}.json"], newest).signed
    current = metadata.delegated(product)
    if current is not None and offered.version == current.signed.version and offered != current.signed:
        raise UploadRefusedError(
            f"another {product}.json has version {offered.version} already; sign the bundle again on top of the newest"
        )
    digest = _vouched(bundle, offered)
    if current is not None and offered.version < current.signed.version:
        _vouched(bundle, current.signed)
    else:
        _keeps_releases(product, offered, held)
    return digest


def _vouched(bundle: Bundle, role: Targets) -> str:
    target = role.targets.get(bundle.manifest.target_path)
    digest = hashlib.sha256(bundle.manifest_bytes).hexdigest()
    if target is None or target.length != len(bundle.manifest_bytes) or target.hashes.get("sha256") != digest:
        raise UploadRefusedError(
            f"the manifest is not the one that {bundle.manifest.product}.json version {role.version} signs; "
            "sign the bundle again with scripts/bundle sign"
        )
    return digest


def _keeps_releases(product: str, offered: Targets, held: Mapping[str, str]) -> None:
    """Releases on the server stay as they are: metadata that changes or forgets one is refused."""
    for version, digest in held.items():
        target = offered.targets.get(f"{product}/{version}/manifest.json")
        if target is None or target.hashes.get("sha256") != digest:
            raise UploadRefusedError(
                f"{product}.json changes or leaves out {version}, which is on the server; sign on top of the newest"
            )


class _Copying:
    """Reads a stream and writes what was read to a file."""

    def __init__(self, source: Reader, copy: BinaryIO) -> None:
        self._source = source
        self._copy = copy
        self.size_bytes = 0

    def read(self, size: int, /) -> bytes:
        """Return what the source returns."""
        data = self._source.read(size)
        self._copy.write(data)
        self.size_bytes += len(data)
        return data


def _check_payload(bundle: Bundle, root_hash: str, size_bytes: int, copy: Path) -> int:
    """Check a payload to its last block while copying it; return the stream's length in bytes."""
    with bundle.open_payload(root_hash) as source, copy.open("wb") as stream:
        reader = _Copying(source, stream)
        unpack_full(reader, bytes.fromhex(root_hash), size_bytes)
    return reader.size_bytes


def _unlink(paths: Mapping[str, Path]) -> None:
    for path in paths.values():
        path.unlink(missing_ok=True)
