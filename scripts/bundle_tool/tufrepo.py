"""The TUF metadata of a fleet: making and signing it. Pure: bytes and keys in, metadata out; no files, no network.

`root` and `targets` are signed offline. `targets` delegates `<PRODUCT>/*/manifest.json` to the release key of that
product, in a role named like the product. `snapshot` and `timestamp` are signed by the DMS. Consistent snapshots are on.
Source of the format: The Update Framework's specification, 1.0.31. What is made here is checked by `chain`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from securesystemslib.signer import CryptoSigner, Key  # type: ignore[attr-defined]  # not listed by the package
from tuf.api.metadata import (  # type: ignore[attr-defined]  # the same
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from scripts.bundle_tool.chain import ChainError, SignedT, named_roles, parse, verify_roots
from zentrid.bundle.manifest import PRODUCT_PATTERN, Manifest
from zentrid.bundle.signedtime import signed_at_field

ROOT_DAYS: Final = 365
TARGETS_DAYS: Final = 365
DELEGATED_DAYS: Final = 365
SNAPSHOT_DAYS: Final = 7
TIMESTAMP_DAYS: Final = 1

_SERIALIZER = JSONSerializer(compact=True)


def utc_now() -> datetime:
    """Return the time now in whole seconds: TUF has no fractions."""
    return datetime.now(UTC).replace(microsecond=0)


def _expiry(now: datetime | None, days: float) -> datetime:
    return (now or utc_now()).replace(microsecond=0) + timedelta(days=days)


def to_bytes(metadata: Metadata[SignedT]) -> bytes:
    """Return the file's content: compact JSON, the same bytes for the same content."""
    return metadata.to_bytes(_SERIALIZER)


def sign(metadata: Metadata[SignedT], signers: Iterable[CryptoSigner]) -> Metadata[SignedT]:
    """Replace all signatures by those of `signers` and return the metadata."""
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


# --- root -----------------------------------------------------------------------------------------------------------


def new_root(
    *,
    root: Sequence[CryptoSigner],
    targets: Sequence[Key],
    snapshot: Sequence[Key],
    timestamp: Sequence[Key],
    root_threshold: int = 1,
    targets_threshold: int = 1,
    now: datetime | None = None,
    days: float = ROOT_DAYS,
) -> Metadata[Root]:
    """Make and sign version 1 of the root metadata with these keys for the four roles.

    Raises ChainError if a role has fewer keys than its threshold.
    """
    roles: dict[str, tuple[Sequence[Key], int]] = {
        "root": ([signer.public_key for signer in root], root_threshold),
        "targets": (targets, targets_threshold),
        "snapshot": (snapshot, 1),
        "timestamp": (timestamp, 1),
    }
    signed = Root(version=1, expires=_expiry(now, days), consistent_snapshot=True)
    _set_rootnamed_roles(signed, roles)
    return sign(Metadata(signed), root)


def next_root(
    old: Metadata[Root],
    signers: Sequence[CryptoSigner],
    *,
    roles: Mapping[str, tuple[Sequence[Key], int]] | None = None,
    now: datetime | None = None,
    days: float = ROOT_DAYS,
) -> Metadata[Root]:
    """Make and sign the root after `old`: another expiry, and other keys and threshold for the roles in `roles`.

    `signers` must reach the threshold of the old root and of the new one. Raises ChainError if they do not.
    """
    new = sign(proposed_root(old, roles=roles or {}, now=now, days=days), signers)
    verify_roots(to_bytes(old), [to_bytes(new)])
    return new


def proposed_root(
    old: Metadata[Root],
    *,
    roles: Mapping[str, tuple[Sequence[Key], int]],
    now: datetime | None = None,
    days: float = ROOT_DAYS,
) -> Metadata[Root]:
    """Return the root after `old`, not signed yet, with other keys and threshold for the roles in `roles`. Raises ChainError."""
    signed = copy.deepcopy(old.signed)
    signed.version += 1
    signed.expires = _expiry(now, days)
    _set_rootnamed_roles(signed, roles)
    return Metadata(signed)


