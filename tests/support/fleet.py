"""A fleet in a folder: certificates, signed metadata and small releases, made with the project's own tools."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # not listed by the package
from tuf.api.metadata import Metadata, Targets  # type: ignore[attr-defined]  # the same

from scripts.bundle_tool import tufrepo
from scripts.provision_tool import pki
from zentrid.bundle.encode import Frame, compress, encode_full, write_stream
from zentrid.bundle.layout import Space, Window
from zentrid.bundle.manifest import Item, Manifest
from zentrid.bundle.patch import missing_blocks, vanished_blocks
from zentrid.bundle.tree import BLOCK_BYTES, HashTree
from zentrid.bundle.zbfile import write_bundle
from zentrid.core import names
from zentrid.core.version import Version, encode_version, parse_version

PRODUCT = "DEMO-VIRT_SENSOR"
BOARD = "virt"
UUID = "6f1e3c52-2d7d-4a0e-9a56-0c9a3b8f7d11"
ROOTFS_BLOCKS = 700
KERNEL_BLOCKS = 40


def _property(strings: bytearray, name: str, value: bytes) -> bytes:
    offset = len(strings)
    strings += name.encode() + b"\0"
    return struct.pack(">3I", 3, len(value), offset) + value + bytes(-len(value) % 4)


def _node(name: str, *content: bytes) -> bytes:
    raw = name.encode() + b"\0"
    return struct.pack(">I", 1) + raw + bytes(-len(raw) % 4) + b"".join(content) + struct.pack(">I", 2)


def bootargs(slot: names.SlotName, root_hash: str, blocks: int) -> str:
    part = f"PARTUUID={names.partition(f'rootfs_{slot}').partuuid}"
    table = f"rootfs,,,ro,0 {blocks * 8} verity 1 {part} {part} 4096 4096 {blocks} {blocks} sha256 {root_hash} - 1 x"
    return f'console=ttyAMA0 dm-mod.waitfor={part} dm-mod.create="{table}"'


def make_fit(
    version: Version, tree: HashTree, kernel: bytes, slots: Sequence[names.SlotName] = ("a", "b", "r")
) -> bytes:
    """A flattened devicetree of the same shape as the board's FIT, without signatures."""
    strings = bytearray()
    number = struct.pack(">I", encode_version(version))
    configurations = [
        _node(
            f"conf-{slot}",
            _property(strings, "bootargs", bootargs(slot, tree.root.hex(), tree.n_blocks).encode() + b"\0"),
            _property(strings, names.FIT_VERSION_PROPERTY, number),
        )
        for slot in slots
    ]
    body = _node(
        "",
        _node("images", _node("kernel", _property(strings, "data", kernel))),
        _node("configurations", *configurations),
    ) + struct.pack(">I", 9)
    total = 56 + len(body) + len(strings)
    header = struct.pack(">10I", 0xD00DFEED, total, 56, 56 + len(body), 40, 17, 16, 0, len(strings), len(body))
    return header + bytes(16) + body + bytes(strings)


@dataclass(frozen=True)
class Release:
    """One release: its images, its manifest, its patch streams by root hash."""

    manifest: Manifest
    kernel: bytes
    rootfs: bytes
    streams: dict[str, bytes]
    tree: HashTree

    @property
    def version(self) -> str:
        return str(self.manifest.version)


def make_rootfs(seed: int, blocks: int = ROOTFS_BLOCKS, changed: int = 0) -> bytes:
    """Blocks of noise, some of them equal; `changed` of them differ from those of the same seed without changes."""
    noise = random.Random(seed)
    made = [noise.randbytes(BLOCK_BYTES) for _ in range(blocks)]
    for index in range(10, 30):
        made[index * 7] = bytes(BLOCK_BYTES)
    other = random.Random(seed + 1000 + changed)
    for index in other.sample(range(blocks), changed):
        made[index] = other.randbytes(BLOCK_BYTES)
    return b"".join(made)


def make_release(
    version: str,
    rootfs: bytes | None = None,
    *,
    product: str = PRODUCT,
    compatible: tuple[str, ...] = (BOARD,),
    min_version: str | None = None,
    boot_floor: str | None = None,
    downgrade_to: str | None = None,
    fit_version: str | None = None,
    fit_tree: HashTree | None = None,
) -> Release:
    rootfs = make_rootfs(1, changed=60) if rootfs is None else rootfs
    tree = HashTree.from_reader(io.BytesIO(rootfs))
    kernel_image = random.Random(version).randbytes(KERNEL_BLOCKS * BLOCK_BYTES - 1234)
    kernel = make_fit(parse_version(fit_version or version), fit_tree or tree, kernel_image)
    kernel_tree = HashTree.from_reader(io.BytesIO(kernel))
    streams = {}
    for payload, payload_tree in ((kernel, kernel_tree), (rootfs, tree)):
        out = io.BytesIO()
        encode_full(io.BytesIO(payload), out, level=1)
        streams[payload_tree.root.hex()] = out.getvalue()
    manifest = Manifest(
        product=product,
        version=parse_version(version),
        compatible=compatible,
        items=(
            Item(type="kernel", name="kernel", size_bytes=len(kernel), root_hash=kernel_tree.root.hex()),
            Item(type="rootfs", name="rootfs", size_bytes=len(rootfs), root_hash=tree.root.hex()),
        ),
        min_version=parse_version(min_version) if min_version else None,
        boot_floor=parse_version(boot_floor) if boot_floor else None,
        allow_downgrade_to=parse_version(downgrade_to) if downgrade_to else None,
    )
    return Release(manifest, kernel, rootfs, streams, tree)


