"""Signing a bundle and verifying one: between `.zb` files, key files and the metadata folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Metadata, Targets  # type: ignore[attr-defined]  # not listed by the package

from scripts.bundle_tool import keys, tufrepo
from scripts.bundle_tool.chain import ChainError, VerifiedRelease, parse, verify_chain, verify_roots
from scripts.bundle_tool.files import whole_or_nothing
from zentrid.bundle.manifest import PRODUCT_PATTERN
from zentrid.bundle.patch import unpack_full
from zentrid.bundle.zbfile import MAX_METADATA_BYTES, Bundle, open_bundle, write_bundle
from zentrid.errors import ZentriError

RELEASE_KEY = "release.key"
_ROOT_FILE = re.compile(r"([1-9][0-9]{0,5})\.root\.json")


class ReleaseError(ZentriError):
    """A bundle cannot be signed or is not to be trusted."""

    reason = "bad_release"


@dataclass(frozen=True)
class Signed:
    """What `sign_bundle` did."""

    product: str
    version: str
    role_version: int
    """Of the product's metadata that is in the bundle now."""
    keyid: str
    changed: bool
    """False: the release was signed with this content before; the bundle got the metadata that says so."""


def read_metadata(path: Path) -> bytes:
    """Return a metadata file's content; ReleaseError if it is not there or too large."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_METADATA_BYTES + 1)
    except OSError as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error.strerror}); is the folder a fleet's public folder?"
        ) from None
    if len(data) > MAX_METADATA_BYTES:
        raise ReleaseError(f"{path}: is larger than {MAX_METADATA_BYTES} bytes")
    return data


def read_roots(folder: Path) -> dict[str, bytes]:
    """Return `<n>.root.json` of a metadata folder by name, n ascending; ReleaseError if there is none."""
    found = {int(match[1]): path for path in folder.glob("*.root.json") if (match := _ROOT_FILE.fullmatch(path.name))}
    if not found:
        raise ReleaseError(f"{folder}: has no 1.root.json; give a fleet's public folder as --metadata")
    return {f"{number}.root.json": read_metadata(found[number]) for number in sorted(found)}


def sign_bundle(
    path: Path,
    key_folder: Path,
    metadata_folder: Path,
    *,
    replace: bool = False,
    days: float = tufrepo.DELEGATED_DAYS,
    now: datetime | None = None,
) -> Signed:
    """Sign the release in the bundle at `path` with the product's key; the bundle is replaced by one with the whole chain.

    The product's file in `metadata_folder` is made, or gets its next version. Nothing is changed unless the chain then
    verifies. Raises KeyFileError, BundleError, ChainError or ReleaseError.
    """
    bundle = open_bundle(path)
    manifest = bundle.manifest
    signer = keys.load_signer(key_folder / RELEASE_KEY)
    roots, targets = read_roots(metadata_folder), read_metadata(metadata_folder / "targets.json")
    _require_delegated(parse(targets, Targets), manifest.product, signer.public_key.keyid)
    role_path = metadata_folder / f"{manifest.product}.json"
    old = parse(read_metadata(role_path), Targets) if role_path.exists() else None
    new = old
    if old is None or not tufrepo.has_release(old, manifest) or not _fresh(old, signer.public_key.keyid, now):
        new = tufrepo.add_release(old, manifest, [signer], replace=replace, days=days, now=now)
    assert new is not None
    delegated = read_metadata(role_path) if new is old else tufrepo.to_bytes(new)
    names = list(roots)
    root = verify_roots(roots[names[0]], [roots[name] for name in names[1:]])
    verify_chain(root, targets, delegated, bundle.manifest_bytes, now or tufrepo.utc_now())
    chain = {**roots, "targets.json": targets, role_path.name: delegated}
    rewrite_bundle(bundle, chain)
    if new is not old:
        with whole_or_nothing(role_path) as stream:
            stream.write(delegated)
    return Signed(
        manifest.product, str(manifest.version), new.signed.version, signer.public_key.keyid, changed=new is not old
    )


def resign_product(
    product: str,
    key_folder: Path,
    metadata_folder: Path,
    *,
    days: float = tufrepo.DELEGATED_DAYS,
    now: datetime | None = None,
) -> int:
    """Sign a product's releases again, unchanged: before they expire, or with a key that took another's place.

    Returns the new version of the product's metadata. Raises KeyFileError, ChainError or ReleaseError.
    """
    if not PRODUCT_PATTERN.fullmatch(product):
        raise ReleaseError(f"{product[:80]!r} is no product code; write one like DEMO-VIRT_SENSOR")
    signer = keys.load_signer(key_folder / RELEASE_KEY)
    targets = parse(read_metadata(metadata_folder / "targets.json"), Targets)
    _require_delegated(targets, product, signer.public_key.keyid)
    path = metadata_folder / f"{product}.json"
    old = parse(read_metadata(path), Targets)
    new = tufrepo.resigned_releases(old, [signer], now=now, days=days)
    with whole_or_nothing(path) as stream:
        stream.write(tufrepo.to_bytes(new))
    return new.signed.version


def _require_delegated(targets: Metadata[Targets], product: str, keyid: str) -> None:
    allowed = tufrepo.release_keys(targets, product)
    if keyid not in allowed:
        state = "has other release keys" if allowed else "is not delegated"
        raise ChainError(
            "not_delegated",
            f"{product} {state} in targets.json: run scripts/provision delegate with this key's release.pub, and use the "
            "new targets.json",
        )


def _fresh(metadata: Metadata[Targets], keyid: str, now: datetime | None) -> bool:
    return keyid in metadata.signatures and not metadata.signed.is_expired(now or tufrepo.utc_now())


def rewrite_bundle(bundle: Bundle, metadata: Mapping[str, bytes]) -> None:
    """Replace the bundle's file by one with other metadata and the same payloads."""
    with ExitStack() as stack:
        payloads = {root_hash: stack.enter_context(bundle.open_payload(root_hash)) for root_hash in bundle.members}
        with whole_or_nothing(bundle.path) as stream:
            write_bundle(stream, bundle.manifest_bytes, metadata, payloads)


def verify_bundle(
    path: Path,
    trusted_root: bytes,
    *,
    now: datetime | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> tuple[Bundle, VerifiedRelease]:
    """Check everything in a bundle: chain from the trusted root, every tree, every block of every payload.

    With `now`, nothing may be expired. Raises BundleError, ChainError, PatchError or ReleaseError.
    """
    bundle = open_bundle(path)
    if not bundle.head.signed:
        raise ReleaseError(f"{path}: is not signed; sign it with scripts/bundle sign")
    manifest, chain = bundle.manifest, bundle.metadata
    newer = [data for name, data in chain.items() if name.endswith(".root.json")]
    root = verify_roots(trusted_root, newer, now)
    release = verify_chain(root, chain["targets.json"], chain[f"{manifest.product}.json"], bundle.manifest_bytes, now)
    for done, (root_hash, item) in enumerate(manifest.payloads.items()):
        if progress is not None:
            progress(item.name, done, len(manifest.payloads))
        with bundle.open_payload(root_hash) as stream:
            unpack_full(stream, bytes.fromhex(root_hash), item.size_bytes)
    return bundle, release
