"""The server's TUF repository: it keeps what others signed and signs snapshot and timestamp itself.

Source: The Update Framework specification, with consistent snapshots. The keys of `root`, `targets` and of the products
are never here, so a server in wrong hands can withhold releases but not make one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

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

from dms_server.bundles.signedfile import S, parse
from dms_server.clock import now
from dms_server.errors import SetupError, UploadRefusedError
from dms_server.files import write_durably
from zentrid.bundle.manifest import PRODUCT_PATTERN
from zentrid.bundle.signedtime import signed_at_field

ROLE_FILE = re.compile(rf"([0-9]{{1,9}})\.(root|targets|snapshot|{PRODUCT_PATTERN.pattern})\.json")
SNAPSHOTS_KEPT = 20
TOP_ROLES = ("root", "targets", "snapshot", "timestamp")
MAX_VERSION = 100_000_000
"""No honest count of signatures comes so far; whoever stole a key may try to, so that nothing newer is ever possible."""
WARN_BEFORE = timedelta(days=30)
"""Offline signatures that end sooner are a warning: people have to come together for new ones."""


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
        """Read the fleet's roots and keys, take over newer targets, sign what is missing. Raises SetupError.

        Offline signatures that have ended are no reason not to start: devices still report, and `problems` tells.
        """
        self._metadata.mkdir(parents=True, exist_ok=True)
        self._targets.mkdir(parents=True, exist_ok=True)
        try:
            if not self.file("1.root.json"):
                first = parse(Root, (self._fleet / "public" / "1.root.json").read_bytes(), "1.root.json")
                self._verify(first.signed, "root", first, "its own root keys", expiry=False)
                write_durably(self._metadata / "1.root.json", (self._fleet / "public" / "1.root.json").read_bytes())
            self._root = self._kept_root()
            self._drop_unfinished()
            self.take_over(self.fleet_files(), opening=True)
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
    def fleet_files(self) -> dict[str, bytes]:
        """Return roots and targets of the fleet folder by name. Raises OSError, UploadRefusedError."""
        files, number = {}, 1
        while (path := self._fleet / "public" / f"{number}.root.json").exists():
            files[path.name] = path.read_bytes()
            number += 1
        if not files:
            raise UploadRefusedError("public/1.root.json is missing")
        files["targets.json"] = (self._fleet / "public" / "targets.json").read_bytes()
        return files

    def take_over(self, files: Mapping[str, bytes], *, opening: bool = False) -> bool:
        """Take over newer roots (`<n>.root.json`), targets and products' metadata, all or nothing; return whether any was newer.

        Nothing is taken over that would leave devices without a chain: a root whose online keys are not here, or whose targets
        keys did not sign the newest targets. Raises UploadRefusedError.
        """
        root, roots = self._walk(files)
        signers = {role: self._load_signer(role, root.signed) for role in ("snapshot", "timestamp")}
        targets, new_targets = self._fitting_targets(root.signed, files.get("targets.json"), expiry=not opening)
        products = {
            name.removesuffix(".json"): self._newer_delegated(name.removesuffix(".json"), data, targets.signed)
            for name, data in files.items()
            if name != "targets.json" and not name.endswith(".root.json")
        }
        # The first of the new roots comes last: until it is there, nothing has changed for devices or for the next start.
        if new_targets is not None:
            write_durably(self._metadata / f"{targets.signed.version}.targets.json", new_targets)
        for name, data in reversed(roots.items()):
            write_durably(self._metadata / name, data)
        self._root, self._signers = root, signers
        newer = bool(roots) or new_targets is not None
        for product, (number, content) in products.items():
            if number:
                write_durably(self._metadata / f"{number}.{product}.json", content)
                newer = True
        return newer

    def _walk(self, files: Mapping[str, bytes]) -> tuple[Metadata[Root], dict[str, bytes]]:
        """Return the newest root reached from ours, and the files of those that are not kept yet."""
        current, new = self._kept_root(), {}
        names = (name for name in files if name.endswith(".root.json"))
        for name in sorted(names, key=lambda name: (len(name), name)):
            data = files[name]
            offered = parse(Root, data, name)
            number = offered.signed.version
            if name != f"{number}.root.json":
                raise UploadRefusedError(f"{name} says that it is version {number}")
            if number <= current.signed.version:
                if (self._metadata / name).exists() and (self._metadata / name).read_bytes() != data:
                    raise UploadRefusedError(f"{name} differs from the one in {self._metadata}: this is another fleet")
                continue
            if number != current.signed.version + 1:
                raise UploadRefusedError(f"{current.signed.version + 1}.root.json is missing before {name}")
            self._verify(current.signed, "root", offered, "the root keys before it", expiry=False)
            self._verify(offered.signed, "root", offered, "its own root keys", expiry=False)
            current, new[name] = offered, data
        return current, new

    def _fitting_targets(
        self, root: Root, data: bytes | None, *, expiry: bool
    ) -> tuple[Metadata[Targets], bytes | None]:
        """Return the newest targets, and the content of the offered ones if they are newer than ours.

        The newest must be signed as `root` demands. Older ones than ours are passed over: a folder may be behind.
        """
        number = self._highest("targets")
        ours = self._read(Targets, "targets", number) if number else None
        offered = None if data is None else parse(Targets, data, "targets.json")
        whose = f"the targets keys that root {root.version} names; sign targets.json with them and give it along"
        if offered is None or (ours is not None and offered.signed.version < ours.signed.version):
            if ours is None:
                raise UploadRefusedError("targets.json is missing")
            self._verify(root, "targets", ours, whose, expiry=False)
            return ours, None
        newer = ours is None or offered.signed.version > ours.signed.version
        self._verify(root, "targets", offered, whose, expiry=newer and expiry)
        if ours is not None and not newer and offered.signed != ours.signed:
            raise UploadRefusedError(f"another targets.json has version {number} already; raise the version")
        return offered, data if newer else None

    def _newer_delegated(self, product: str, data: bytes, targets: Targets) -> tuple[int, bytes]:
        """Return the number and content of a product's metadata without a new release; number 0: it is not newer."""
        offered = self.verify_delegated(product, data, targets).signed
        current = self.delegated(product)
        if current is None:
            raise UploadRefusedError(f"{product} has no release here yet; upload a bundle")
        if offered.version <= current.signed.version:
            return 0, data
        if offered.targets != current.signed.targets:
            raise UploadRefusedError(
                f"{product}.json has other releases than this server; upload the bundle that is new"
            )
        return offered.version, data

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
        if offered.signed.version > MAX_VERSION:
            raise UploadRefusedError(f"{product}.json has version {offered.signed.version}, which is out of reason")
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
        number = self._drop_foreign()
        wanted = self._wanted_meta()
        kept = self._read(Snapshot, "snapshot", number) if number else None
        snapshot = kept.signed if kept is not None and self._signed_as_root_demands("snapshot", kept) else None
        half = now() + self._snapshot_lifetime / 2
        if snapshot is None or snapshot.meta != wanted or snapshot.expires < half:
            number += 1
            fresh = Metadata(Snapshot(version=number, expires=self._expiry(self._snapshot_lifetime), meta=wanted))
            fresh.sign(self._signers["snapshot"])
            write_durably(self._metadata / f"{number}.snapshot.json", fresh.to_bytes())
        path = self._metadata / "timestamp.json"
        old, ours = self._old_timestamp(path)
        if old and ours and old.snapshot_meta.version == number and old.expires >= now() + self._timestamp_lifetime / 2:
            return False
        version = old.version + 1 if old and (ours or old.version < MAX_VERSION) else 1
        expires, moment = self._expiry(self._timestamp_lifetime), now()
        signed = Timestamp(version, None, expires, self._meta_file("snapshot", number), signed_at_field(moment))
        stamp = Metadata(signed)
        stamp.sign(self._signers["timestamp"])
        write_durably(path, stamp.to_bytes())
        self._forget_old_snapshots(number)
        return True

    def problems(self) -> list[str]:
        """Return what keeps devices from updating, or soon will: one sentence each; empty: all is well."""
        found = []
        try:
            left = self.timestamp_expires() - now()
            if left < self._timestamp_lifetime / 4:
                found.append(
                    f"the timestamp for devices expires in {max(int(left.total_seconds()), 0)} s and is not signed again"
                )
        except (OSError, DeserializationError):
            found.append("there is no timestamp for devices")
        found += [
            f"{role} version {signed.version} has expired on {signed.expires:%Y-%m-%d}: sign it again"
            for role, signed in self._signed_offline()
            if signed.is_expired(now())
        ]
        return found

    def warnings(self) -> list[str]:
        """Return which offline signatures end soon, one sentence each."""
        ends = [(role, signed.expires) for role, signed in self._signed_offline()]
        return [
            f"{role} expires on {at:%Y-%m-%d}: sign it again before"
            for role, at in ends
            if now() < at < now() + WARN_BEFORE
        ]

    def _signed_offline(self) -> list[tuple[str, Root | Targets]]:
        roles = ["targets", *self._products()]
        return [
            ("root", self._root.signed),
            *((role, self._read(Targets, role, self._highest(role)).signed) for role in roles),
        ]

    def _old_timestamp(self, path: Path) -> tuple[Timestamp | None, bool]:
        """Return the timestamp that devices get now, and whether the newest root's key signed it."""
        try:
            old = Metadata[Timestamp].from_bytes(path.read_bytes())
        except (OSError, DeserializationError):
            return None, False
        return old.signed, self._signed_as_root_demands("timestamp", old)

    def _signed_as_root_demands(self, role: str, metadata: Metadata[S]) -> bool:
        try:
            self._root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError):
            return False
        return True

    def _drop_foreign(self) -> int:
        """Return the highest number of a snapshot; files of a key that is gone with numbers out of reason are removed first."""
        role = "snapshot"
        while (number := self._highest(role)) >= MAX_VERSION and not self._signed_as_root_demands(
            role, self._read(Snapshot, role, number)
        ):
            (self._metadata / f"{number}.{role}.json").unlink()
        return number

    def _products(self) -> list[str]:
        return sorted({role for _, role in self._numbered() if role not in TOP_ROLES})

    def _wanted_meta(self) -> dict[str, MetaFile]:
        """Return what the snapshot must list: number, length and hash of each current file."""
        roles = ["targets", *self._products()]
        return {f"{role}.json": self._meta_file(role, self._highest(role)) for role in roles}

    def _meta_file(self, role: str, number: int) -> MetaFile:
        return MetaFile.from_data(number, (self._metadata / f"{number}.{role}.json").read_bytes(), ["sha256"])

    def _forget_old_snapshots(self, current: int) -> None:
        for number, role in list(self._numbered()):
            if role == "snapshot" and number <= current - SNAPSHOTS_KEPT:
                (self._metadata / f"{number}.snapshot.json").unlink(missing_ok=True)

    # --- pieces -----------------------------------------------------------------------------------------------------
    def _kept_root(self) -> Metadata[Root]:
        """Return the newest root that has no gap below: one above a gap was being taken over when the power went."""
        number = 1
        while self.file(f"{number + 1}.root.json"):
            number += 1
        return self._read(Root, "root", number)

    def _drop_unfinished(self) -> None:
        """Remove targets that came with a root which did not: the start before was cut while it took both over."""
        while number := self._highest("targets"):
            if self._signed_as_root_demands("targets", self._read(Targets, "targets", number)):
                return
            (self._metadata / f"{number}.targets.json").unlink()

    def _load_signer(self, role: str, root: Root) -> CryptoSigner:
        """Return the signer with the key in `online/` that the root names; there may be older and newer ones beside it."""
        for path in sorted((self._fleet / "online").glob(f"{role}*.key")):
            private = load_pem_private_key(path.read_bytes(), None)
            public = SSlibKey.from_crypto(private.public_key())
            for keyid in root.roles[role].keyids:
                if root.keys[keyid].keyval == public.keyval:
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
