"""Plays the attacker on the lab's own server: flips single bits where a device will look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.image.release import root_of
from scripts.lab.dms import LabDms
from scripts.lab.world import FACTORY_VERSION, World
from zentrid.bundle.patch import PatchHeader, missing_blocks


@dataclass(frozen=True)
class Target:
    """One bit that can be flipped: what it belongs to, the file, the byte's offset."""

    what: str
    path: Path
    offset: int


def targets(world: World, dms: LabDms, version: str, installed: tuple[str, ...]) -> list[Target]:
    """Return a bit of the manifest, of the hash tree, and of a payload frame that a device with `installed` fetches."""
    manifest = next(dms.data.rglob(f"*/{version}/*.manifest.json"))
    items = json.loads(manifest.read_text())["items"]
    root = next(item["root_hash"] for item in items if item["type"] == "rootfs")
    payload = next(dms.data.rglob(f"{root}.zps"))
    with payload.open("rb") as stream:
        header = PatchHeader.read(stream)
    return [
        Target("manifest", manifest, 40),
        Target("hash tree", payload, header.leaf_offset + header.leaf_bytes // 2),
        Target("payload", payload, _offset_of_new_block(world, header, version, installed)),
    ]


def _offset_of_new_block(world: World, header: PatchHeader, version: str, installed: tuple[str, ...]) -> int:
    """Return an offset inside the frame of a block that none of the installed releases has.

    A device copies the blocks that it has already; damage in frames that it never fetches is none of its business.
    """
    known: set[bytes] = set()
    for other in (FACTORY_VERSION, *installed):
        tree = root_of(world.builder.release(world.spec(other)))
        known |= {tree.leaf(n) for n in range(tree.n_blocks)}
    target = root_of(world.builder.release(world.spec(version)))
    ordinal = next(n for n, block in enumerate(missing_blocks(target)) if target.leaf(block) not in known)
    frame = next(f for f in header.frames if f.first <= ordinal < f.first + f.blocks)
    return frame.offset + frame.compressed_bytes // 2


@contextmanager
def flipped_bit(target: Target) -> Iterator[None]:
    """Turn one bit of a file over, and back again at the end."""
    _flip(target)
    try:
        yield
    finally:
        _flip(target)


def _flip(target: Target) -> None:
    with target.path.open("r+b") as stream:
        stream.seek(target.offset)
        (old,) = stream.read(1)
        stream.seek(target.offset)
        stream.write(bytes([old ^ 1]))