def patch_between(old: Release, new: Release) -> bytes:
    """A patch whose frames use the vanished blocks as their dictionaries."""
    missing, vanished = missing_blocks(new.tree, old.tree), vanished_blocks(new.tree, old.tree)
    dictionary = b"".join(old.rootfs[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES] for n in vanished)
    windows = (Window(Space.VANISHED, 0, len(vanished)),) if vanished else ()
    frames = []
    for first in range(0, len(missing), 16):
        part = missing[first : first + 16]
        plain = b"".join(new.rootfs[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES] for n in part)
        frames.append(Frame(len(part), compress(plain, 3, dictionary), windows))
    out = io.BytesIO()
    write_stream(out, new.tree, old.tree, missing, frames)
    return out.getvalue()


@dataclass
class Fleet:
    """All keys, and what the server would serve."""

    folder: Path
    metadata: dict[str, bytes] = field(default_factory=dict)
    targets: dict[str, bytes] = field(default_factory=dict)
    payloads: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {
            name: CryptoSigner.generate_ed25519() for name in ("root", "targets", "snapshot", "timestamp", PRODUCT)
        }
        self.root = tufrepo.new_root(
            root=[self.keys["root"]],
            targets=[self.keys["targets"].public_key],
            snapshot=[self.keys["snapshot"].public_key],
            timestamp=[self.keys["timestamp"].public_key],
        )
        self.roots = [self.root.to_bytes()]
        first = tufrepo.new_targets([self.keys["targets"]])
        self.top = tufrepo.delegate(first, PRODUCT, [self.keys[PRODUCT].public_key], [self.keys["targets"]])
        self.delegated: Metadata[Targets] | None = None
        self.version = 0
        self._make_certificates()
        self._make_identity(self.identity_dir, UUID)

    @property
    def identity_dir(self) -> Path:
        return self.folder / "identity"

    def _make_certificates(self) -> None:
        self.device_ca = pki.new_authority("Device CA")
        self.server_ca = pki.new_authority("DMS CA")
        key = pki.new_key()
        certificate = pki.server_certificate(self.server_ca, key.public_key())
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "dms.pem").write_bytes(pki.key_pem(key) + pki.certificate_pem(certificate))
        (self.folder / "device_ca.crt").write_bytes(pki.certificate_pem(self.device_ca.certificate))

    def _make_identity(self, folder: Path, uuid: str) -> None:
        folder.mkdir(parents=True)
        key = pki.new_key()
        certificate = pki.device_certificate(self.device_ca, uuid, key.public_key())
        (folder / "device.key").write_bytes(pki.key_pem(key))
        (folder / "device.crt").write_bytes(pki.certificate_pem(certificate))
        (folder / "dms_ca.crt").write_bytes(pki.certificate_pem(self.server_ca.certificate))
        (folder / "root.json").write_bytes(self.roots[0])

    def sign(self, release: Release) -> Release:
        """Add a release to the product's signed role; it is not on the server yet."""
        self.delegated = tufrepo.add_release(self.delegated, release.manifest, [self.keys[PRODUCT]])
        return release

    def publish(self, *releases: Release) -> None:
        """Sign the releases and put everything on the server."""
        for release in releases:
            self.sign(release)
            data = release.manifest.to_bytes()
            self.targets[tufrepo.served_target_name(release.manifest.target_path, data)] = data
            self.payloads |= release.streams
        self.serve()

    def serve(self, now: datetime | None = None) -> None:
        """Make and serve a new snapshot and timestamp."""
        self.version += 1
        top = self.top.to_bytes()
        delegated = {} if self.delegated is None else {PRODUCT: self.delegated.to_bytes()}
        snapshot = tufrepo.new_snapshot(
            top, delegated, [self.keys["snapshot"]], version=self.version, now=now
        ).to_bytes()
        timestamp = tufrepo.new_timestamp(snapshot, [self.keys["timestamp"]], version=self.version, now=now).to_bytes()
        self.metadata["timestamp.json"] = timestamp
        self.metadata[f"{self.version}.snapshot.json"] = snapshot
        self.metadata[f"{self.top.signed.version}.targets.json"] = top
        if self.delegated is not None:
            self.metadata[f"{self.delegated.signed.version}.{PRODUCT}.json"] = delegated[PRODUCT]
        for number, root in enumerate(self.roots, 1):
            self.metadata[f"{number}.root.json"] = root

    def serve_expired(self) -> None:
        """Serve a timestamp that ran out yesterday."""
        self.serve(datetime.now(UTC) - timedelta(days=3))

    def rotate_root(self) -> None:
        """Replace the root key by a new one, as its owner would."""
        new = CryptoSigner.generate_ed25519()
        self.root = tufrepo.next_root(self.root, [self.keys["root"], new], roles={"root": ([new.public_key], 1)})
        self.keys["root"] = new
        self.roots.append(self.root.to_bytes())

    def replace_release_key(self) -> None:
        """Take the release key away and give the product to a new one."""
        new = CryptoSigner.generate_ed25519()
        self.top = tufrepo.delegate(self.top, PRODUCT, [new.public_key], [self.keys["targets"]])
        self.keys[PRODUCT] = new
        if self.delegated is not None:
            tufrepo.sign(self.delegated, [new])

    def bundle(self, release: Release, path: Path) -> Path:
        """Write a signed bundle file."""
        self.sign(release)
        assert self.delegated is not None
        chain = {f"{number}.root.json": root for number, root in enumerate(self.roots, 1)}
        chain |= {"targets.json": self.top.to_bytes(), f"{PRODUCT}.json": self.delegated.to_bytes()}
        with path.open("wb") as out:
            payloads = {root: io.BytesIO(stream) for root, stream in release.streams.items()}
            write_bundle(out, release.manifest.to_bytes(), chain, payloads)
        return path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()
