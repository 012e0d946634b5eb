"""The bundle file (`.zb`): a release in one file, for publishing it and for installing it without a server.

It is an uncompressed POSIX tar (ustar) with regular files in this order and nothing else:

1. `manifest.json`;
2. `metadata/<n>.root.json`, n ascending; `metadata/targets.json`; `metadata/<PRODUCT>.json`: the TUF chain; all of
   it or, in a bundle that is not signed yet, none;
3. `payload/<root hash>.zps` for each payload of the manifest, in its order: full patch streams.

The reader goes forward only, keeps the small members and steps over payloads; it extracts nothing by name. Nothing read
here is trusted before its signatures are checked. The same members give the same file, byte by byte.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from zentrid.bundle.manifest import MAX_MANIFEST_BYTES, Manifest, ManifestError, parse_manifest
from zentrid.bundle.patch import max_compressed_bytes
from zentrid.bundle.tree import MAX_PAYLOAD_BYTES, Reader, read_exactly
from zentrid.errors import ZentriError

MANIFEST_NAME: Final = "manifest.json"
TARGETS_NAME: Final = "targets.json"
MAX_METADATA_BYTES: Final = 512 * 1024
"""Of each metadata file; the device takes no larger one from a server either."""
MAX_ROOTS: Final = 256
MAX_STREAM_BYTES: Final = max_compressed_bytes(MAX_PAYLOAD_BYTES) + 64 * 1024 * 1024

_BLOCK_BYTES = 512
_ROOT_PATTERN = re.compile(r"([1-9][0-9]{0,5})\.root\.json", re.ASCII)
_NAME_PATTERN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]{0,98}")
_NUMBER_PATTERN = re.compile(rb"[0-7]{11}[\0 ]")


class BundleError(ZentriError, ValueError):
    """A file that is no usable bundle; `problem` says why."""

    reason = "bad_bundle"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"bundle file: {problem}; copy or download it again, or build it again with scripts/bundle")


class Member(NamedTuple):
    """One member of the tar: its name and where its content lies."""

    name: str
    offset: int
    size_bytes: int


def payload_name(root_hash: str) -> str:
    """Return the member name of the payload with this root hash (hexadecimal)."""
    return f"payload/{root_hash}.zps"


def metadata_order(product: str, names: Mapping[str, object]) -> list[str]:
    """Return metadata file names (`1.root.json`, …) in the file's order; BundleError if the chain is not complete."""
    roots = sorted(int(match[1]) for name in names if (match := _ROOT_PATTERN.fullmatch(name)))
    wanted = [*(f"{number}.root.json" for number in roots), TARGETS_NAME, f"{product}.json"]
    missing = [name for name in wanted if name not in names]
    if missing or not roots:
        raise BundleError(f"the signed chain lacks {missing[0] if missing else 'a root'}")
    if len(roots) > MAX_ROOTS:
        raise BundleError(f"the signed chain has {len(roots)} roots, the limit is {MAX_ROOTS}")
    unknown = sorted(set(names) - set(wanted))
    if unknown:
        raise BundleError(f"{unknown[0][:80]!r} does not belong to the signed chain")
    return wanted


