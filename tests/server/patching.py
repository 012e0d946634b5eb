"""What tests of patches share: payloads that resemble each other, waiting for patches, undoing them, stopping workers."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dms_server.patches.encoder import encode_patch
from dms_server.patches.verify import block_at
from tests.server.helpers import PRODUCT, Answer, Device, Dms, Person
from tests.server.making import Publisher, payload
from zentrid.bundle.patch import PatchHeader, decode_frame, missing_blocks, unpack_full, vanished_blocks, window_places
from zentrid.bundle.tree import BLOCK_BYTES, HashTree

SIZE_BYTES = 400_001
DEADLINE_S = 90.0


def release(number: int, name: str = "base", size_bytes: int = SIZE_BYTES) -> bytes:
    """Return a payload of which every release changes a little in every tenth block."""
    data = bytearray(payload(name, size_bytes))
    for start in range(0, size_bytes - 64, 10 * BLOCK_BYTES):
        data[start : start + 8] = number.to_bytes(8, "big")
    return bytes(data)


def root_of(content: bytes) -> str:
    """Return a payload's root hash."""
    return HashTree.from_reader(io.BytesIO(content)).root.hex()


async def eventually(check: Callable[[], Awaitable[Any]], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return what `check` returns once that is true."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while True:
        found = await check()
        if found:
            return found
        assert loop.time() < end_s, f"not in time: {what}"
        await asyncio.sleep(0.05)


async def publish_releases(owner: Person, publisher: Publisher, *numbers: int, tag: str | None = None) -> None:
    """Publish releases 1.<number>.0, each with one payload, `release(number)`."""
    for number in numbers:
        data = publisher.make(f"1.{number}.0", {"rootfs": release(number)})
        answer = await owner.api("POST", "bundles", data=data)
        assert answer.status == 201, answer.body
        if tag is not None:
            await owner.api("POST", f"bundles/{PRODUCT}/1.{number}.0/tag", json={"tag": tag})


async def patches_of(owner: Person, number: int) -> dict[str, dict[str, Any]]:
    """Return the patches to a release's payload by the first version that each is from."""
    answer = await owner.api("GET", f"bundles/{PRODUCT}/1.{number}.0")
    assert answer.status == 200
    return {patch["from"][0]: patch for patch in answer.body["items"][0]["patches"]}


async def settled(owner: Person, number: int) -> dict[str, dict[str, Any]]:
    """Return the patches to a release when none of them waits or is made any more."""

    async def check() -> dict[str, dict[str, Any]] | None:
        found = await patches_of(owner, number)
        return found if not any(patch["state"] in ("queued", "making") for patch in found.values()) else None

    result: dict[str, dict[str, Any]] = await eventually(check, f"patches to 1.{number}.0")
    return result


def path_of(number: int, base: int | None) -> str:
    """Return the address of a release's payload from another one's."""
    return f"payload/{root_of(release(number))}?base={'none' if base is None else root_of(release(base))}"


async def stream_of(device: Device, number: int, base: int | None) -> Answer:
    """Ask for a payload until it is no longer being made."""

    async def check() -> Answer | None:
        answer = await device.get(path_of(number, base))
        return answer if answer.status != 503 else None

    result: Answer = await eventually(check, f"patch from {base} to {number}")
    return result


def apply(stream: bytes, base: bytes, target_bytes: int) -> bytes:
    """Return the payload that a stream, a patch or a full one, makes out of `base`."""
    header = PatchHeader.parse(stream)
    if header.from_nothing:
        return unpacked(stream, target_bytes)
    old = io.BytesIO(base)
    base_tree = HashTree.from_reader(old)
    tree = header.decode_leaves(stream[header.leaf_offset :][: header.leaf_bytes], base_tree)
    missing, vanished = missing_blocks(tree, base_tree), vanished_blocks(tree, base_tree)
    blocks = {base_tree.leaf(index): block_at(old, index) for index in range(base_tree.n_blocks)}
    for index, frame in enumerate(header.frames):
        data = stream[frame.offset : frame.offset + frame.compressed_bytes]
        places = window_places(header, index, missing, vanished)
        leaves = [base_tree.leaf(place.index) if place.in_base else tree.leaf(place.index) for place in places]
        made = decode_frame(header, index, data, b"".join(blocks[leaf] for leaf in leaves))
        for ordinal, block in enumerate(made, start=frame.first):
            blocks[tree.leaf(missing[ordinal])] = block
    return b"".join(blocks[tree.leaf(index)] for index in range(tree.n_blocks))[:target_bytes]


def unpacked(stream: bytes, target_bytes: int) -> bytes:
    """Return the payload of a full stream."""
    image = bytearray(target_bytes + BLOCK_BYTES)

    def write(offset: int, block: bytes) -> None:
        image[offset : offset + len(block)] = block

    unpack_full(io.BytesIO(stream), PatchHeader.parse(stream).target_root, target_bytes, write)
    return bytes(image[:target_bytes])


def encoded(base: bytes, target: bytes) -> bytes:
    """Return a patch."""
    out = io.BytesIO()
    encode_patch(io.BytesIO(base), io.BytesIO(target), out)
    return out.getvalue()


def workers(parent: int) -> list[int]:
    """Return the processes that make patches for a server."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"dms_server.patches.child" in (folder / "cmdline").read_bytes():
                parent_found = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                found += [int(folder.name)] if parent_found == parent else []
        except OSError:
            continue
    return found


async def stop_worker(parent: int | None = None) -> int:
    """Halt the next process that makes a patch as soon as it is there; return its id."""

    async def check() -> int | None:
        found = await asyncio.to_thread(workers, parent or os.getpid())
        return found[0] if found else None

    pid: int = await eventually(check, "a worker")
    os.kill(pid, signal.SIGSTOP)
    return pid


async def files_in(dms: Dms) -> list[str]:
    """Return the names of all files in the cache."""
    folder = dms.settings.data / "patches"
    return await asyncio.to_thread(lambda: sorted(path.name for path in folder.rglob("*") if path.is_file()))
