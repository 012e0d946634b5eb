"""Key files: Ed25519 keys as PEM, private ones readable by their owner only."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # not listed by the package

from scripts.bundle_tool.files import write_new
from zentrid.errors import ZentriError

MAX_KEY_FILE_BYTES = 64 * 1024


class KeyFileError(ZentriError):
    """A key file that cannot be used, or would be overwritten; `path` names it."""

    reason = "bad_key"

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


def new_key() -> Ed25519PrivateKey:
    """Make a new private key from the system's random numbers."""
    return Ed25519PrivateKey.generate()


def signer_of(key: Ed25519PrivateKey) -> CryptoSigner:
    """Return what signs TUF metadata with `key`; its `public_key` is the TUF key."""
    return CryptoSigner(key, public_key_of(key.public_key()))


def public_key_of(key: Ed25519PublicKey) -> SSlibKey:
    """Return the TUF key (its id is a hash of it) for a public key."""
    return SSlibKey.from_crypto(key)


def save_private_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write `key` as PKCS #8 PEM, not encrypted, mode 0600. KeyFileError if the file is there already."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_new(path, pem, secret=True)


def save_public_key(path: Path, key: Ed25519PublicKey) -> None:
    """Write `key` as PEM, mode 0644. KeyFileError if the file is there already."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_new(path, pem, secret=False)


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a PEM file; KeyFileError if there is none, or of another kind."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(path, "is no unencrypted private key in PEM; make one with scripts/bundle keygen") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(path, "is not an Ed25519 key; make one with scripts/bundle keygen")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Return the public key in a PEM file; KeyFileError if there is none, or of another kind."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(path, "is no public key in PEM; keygen writes it as release.pub") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(path, "is not an Ed25519 key; make one with scripts/bundle keygen")
    return key


def load_signer(path: Path) -> CryptoSigner:
    """Return the signer for the private key in a PEM file; KeyFileError as `load_private_key`."""
    return signer_of(load_private_key(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(path, f"cannot be read ({error.strerror})") from None
    if len(data) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(path, "is too large for a key file")
    return data


def _write_new(path: Path, data: bytes, *, secret: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, data, secret=secret)
    except FileExistsError:
        raise KeyFileError(path, "is there already; keys are never overwritten, choose another folder") from None
    except OSError as error:
        raise KeyFileError(path, f"cannot be written ({error.strerror})") from None