class Writer(Protocol):
    """What a bundle is written to: any binary file opened for writing."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


# --- writing --------------------------------------------------------------------------------------------------------


def write_bundle(
    out: Writer, manifest: bytes, metadata: Mapping[str, bytes], payloads: Mapping[str, BinaryIO | PayloadReader]
) -> Manifest:
    """Write a bundle file to `out` and return its manifest, parsed.

    `metadata` is the chain by file name, or empty; `payloads` has the patch stream for each root hash (hexadecimal): a
    seekable file, from where it stands to its end, or a payload of another bundle. Raises BundleError or ManifestError if
    they do not fit together, or OSError.
    """
    parsed = parse_manifest(manifest)
    names = metadata_order(parsed.product, metadata) if metadata else []
    if set(payloads) != set(parsed.payloads):
        raise BundleError("the payloads are not those that the manifest names")
    # By hand, because tarfile would fill up to 10 KiB: two empty blocks end it, nothing follows.
    _write_member(out, MANIFEST_NAME, manifest)
    for name in names:
        if len(metadata[name]) > MAX_METADATA_BYTES:
            raise BundleError(f"{name} is larger than {MAX_METADATA_BYTES} bytes")
        _write_member(out, f"metadata/{name}", metadata[name])
    for root_hash in parsed.payloads:
        _copy_member(out, payload_name(root_hash), payloads[root_hash])
    out.write(bytes(2 * _BLOCK_BYTES))
    return parsed


def _tar_header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _write_member(out: Writer, name: str, content: bytes) -> None:
    out.write(_tar_header(name, len(content)))
    out.write(content + bytes(-len(content) % _BLOCK_BYTES))


def _copy_member(out: Writer, name: str, payload: BinaryIO | PayloadReader) -> None:
    size_bytes = _bytes_left(payload)
    if not 0 < size_bytes <= MAX_STREAM_BYTES:
        raise BundleError(f"{name} is {size_bytes} bytes long, the limit is {MAX_STREAM_BYTES}")
    out.write(_tar_header(name, size_bytes))
    left = size_bytes
    while left and (part := payload.read(min(left, 1 << 20))):
        out.write(part)
        left -= len(part)
    if left:
        raise BundleError(f"{name} was cut short while it was read")
    out.write(bytes(-size_bytes % _BLOCK_BYTES))


def _bytes_left(payload: BinaryIO | PayloadReader) -> int:
    if isinstance(payload, PayloadReader):
        return payload.left_bytes
    start = payload.tell()
    end = payload.seek(0, io.SEEK_END)
    payload.seek(start)
    return end - start


# --- reading --------------------------------------------------------------------------------------------------------


class PayloadReader:
    """Reads one payload's patch stream out of a bundle file; gives nothing beyond its end."""

    def __init__(self, stream: Reader, name: str, size_bytes: int) -> None:
        self._stream = stream
        self._name = name
        self.size_bytes = size_bytes
        self.left_bytes = size_bytes

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes of the payload; empty at its end. BundleError if the file ends before it."""
        size = self.left_bytes if size < 0 else min(size, self.left_bytes)
        if not size:
            return b""
        part = self._stream.read(size)
        if not part:
            raise BundleError(f"it ends inside {self._name}")
        self.left_bytes -= len(part)
        return part


@dataclass(frozen=True)
class BundleHead:
    """What comes before the payloads."""

    manifest: Manifest
    manifest_bytes: bytes
    """Exactly as in the file: what the signed target's length and hash are of."""
    metadata: Mapping[str, bytes]
    """TUF chain by file name (`1.root.json`, `targets.json`, `<PRODUCT>.json`); empty if the bundle is not signed."""

    @property
    def signed(self) -> bool:
        """Whether the chain is there; says nothing about its signatures."""
        return bool(self.metadata)


