"""A fleet: the keys that everything else hangs on, the two certificate authorities, the first signed metadata."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from scripts.bundle_tool import keys, tufrepo
from scripts.bundle_tool.files import write_new
from scripts.provision_tool import pki
from scripts.provision_tool.errors import ProvisionError
from scripts.provision_tool.rotation import PLACES, change_targets, newest_root, signers_of
from zentrid.bundle.manifest import PRODUCT_PATTERN


@dataclass(frozen=True)
class Delegation:
    """A product that was delegated."""

    product: str
    keyid: str
    targets_version: int
    """The version of `targets.json` that says so."""
    made_key: Path | None
    """The release key, if it was made here."""


def make_fleet(out: Path, extra_hosts: tuple[str, ...] = ()) -> Path:
    """Make a fleet folder; it appears whole or not at all. Returns it. Raises ProvisionError if it exists.

    `offline/` belongs in a safe, `online/` on the server, `public/` anywhere.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ProvisionError(f"{out} exists already; its keys are never written over, choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.parent / f".{out.name}.{secrets.token_hex(4)}"
    aside.mkdir(mode=0o700)
    try:
        for name in ("offline", "online", "products"):
            (aside / name).mkdir(mode=0o700)
        (aside / "public").mkdir(mode=0o755)
        _make_certificates(aside, extra_hosts)
        _make_metadata(aside)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return out


def _make_certificates(folder: Path, extra_hosts: tuple[str, ...]) -> None:
    for name, title in (("device_ca", "Zentri device CA"), ("dms_ca", "Zentri DMS CA")):
        authority = pki.new_authority(title)
        write_new(folder / "offline" / f"{name}.key", pki.key_pem(authority.key), secret=True)
        write_new(folder / "public" / f"{name}.crt", pki.certificate_pem(authority.certificate), secret=False)
    key = pki.new_key()
    certificate = pki.server_certificate(authority, key.public_key(), extra_hosts)
    write_new(folder / "online" / "dms.key", pki.key_pem(key), secret=True)
    write_new(folder / "online" / "dms.crt", pki.certificate_pem(certificate), secret=False)


def _make_metadata(folder: Path) -> None:
    signers = {}
    for role, place in PLACES.items():
        key = keys.new_key()
        keys.save_private_key(folder / place / f"{role}.key", key)
        signers[role] = keys.signer_of(key)
    root = tufrepo.new_root(
        root=[signers["root"]],
        targets=[signers["targets"].public_key],
        snapshot=[signers["snapshot"].public_key],
        timestamp=[signers["timestamp"].public_key],
    )
    targets = tufrepo.to_bytes(tufrepo.new_targets([signers["targets"]]))
    write_new(folder / "public" / "1.root.json", tufrepo.to_bytes(root), secret=False)
    write_new(folder / "public" / "1.targets.json", targets, secret=False)
    write_new(folder / "public" / "targets.json", targets, secret=False)


def delegate_product(fleet: Path, product: str, public_key: Path | None = None) -> Delegation:
    """Let a release key sign a product's releases; without `public_key` a key pair is made in `products/<CODE>/`.

    A product that has a key already gets the new one instead of it. Raises ProvisionError, KeyFileError or ChainError.
    """
    if not PRODUCT_PATTERN.fullmatch(product):
        raise ProvisionError(f"{product!r} is no product code; it looks like OWNER-PLATFORM_NAME")
    if not (fleet / "public" / "targets.json").exists():
        raise ProvisionError(
            f"{fleet / 'public' / 'targets.json'} is missing; is {fleet} a fleet folder made by `fleet`?"
        )
    signers_of(fleet, newest_root(fleet).signed, "targets")  # before a key is made that nobody could name
    made = None if public_key else _release_key(fleet / "products" / product)
    key = keys.public_key_of(keys.load_public_key(public_key or fleet / "products" / product / "release.pub"))
    targets = change_targets(fleet, lambda current, signers: tufrepo.delegate(current, product, [key], signers))
    version = targets.signed.version
    return Delegation(product, key.keyid, version, made)


def _release_key(folder: Path) -> Path:
    """Return the product's release key; makes the pair if there is none."""
    path, public = folder / "release.key", folder / "release.pub"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        keys.save_private_key(path, keys.new_key())
    if not public.exists():
        keys.save_public_key(public, keys.load_private_key(path).public_key())
    return path
