"""Bundles that do not come from the server: a file that somebody else opened, or one on any web server.

Both are checked like what comes from the server. Only what is needed is read; nothing is kept on disk.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zentrid.bundle.zbfile import BundleError, BundleHead, BundleReader, Member, SteppingBundleReader
from zentrid.update.errors import PayloadError, UntrustedError
from zentrid.update.payloads import BundlePayloads, PatchSource
from zentrid.update.transport import Known
from zentrid.update.web import WebFile, WebStream

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


def read_web_head(web: WebFile) -> BundleHead:
    """Return manifest and TUF chain of the bundle at an address. Raises PayloadError if it is none, or WebError."""
    try:
        return BundleReader(WebStream(web)).head
    except BundleError as error:
        raise PayloadError(str(error)) from error


def trusted_manifest(head: BundleHead, store: TrustStore) -> bytes:
    """Return the bundle's manifest after its whole chain was checked. Raises UntrustedError."""
    from zentrid.update.metadata import offline_manifest

    if not head.signed:
        raise UntrustedError("the bundle is not signed; sign it with the product's release key", "not_signed")
    manifest = head.manifest
    offline_manifest(store, head.metadata, manifest.product, manifest.target_path, head.manifest_bytes)
    return head.manifest_bytes


def open_payloads(fd: int) -> BundlePayloads:
    """Return the payloads of the bundle open at `fd`, their places found. Raises PayloadError if it is damaged."""
    found = {}
    try:
        with os.fdopen(os.dup(fd), "rb") as stream:
            end = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            reader = SteppingBundleReader(stream, lambda size: stream.seek(size, io.SEEK_CUR))
            for member, _ in reader.payloads():
                if member.offset + member.size_bytes > end:
                    raise BundleError(f"it ends inside {member.name}")
                found[_root_of(member)] = member
    except (BundleError, OSError) as error:
        raise PayloadError(str(error)) from error
    return BundlePayloads(fd, found)


def _root_of(member: Member) -> str:
    return member.name.removeprefix("payload/").removesuffix(".zps")


class WebPayloads:
    """Patch streams in a bundle at an address; each is looked for when it is wanted, so that reading goes forward."""

    def __init__(self, web: WebFile) -> None:
        """Read the bundle's head. Raises PayloadError or WebError."""
        self._web = web
        stream = WebStream(web)
        try:
            reader = SteppingBundleReader(stream, stream.skip)
        except BundleError as error:
            raise PayloadError(str(error)) from error
        self._left = reader.payloads()
        self._found: dict[str, Member] = {}

    def open(self, root_hash: str, base_hash: str | None) -> PatchSource:
        """Return the stream; a bundle has those from nothing only. Raises PayloadError if it is not in the bundle."""
        try:
            while root_hash not in self._found:
                member = next(self._left, None)
                if member is None:
                    raise PayloadError(f"the bundle lacks the payload {root_hash[:16]}…; build it again")
                self._found[_root_of(member[0])] = member[0]
        except BundleError as error:
            raise PayloadError(str(error)) from error
        return _WebSource(self._web, self._found[root_hash])


@dataclass
class _WebSource:
    web: WebFile
    member: Member
    known: Known = field(default_factory=Known)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        left = end - start
        if end <= self.member.size_bytes:
            for chunk in self.web.read(self.member.offset + start, self.member.offset + end):
                left -= len(chunk)
                yield chunk
        if left:
            raise PayloadError(f"the bundle ends inside {self.member.name}; put it on the web server again")