def _set_rootnamed_roles(signed: Root, roles: Mapping[str, tuple[Sequence[Key], int]]) -> None:
    for name, (keys, threshold) in roles.items():
        if not 1 <= threshold <= len({key.keyid for key in keys}):
            raise ChainError("bad_metadata", f"role {name} has {len(keys)} keys, too few for threshold {threshold}")
        for keyid in list(signed.roles[name].keyids):
            signed.revoke_key(keyid, name)
        signed.roles[name] = Role([], threshold)
        for key in keys:
            signed.add_key(key, name)


# --- targets and delegation -----------------------------------------------------------------------------------------


def new_targets(
    signers: Sequence[CryptoSigner], *, now: datetime | None = None, days: float = TARGETS_DAYS
) -> Metadata[Targets]:
    """Make and sign version 1 of the top targets metadata, with no delegation yet."""
    signed = Targets(version=1, expires=_expiry(now, days), delegations=Delegations(keys={}, roles={}))
    return sign(Metadata(signed), signers)


def delegate(
    targets: Metadata[Targets],
    product: str,
    keys: Sequence[Key],
    signers: Sequence[CryptoSigner],
    *,
    threshold: int = 1,
    now: datetime | None = None,
    days: float = TARGETS_DAYS,
) -> Metadata[Targets]:
    """Return the targets metadata after `targets`, signed, that gives `<PRODUCT>/*/manifest.json` to `keys` alone.

    Keys that the product had before are taken away (key rotation). Raises ChainError for what is no product code or if the
    threshold cannot be reached.
    """
    if not PRODUCT_PATTERN.fullmatch(product):
        raise ChainError("bad_metadata", f"{product[:80]!r} is no product code: write one like DEMO-VIRT_SENSOR")
    if not 1 <= threshold <= len({key.keyid for key in keys}):
        raise ChainError("bad_metadata", f"{product} would have {len(keys)} keys, too few for threshold {threshold}")
    signed, delegations = _next_targets(targets, now, days)
    roles = named_roles(delegations)
    roles[product] = DelegatedRole(product, [], threshold, terminating=True, paths=[f"{product}/*/manifest.json"])
    delegations.roles = dict(sorted(roles.items()))
    for key in keys:
        signed.add_key(key, product)
    _drop_unused_keys(delegations)
    return sign(Metadata(signed), signers)


def revoke_delegation(
    targets: Metadata[Targets],
    product: str,
    signers: Sequence[CryptoSigner],
    *,
    now: datetime | None = None,
    days: float = TARGETS_DAYS,
) -> Metadata[Targets]:
    """Return the targets metadata after `targets`, signed, in which `product` has no release key any more."""
    signed, delegations = _next_targets(targets, now, days)
    if named_roles(delegations).pop(product, None) is None:
        raise ChainError("bad_metadata", f"{product[:80]} has no delegation: nothing to revoke")
    _drop_unused_keys(delegations)
    return sign(Metadata(signed), signers)


def next_targets(
    targets: Metadata[Targets],
    signers: Sequence[CryptoSigner],
    *,
    now: datetime | None = None,
    days: float = TARGETS_DAYS,
) -> Metadata[Targets]:
    """Return the targets metadata after `targets` with the same content: another expiry, or other signers."""
    return sign(Metadata(_next_targets(targets, now, days)[0]), signers)


def _next_targets(targets: Metadata[Targets], now: datetime | None, days: float) -> tuple[Targets, Delegations]:
    signed = copy.deepcopy(targets.signed)
    signed.version += 1
    signed.expires = _expiry(now, days)
    if signed.delegations is None:
        signed.delegations = Delegations(keys={}, roles={})
    return signed, signed.delegations


def _drop_unused_keys(delegations: Delegations) -> None:
    used = {keyid for role in named_roles(delegations).values() for keyid in role.keyids}
    delegations.keys = {keyid: key for keyid, key in sorted(delegations.keys.items()) if keyid in used}


