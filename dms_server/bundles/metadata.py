"""The server's TUF repository: it keeps what others signed and signs snapshot and timestamp itself.

Source: The Update Framework specification, with consistent snapshots. The keys of `root`, `targets` and of the products
are never here, so a server in wrong hands can withhold releases but not make one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # the same
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # the package gives these names without listing them
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from dms_server.clock import now
from dms_server.errors import SetupError, UploadRefusedError
from dms_server.files import write_durably
from zentrid.bundle.manifest import PRODUCT_PATTERN
from zentrid.bundle.zbfile import MAX_METADATA_BYTES

ROLE_FILE = re.compile(rf"([0-9]{{1,9}})\.(root|targets|snapshot|{PRODUCT_PATTERN.pattern})\.json")
SNAPSHOTS_KEPT = 20
TOP_ROLES = ("root", "targets", "snapshot", "timestamp")

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


def parse(kind: type[S], data: bytes, what: str) -> Metadata[S]:
    """Return the signed metadata in `data`, not verified; raises UploadRefusedError for another kind."""
    if len(data) > MAX_METADATA_BYTES:
        raise UploadRefusedError(f"{what} is larger than {MAX_METADATA_BYTES} bytes")
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
    except (DeserializationError, RepositoryError) as error:
        raise UploadRefusedError(f"{what} is not TUF metadata; make it again with scripts/bundle sign") from error
    if not isinstance(metadata.signed, kind):
        raise UploadRefusedError(f"{what} holds the role {metadata.signed.type}, not {kind.type}")
    return metadata


class MetadataStore:
    """The repository in one folder. All methods block on files: call them outside the event loop, one at a time.

    What is current is decided by the files: the highest number of each role. `timestamp.json` is written last, so a
    crash at any point leaves clients with the state before; `open` completes it.
    """

    def __init__(self, folder: Path, fleet: Path, *, timestamp_lifetime_s: int, snapshot_lifetime_s: int) -> None:
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        self._fleet = fleet
        self._timestamp_lifetime = timedelta(seconds=timestamp_lifetime_s)
        self._snapshot_lifetime = timedelta(seconds=snapshot_lifetime_s)

    def open(self) -> None:
        """Read the fleet's roots and keys, take over newer targets, sign what is missing. Raises SetupError."""
        self._metadata.mkdir(parents=True, exist_ok=True)
        self._targets.mkdir(parents=True, exist_ok=True)
        try:
            self._root = self._load_roots()
            self._snapshot_signer = self._load_signer("snapshot")
            self._timestamp_signer = self._load_signer("timestamp")
            self.adopt_targets((self._fleet / "public" / "targets.json").read_bytes())
        except (OSError, ValueError, UploadRefusedError) as error:
            raise SetupError(
                f"the fleet folder {self._fleet} cannot be used: {error}; make one with scripts/provision fleet"
            ) from error
        self.refresh()

    # --- reading --------------------------------------------------------------------------------------------------
    def file(self, name: str) -> Path | None:
        """Return the file of a metadata name as clients ask for it, or None if there is none."""
        if name != "timestamp.json" and not ROLE_FILE.fullmatch(name):
            return None
        path = self._metadata / name
        return path if path.is_file() else None

    def manifest_file(self, product: str, version: str, name: str) -> Path:
        """Return where the manifest `<sha256>.manifest.json` of a release is kept; the caller checked the parts."""
        return self._targets / product / version / name

    def targets(self) -> Metadata[Targets]:
        """Return the current top-level targets, verified when they were taken over."""
        return self._read(Targets, "targets", self._highest("targets"))

    def delegated(self, product: str) -> Metadata[Targets] | None:
        """Return the current metadata of a product, or None before its first release."""
        number = self._highest(product)
        return self._read(Targets, product, number) if number else None

    def timestamp_expires(self) -> datetime:
        """Return when the current timestamp expires."""
        data = (self._metadata / "timestamp.json").read_bytes()
        return Metadata[Timestamp].from_bytes(data).signed.expires

    # --- taking over what others signed -----------------------------------------------------------------------------
    def adopt_targets(self, data: bytes) -> bool:
        """Take over top-level targets if newer than ours; return whether they were.

        Raises UploadRefusedError when root's keys did not sign them or they have expired.
        """
        offered = parse(Targets, data, "targets.json")
        self._verify(self._root.signed, "targets", offered, "the fleet's targets key; delegate with scripts/provision")
        current = self._highest("targets")
        if offered.signed.version < current:
            return False
        if offered.signed.version == current:
            if offered.signed != self._read(Targets, "targets", current).signed:
                raise UploadRefusedError(f"another targets.json has version {current} already; raise the version")
            return False
        write_durably(self._metadata / f"{offered.signed.version}.targets.json", data)
        return True

    def verify_delegated(self, product: str, data: bytes, targets: Targets | None = None) -> Metadata[Targets]:
        """Return a product's metadata, verified against the delegation in `targets` (ours if None).

        Raises UploadRefusedError: not delegated, signed by another key, expired.
        """
        top = targets or self.targets().signed
        if top.delegations is None or product not in (top.delegations.roles or {}):
            raise UploadRefusedError(
                f"the product {product} is not delegated to a release key; run scripts/provision delegate first"
            )
        offered = parse(Targets, data, f"{product}.json")
        self._verify(top, product, offered, f"the release key of {product}")
        return offered

    def verify_targets(self, data: bytes) -> Metadata[Targets]:
        """Return top-level targets verified against root, without taking them over. Raises UploadRefusedError."""
        offered = parse(Targets, data, "targets.json")
        self._verify(self._root.signed, "targets", offered, "the fleet's targets key")
        return offered

    def verify_roots(self, files: list[bytes]) -> None:
        """Check that every root in a bundle is one of the fleet's. Raises UploadRefusedError."""
        for data in files:
            number = parse(Root, data, "a root file").signed.version
            path = self.file(f"{number}.root.json")
            if path is None or path.read_bytes() != data:
                raise UploadRefusedError(
                    f"{number}.root.json in the bundle is not this fleet's; sign it with this fleet's metadata"
                )

    def store_release(self, product: str, version: str, delegated: bytes, manifest: bytes, sha256: str) -> None:
        """Keep a verified release. Nobody is told of it before `refresh`."""
        write_durably(self.manifest_file(product, version, f"{sha256}.manifest.json"), manifest)
        number = parse(Targets, delegated, f"{product}.json").signed.version
        if number > self._highest(product):
            write_durably(self._metadata / f"{number}.{product}.json", delegated)

    # --- signing ----------------------------------------------------------------------------------------------------
    def refresh(self) -> bool:
        """Sign a new snapshot or timestamp where the content changed or half of the lifetime is over.

        Returns whether anything was signed.
        """
        number = self._highest("snapshot")
        wanted = self._wanted_meta()
        snapshot = self._read(Snapshot, "snapshot", number).signed if number else None
        half = now() + self._snapshot_lifetime / 2
        if snapshot is None or snapshot.meta != wanted or snapshot.expires < half:
            number += 1
            fresh = Metadata(Snapshot(version=number, expires=self._expiry(self._snapshot_lifetime), meta=wanted))
            fresh.sign(self._snapshot_signer)
            write_durably(self._metadata / f"{number}.snapshot.json", fresh.to_bytes())
        path = self._metadata / "timestamp.json"
        old = Metadata[Timestamp].from_bytes(path.read_bytes()).signed if path.exists() else None
        if old and old.snapshot_meta.version == number and old.expires >= now() + self._timestamp_lifetime / 2:
            return False
        version = old.version + 1 if old else 1
        expires = self._expiry(self._timestamp_lifetime)
        stamp = Metadata(Timestamp(version=version, expires=expires, snapshot_meta=self._meta_file("snapshot", number)))
        stamp.sign(self._timestamp_signer)
        write_durably(path, stamp.to_bytes())
        self._forget_old_snapshots(number)
        return True

    def _wanted_meta(self) -> dict[str, MetaFile]:
        """Return what the snapshot must list: number, length and hash of each current file."""
        roles = ["targets", *sorted({role for _, role in self._numbered() if role not in TOP_ROLES})]
        return {f"{role}.json": self._meta_file(role, self._highest(role)) for role in roles}

    def _meta_file(self, role: str, number: int) -> MetaFile:
        return MetaFile.from_data(number, (self._metadata / f"{number}.{role}.json").read_bytes(), ["sha256"])

    def _forget_old_snapshots(self, current: int) -> None:
        for number, role in list(self._numbered()):
            if role == "snapshot" and number <= current - SNAPSHOTS_KEPT:
                (self._metadata / f"{number}.snapshot.json").unlink(missing_ok=True)

    # --- pieces -----------------------------------------------------------------------------------------------------
    def _load_roots(self) -> Metadata[Root]:
        """Copy the fleet's chain of roots, each checked against the one before; return the newest."""
        number, current = 1, None
        while (path := self._fleet / "public" / f"{number}.root.json").exists():
            data = path.read_bytes()
            offered = parse(Root, data, path.name)
            self._verify((current or offered).signed, "root", offered, "the root keys before it", expiry=False)
            self._verify(offered.signed, "root", offered, "its own root keys", expiry=False)
            if offered.signed.version != number:
                raise UploadRefusedError(f"{path.name} says that it is version {offered.signed.version}")
            target = self._metadata / path.name
            if not target.exists():
                write_durably(target, data)
            elif target.read_bytes() != data:
                raise UploadRefusedError(f"{path.name} differs from the one in {self._metadata}: this is another fleet")
            current, number = offered, number + 1
        if current is None:
            raise UploadRefusedError("public/1.root.json is missing")
        if current.signed.is_expired(now()):
            raise UploadRefusedError(f"the newest root expired on {current.signed.expires}; sign a new one")
        return current

    def _load_signer(self, role: str) -> CryptoSigner:
        path = self._fleet / "online" / f"{role}.key"
        private = load_pem_private_key(path.read_bytes(), None)
        public = SSlibKey.from_crypto(private.public_key())
        for keyid in self._root.signed.roles[role].keyids:
            if self._root.signed.keys[keyid].keyval == public.keyval:
                public.keyid = keyid
                return CryptoSigner(private, public)
        raise UploadRefusedError(f"online/{role}.key is not the key that the newest root names for {role}")

    def _verify(self, by: Root | Targets, role: str, offered: Metadata[S], whose: str, *, expiry: bool = True) -> None:
        try:
            by.verify_delegate(role, offered.signed_bytes, offered.signatures)
        except (RepositoryError, ValueError) as error:
            raise UploadRefusedError(f"the {role} metadata is not signed by {whose}") from error
        if expiry and offered.signed.is_expired(now()):
            raise UploadRefusedError(f"the {role} metadata expired on {offered.signed.expires:%Y-%m-%d}; sign it again")

    def _expiry(self, lifetime: timedelta) -> datetime:
        return (now() + lifetime).replace(microsecond=0)

    def _numbered(self) -> Iterator[tuple[int, str]]:
        for path in self._metadata.iterdir():
            match = ROLE_FILE.fullmatch(path.name)
            if match:
                yield int(match[1]), match[2]

    def _highest(self, role: str) -> int:
        return max((number for number, name in self._numbered() if name == role), default=0)

    def _read(self, kind: type[S], role: str, number: int) -> Metadata[S]:
        return parse(kind, (self._metadata / f"{number}.{role}.json").read_bytes(), f"{number}.{role}.json")
