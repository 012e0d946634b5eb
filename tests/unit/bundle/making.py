"""Payloads, streams and releases for the tests of bundles, made with the project's own parts."""

import hashlib
import io
import itertools
from typing import Any

from zentrid.bundle.encode import Encoded, encode_full
from zentrid.bundle.manifest import Item, ItemType, Manifest
from zentrid.bundle.tree import BLOCK_BYTES
from zentrid.core.version import parse_version

PRODUCT = "DEMO-VIRT_SENSOR"


def noise(size_bytes: int, seed: str = "") -> bytes:
    """Return bytes that do not compress, the same for the same seed."""
    parts = (hashlib.sha256(f"{seed}{count}".encode()).digest() for count in itertools.count())
    return b"".join(itertools.islice(parts, -(-size_bytes // 32)))[:size_bytes]


def block(number: int) -> bytes:
    """Return one block that differs from the others and compresses well."""
    return number.to_bytes(4, "big") * (BLOCK_BYTES // 4)


def full(payload: bytes, **options: Any) -> tuple[Encoded, bytes]:
    """Return what `encode_full` says and writes."""
    out = io.BytesIO()
    return encode_full(io.BytesIO(payload), out, **options), out.getvalue()


def item(payload: bytes = b"x", item_type: ItemType = "rootfs", name: str | None = None, **fields: Any) -> Item:
    """Return the item of a payload."""
    encoded, _ = full(payload)
    return Item(item_type, name or item_type, len(payload), encoded.tree.root.hex(), **fields)


def manifest(*items: Item, version: str = "1.2.3", **fields: Any) -> Manifest:
    """Return a manifest of the demonstration product."""
    fields = {"product": PRODUCT, "compatible": ("virt",), **fields}
    return Manifest(version=parse_version(version), items=items or (item(),), **fields)