def release_keys(targets: Metadata[Targets], product: str) -> dict[str, Key]:
    """Return the release keys of `product` by key id; empty if it has no delegation."""
    delegations = targets.signed.delegations
    role = named_roles(delegations).get(product) if delegations is not None else None
    if delegations is None or role is None:
        return {}
    return {keyid: delegations.keys[keyid] for keyid in role.keyids}


# --- releases of one product ----------------------------------------------------------------------------------------


def add_release(
    delegated: Metadata[Targets] | None,
    manifest: Manifest,
    signers: Sequence[CryptoSigner],
    *,
    replace: bool = False,
    now: datetime | None = None,
    days: float = DELEGATED_DAYS,
) -> Metadata[Targets]:
    """Return a product's delegated metadata after `delegated` (None: the first), signed, with one more release.

    Raises ChainError if another manifest has that version already, unless `replace` says that it was never published.
    """
    path = manifest.target_path
    known = {} if delegated is None else dict(delegated.signed.targets)
    target = TargetFile.from_data(path, manifest.to_bytes(), ["sha256"])
    if path in known and known[path] != target and not replace:
        raise ChainError(
            "release_exists",
            f"{manifest.product} {manifest.version} is signed already with other content: give it a new version, or say "
            "--replace if it was never published",
        )
    known[path] = target
    version = 1 if delegated is None else delegated.signed.version + 1
    signed = Targets(version=version, expires=_expiry(now, days), targets=dict(sorted(known.items())))
    return sign(Metadata(signed), signers)


def resigned_releases(
    delegated: Metadata[Targets],
    signers: Sequence[CryptoSigner],
    *,
    now: datetime | None = None,
    days: float = DELEGATED_DAYS,
) -> Metadata[Targets]:
    """Return a product's metadata after `delegated`, signed, with the same releases."""
    signed = Targets(version=delegated.signed.version + 1, expires=_expiry(now, days), targets=delegated.signed.targets)
    return sign(Metadata(signed), signers)


def has_release(delegated: Metadata[Targets], manifest: Manifest) -> bool:
    """Tell whether exactly this manifest is among the releases."""
    target = TargetFile.from_data(manifest.target_path, manifest.to_bytes(), ["sha256"])
    return delegated.signed.targets.get(manifest.target_path) == target


# --- snapshot and timestamp -----------------------------------------------------------------------------------------


def new_snapshot(
    targets: bytes,
    delegated: Mapping[str, bytes],
    signers: Sequence[CryptoSigner],
    *,
    version: int,
    now: datetime | None = None,
    days: float = SNAPSHOT_DAYS,
) -> Metadata[Snapshot]:
    """Make and sign a snapshot of these files' exact contents; `delegated` is by product code."""
    meta = {"targets.json": _meta_file(targets)}
    meta |= {f"{product}.json": _meta_file(data) for product, data in sorted(delegated.items())}
    return sign(Metadata(Snapshot(version=version, expires=_expiry(now, days), meta=meta)), signers)


def new_timestamp(
    snapshot: bytes,
    signers: Sequence[CryptoSigner],
    *,
    version: int,
    now: datetime | None = None,
    days: float = TIMESTAMP_DAYS,
) -> Metadata[Timestamp]:
    """Make and sign a timestamp of the snapshot file's exact content."""
    parsed = parse(snapshot, Snapshot)
    meta = MetaFile.from_data(parsed.signed.version, snapshot, ["sha256"])
    moment = now or utc_now()
    signed = Timestamp(version, None, _expiry(moment, days), meta, signed_at_field(moment))
    return sign(Metadata(signed), signers)


def _meta_file(data: bytes) -> MetaFile:
    return MetaFile.from_data(parse(data, Targets).signed.version, data, ["sha256"])


def served_target_name(path: str, content: bytes) -> str:
    """Return the path under which a target is served: `<PRODUCT>/<version>/<sha256>.manifest.json`."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{hashlib.sha256(content).hexdigest()}.{name}"
