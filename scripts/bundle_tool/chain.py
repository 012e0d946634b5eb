"""Checking a chain of TUF metadata from a trusted root to a release. Pure; the counterpart of `tufrepo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError, UnsignedMetadataError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # not listed by the package
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from zentrid.bundle.manifest import Manifest, ManifestError, parse_manifest
from zentrid.bundle.zbfile import MAX_METADATA_BYTES
from zentrid.errors import ZentriError

SignedT = TypeVar("SignedT", Root, Targets, Snapshot, Timestamp)


class ChainError(ZentriError):
    """Metadata that must not be used, or that cannot be made; `reason` is `bad_signature`, `expired`, `bad_metadata`, …."""

    def __init__(self, reason: str, sentence: str) -> None:
        self.reason = reason
        super().__init__(sentence)


def parse(data: bytes, kind: type[SignedT]) -> Metadata[SignedT]:
    """Return metadata of one kind from a file's content, signatures not checked. Raises ChainError."""
    what = kind.__name__.lower()
    if len(data) > MAX_METADATA_BYTES:
        raise ChainError("bad_metadata", f"the {what} metadata is larger than {MAX_METADATA_BYTES} bytes")
    try:
        metadata: Metadata[SignedT] = Metadata.from_bytes(data)
    except DeserializationError:
        raise ChainError("bad_metadata", f"the {what} metadata is damaged: take it again from its source") from None
    if type(metadata.signed) is not kind:
        raise ChainError("bad_metadata", f"a file of type {metadata.signed.type} is where {what} metadata should be")
    return metadata


@dataclass(frozen=True)
class VerifiedRelease:
    """A manifest that the chain from the root proves to be a release, and the metadata that proved it."""

    manifest: Manifest
    targets: Metadata[Targets]
    delegated: Metadata[Targets]


def verify_roots(trusted: bytes, newer: Sequence[bytes] = (), now: datetime | None = None) -> Metadata[Root]:
    """Return the last of `newer` (ascending versions), reached from the trusted root step by step.

    Roots up to the trusted version are passed over. With `now`, the last root must not be expired. Raises ChainError.
    """
    root = parse(trusted, Root)
    _verify(root, "root", root, "the root metadata is not signed by its own keys: provision the fleet again")
    for data in newer:
        following = parse(data, Root)
        if following.signed.version <= root.signed.version:
            continue
        if following.signed.version != root.signed.version + 1:
            raise ChainError(
                "bad_metadata",
                f"root version {root.signed.version + 1} is missing before {following.signed.version}: "
                "all roots since the trusted one are needed",
            )
        sentence = f"root version {following.signed.version} is not signed as version {root.signed.version} demands"
        _verify(root, "root", following, sentence)
        _verify(following, "root", following, sentence)
        root = following
    _require_fresh(root, "root", now)
    return root


def verify_chain(
    root: bytes | Metadata[Root], targets: bytes, delegated: bytes, manifest: bytes, now: datetime | None = None
) -> VerifiedRelease:
    """Check that `manifest` is a release: root → targets → the product's delegation → target. Raises ChainError.

    `root` is trusted (the newest, see `verify_roots`). With `now`, nothing may be expired; without it freshness is not looked at.
    """
    trusted = root if isinstance(root, Metadata) else verify_roots(root, now=now)
    _require_fresh(trusted, "root", now)
    try:
        parsed = parse_manifest(manifest)
    except ManifestError as error:
        raise ChainError(error.reason, str(error)) from error
    product = parsed.product
    top = parse(targets, Targets)
    _verify(trusted, "targets", top, "the targets metadata is not signed by the targets key of this fleet's root")
    _require_fresh(top, "targets", now)
    delegations = top.signed.delegations
    role = named_roles(delegations).get(product) if delegations is not None else None
    if role is None or not role.is_delegated_path(parsed.target_path):
        raise ChainError("not_delegated", f"{product} is not delegated in this fleet: run scripts/provision delegate")
    releases = parse(delegated, Targets)
    _verify(top, product, releases, f"the releases of {product} are not signed by that product's release key")
    _require_fresh(releases, product, now)
    target = releases.signed.targets.get(parsed.target_path)
    if target is None:
        raise ChainError("not_signed", f"{product} {parsed.version} is not among the signed releases: sign the bundle")
    try:
        target.verify_length_and_hashes(manifest)
    except LengthOrHashMismatchError:
        sentence = f"the manifest of {product} {parsed.version} is not the one that was signed: sign the bundle again"
        raise ChainError("bad_signature", sentence) from None
    return VerifiedRelease(parsed, top, releases)


def _verify(
    delegator: Metadata[Root] | Metadata[Targets],
    role: str,
    delegatee: Metadata[Root] | Metadata[Targets],
    sentence: str,
) -> None:
    try:
        delegator.signed.verify_delegate(role, delegatee.signed_bytes, delegatee.signatures)
    except (UnsignedMetadataError, ValueError):
        raise ChainError("bad_signature", sentence) from None


def _require_fresh(metadata: Metadata[Root] | Metadata[Targets], name: str, now: datetime | None) -> None:
    if now is not None and metadata.signed.is_expired(now):
        expires = metadata.signed.expires.isoformat()
        raise ChainError("expired", f"the {name} metadata expired at {expires}: sign it again with its key")


def named_roles(delegations: Delegations) -> dict[str, DelegatedRole]:
    """Return the delegated roles by name; ChainError for metadata that delegates by hash instead."""
    if delegations.roles is None:
        raise ChainError("bad_metadata", "the targets metadata has hash-bin delegations: this project names products")
    return delegations.roles