class BundleReader:
    """Reads a bundle forward, from any stream: first `head`, then each of `payloads()` once, in order."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._offset = 0
        self.head, self._next = self._read_head()

    @property
    def offset(self) -> int:
        """How many bytes were read so far, payloads included."""
        return self._offset

    def payloads(self) -> Iterator[tuple[Member, PayloadReader]]:
        """Yield each payload; what its reader did not read is passed over. Then make sure that the file ends well."""
        member: Member | None = self._next
        for root_hash in self.head.manifest.payloads:
            wanted = payload_name(root_hash)
            if member is None or member.name != wanted:
                raise BundleError(f"{wanted} is missing where it should be")
            if not 0 < member.size_bytes <= MAX_STREAM_BYTES:
                raise BundleError(f"{wanted} is {member.size_bytes} bytes long, the limit is {MAX_STREAM_BYTES}")
            reader = PayloadReader(self._stream, member.name, member.size_bytes)
            yield member, reader
            self._offset += member.size_bytes - reader.left_bytes
            self._pass_over(reader.left_bytes, member.name)
            self._read_filling(member)
            member = self._next_member()
        if member is not None:
            raise BundleError(f"{member.name[:80]!r} does not belong there")

    def _read(self, size: int, what: str) -> bytes:
        data = read_exactly(self._stream, size)
        if len(data) != size:
            raise BundleError(f"it ends inside {what}")
        self._offset += size
        return data

    def _read_filling(self, member: Member) -> None:
        if any(self._read(-member.size_bytes % _BLOCK_BYTES, member.name)):
            raise BundleError(f"{member.name[:80]} is followed by something")

    def _pass_over(self, size: int, what: str) -> None:
        while size:
            size -= len(self._read(min(size, 1 << 20), what))

    def _next_member(self) -> Member | None:
        """Return the next member, its content not read yet; None at the end mark, after which nothing may follow."""
        block = self._read(_BLOCK_BYTES, "a header")
        if not any(block):
            if any(self._read(_BLOCK_BYTES, "its end mark")) or self._stream.read(1):
                raise BundleError("it goes on after its end")
            return None
        name, size_bytes = _parse_header(block)
        return Member(name, self._offset, size_bytes)

    def _content(self, member: Member, limit_bytes: int) -> bytes:
        if member.size_bytes > limit_bytes:
            raise BundleError(f"{member.name} is {member.size_bytes} bytes long, the limit is {limit_bytes}")
        content = self._read(member.size_bytes, member.name)
        self._read_filling(member)
        return content

    def _read_head(self) -> tuple[BundleHead, Member | None]:
        member = self._next_member()
        if member is None or member.name != MANIFEST_NAME:
            raise BundleError(f"it does not begin with {MANIFEST_NAME}")
        manifest_bytes = self._content(member, MAX_MANIFEST_BYTES)
        try:
            manifest = parse_manifest(manifest_bytes)
        except ManifestError as error:
            raise BundleError(str(error)) from error
        metadata: dict[str, bytes] = {}
        member = self._next_member()
        while member is not None and member.name.startswith("metadata/"):
            name = member.name.removeprefix("metadata/")
            if name in metadata or len(metadata) >= MAX_ROOTS + 2:
                raise BundleError(f"{name[:80]!r} is there twice, or there are too many metadata files")
            metadata[name] = self._content(member, MAX_METADATA_BYTES)
            member = self._next_member()
        if metadata and list(metadata) != metadata_order(manifest.product, metadata):
            raise BundleError("the signed chain is not in its order")
        return BundleHead(manifest, manifest_bytes, metadata), member


def _parse_header(block: bytes) -> tuple[str, int]:
    """Return name and size from one tar header; BundleError for anything but what `write_bundle` writes."""
    size_field = block[124:136]
    if block[257:265] != b"ustar\x0000" or not _NUMBER_PATTERN.fullmatch(size_field):
        raise BundleError("it is no POSIX tar, or is damaged")
    name_field = block[:100].rstrip(b"\0")
    if not _NAME_PATTERN.fullmatch(name_field):
        raise BundleError(f"it has a member with the name {name_field[:80]!r}")
    name = name_field.decode("ascii")
    size_bytes = int(size_field[:11], 8)
    # The one allowed way to write this header: no links, no folders, no owner, no extension, no wrong checksum.
    if block != _tar_header(name, size_bytes):
        raise BundleError(f"the member {name[:80]!r} is no plain file as a bundle has")
    return name, size_bytes


@dataclass(frozen=True)
class Bundle:
    """A bundle file on disk, its head read and all its members found."""

    path: Path
    head: BundleHead
    members: Mapping[str, Member]
    """Payloads by root hash (hexadecimal)."""

    @property
    def manifest(self) -> Manifest:
        """The manifest; unverified."""
        return self.head.manifest

    @property
    def manifest_bytes(self) -> bytes:
        """The manifest exactly as in the file."""
        return self.head.manifest_bytes

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """The TUF chain by file name; unverified, empty if not signed."""
        return self.head.metadata

    @contextmanager
    def open_payload(self, root_hash: str) -> Iterator[PayloadReader]:
        """Open the patch stream of a payload for reading; KeyError for a hash that the manifest does not have."""
        member = self.members[root_hash]
        with self.path.open("rb") as stream:
            stream.seek(member.offset)
            yield PayloadReader(stream, member.name, member.size_bytes)


class SteppingBundleReader(BundleReader):
    """Reads a bundle from where passing over a payload is one step.

    `skip(size)` takes that step; going beyond the end of a file that was cut short is noticed by the next read.
    """

    def __init__(self, stream: Reader, skip: Callable[[int], object]) -> None:
        self._skip = skip
        super().__init__(stream)

    def _pass_over(self, size: int, what: str) -> None:
        self._skip(size)
        self._offset += size


def open_bundle(path: Path) -> Bundle:
    """Read the head of the bundle at `path` and find its payloads. Raises BundleError if it is none, or OSError."""
    with path.open("rb") as stream:
        reader = SteppingBundleReader(stream, lambda size: stream.seek(size, io.SEEK_CUR))
        members = {member.name.removeprefix("payload/").removesuffix(".zps"): member for member, _ in reader.payloads()}
    return Bundle(path, reader.head, members)
