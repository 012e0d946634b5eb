"""Bundle files on the device: read from a descriptor that somebody else opened, checked like what comes from the server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zentrid.bundle.zbfile import BundleError, BundleHead, BundleReader
from zentrid.update.errors import PayloadError, UntrustedError
from zentrid.update.payloads import BundlePayloads

if TYPE_CHECKING:
    from zentrid.update.metadata import TrustStore


def read_head(fd: int) -> BundleHead:
    """Return manifest and TUF chain of the bundle open at `fd`. Raises PayloadError if it is none."""
    try:
        with os.fdopen(os.dup(fd), "rb") as stream:
            stream.seek(0)
            return BundleReader(stream).head
    except (BundleError, OSError) as error:
        raise PayloadError(str(error)) from error


def trusted_manifest(fd: int, store: TrustStore) -> bytes:
    """Return the bundle's manifest after its whole chain was checked. Raises PayloadError or UntrustedError."""
    from zentrid.update.metadata import offline_manifest

    head = read_head(fd)
    if not head.signed:
        raise UntrustedError("the bundle is not signed; sign it with the product's release key", "not_signed")
    manifest = head.manifest
    offline_manifest(store, head.metadata, manifest.product, manifest.target_path, head.manifest_bytes)
    return head.manifest_bytes


def open_payloads(fd: int) -> BundlePayloads:
    """Return the payloads of the bundle open at `fd`, their places found. Raises PayloadError if it is damaged."""
    try:
        with os.fdopen(os.dup(fd), "rb") as stream:
            stream.seek(0)
            found = {
                member.name.removeprefix("payload/").removesuffix(".zps"): member
                for member, _ in BundleReader(stream).payloads()
            }
    except (BundleError, OSError) as error:
        raise PayloadError(str(error)) from error
    return BundlePayloads(fd, found)
