"""Changes that keep checksums and lengths right: what the fuzzer changes would else never be read.

Each mutator takes an input, a function that changes bytes at random, and dice.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import zstandard

from tests.fuzz import signed
from tests.unit.bundle.streams import BASE
from zentrid.bundle.patch import PatchError, PatchHeader
from zentrid.bundle.runs import RunError, expand_runs
from zentrid.bundle.tree import HASH_BYTES, HashTree, TreeError
from zentrid.core.names import BOOTSTATE_COPY_BYTES

Change = Callable[[bytes], bytes]
_BLOCK: Final = 512
_TARGET_ROOT_AT: Final = 40


def boot_state(data: bytes, change: Change, _dice: random.Random) -> bytes:
    """Change the text of a copy, and make length and checksum right."""
    body = change(data[4:].rstrip(b"\0") or b"seq=1")
    body = body[: BOOTSTATE_COPY_BYTES - 4].ljust(BOOTSTATE_COPY_BYTES - 4, b"\0")
    return zlib.crc32(body).to_bytes(4, "little") + body


def bundle(data: bytes, change: Change, _dice: random.Random) -> bytes:
    """Change a bundle, and make the checksums of all its tar headers right."""
    changed = bytearray(change(data))
    for start in range(0, len(changed) - _BLOCK + 1, _BLOCK):
        if changed[start + 257 : start + 262] == b"ustar":
            changed[start + 148 : start + 156] = b" " * 8
            changed[start + 148 : start + 156] = b"%06o\0 " % sum(changed[start : start + _BLOCK])
    return bytes(changed)


def patch(data: bytes, change: Change, dice: random.Random) -> bytes:
    """Change the header, the run list, a hash, or what a frame holds, and make lengths and the target's root right."""
    try:
        header = PatchHeader.parse(data)
    except PatchError:
        return change(data)
    leaf_end = header.leaf_offset + header.leaf_bytes
    runs_end = leaf_end - header.missing * HASH_BYTES
    choice = dice.random()
    if choice < 0.3:
        return change(data[: header.leaf_offset]) + data[header.leaf_offset :]
    if choice < 0.6:
        return _with_root(_repacked(data, header, header.leaf_offset, runs_end, change))
    if choice < 0.7:
        return _with_root(data[:runs_end] + change(data[runs_end:leaf_end])[: leaf_end - runs_end] + data[leaf_end:])
    if not header.frames:
        return change(data)
    frame = dice.choice(header.frames)
    return _repacked(data, header, frame.offset, frame.offset + frame.compressed_bytes, change)


def _repacked(data: bytes, header: PatchHeader, start: int, end: int, change: Change) -> bytes:
    """Change what the zstd frame from `start` to `end` holds, and put its new length where the old one was."""
    try:
        plain = unpacked(data[start:end], 1 << 20)
    except zstandard.ZstdError:  # it has a dictionary, or claims too much
        return data[:start] + change(data[start:end]) + data[end:]
    packed = zstandard.ZstdCompressor(level=1).compress(change(plain))
    old, new = struct.pack(">I", end - start), struct.pack(">I", len(packed))
    return data[: header.leaf_offset].replace(old, new, 1) + data[header.leaf_offset : start] + packed + data[end:]


def unpacked(frame: bytes, most_bytes: int) -> bytes:
    """Return what a zstd frame holds. Raises ZstdError, also for a changed frame that claims more than there is memory."""
    if zstandard.frame_content_size(frame) > most_bytes:
        raise zstandard.ZstdError("it claims too much")
    return zstandard.ZstdDecompressor().decompress(frame, max_output_size=most_bytes)


def _with_root(data: bytes) -> bytes:
    """Put the root of the tree that the leaf section gives into the header."""
    try:
        header = PatchHeader.parse(data)
        base = None if header.from_nothing else HashTree.from_reader(io.BytesIO(BASE))
        runs_end = header.leaf_offset + header.leaf_bytes - header.missing * HASH_BYTES
        runs = unpacked(data[header.leaf_offset : runs_end], 1 << 16)
        hashes = data[runs_end : header.leaf_offset + header.leaf_bytes]
        leaves = expand_runs(runs, hashes, min(header.target_blocks, 4000), base)
        root = HashTree(leaves).root
    except (PatchError, RunError, TreeError, zstandard.ZstdError):
        return data
    return data[:_TARGET_ROOT_AT] + root + data[_TARGET_ROOT_AT + HASH_BYTES :]


_VALUES: Final[tuple[object, ...]] = (
    None, True, False, 0, 1, -1, 2, 1 << 31, 1 << 64, 10**400, 1.5, "", "x", "1.1.0", "a" * 300, "\ud800", "\0", "../x",
    [], [[]], {}, {"": ""}, "2026-13-01T00:00:00Z", "9999-12-31T23:59:59Z", "0" * 64, [1, 1], ["root"] * 3,
)  # fmt: skip


def _json_changed(data: bytes, dice: random.Random) -> bytes | None:
    """Change one place in a JSON document: another value, one that stands elsewhere, or nothing; None: it is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    places = list(_places(document))
    if not places:
        return None
    for _ in range(dice.randrange(1, 3)):
        holder, key = dice.choice(places)
        value = dice.choice((*_VALUES, *(other[name] for other, name in places if name in _names(other))))
        if key not in _names(holder):
            continue
        choice = dice.random()
        if choice < 0.2:
            del holder[key]
        elif choice < 0.3 and isinstance(holder, dict):
            holder[dice.choice(("", "x", "version", "keyids", "_type"))] = copy.deepcopy(value)
        else:
            holder[key] = copy.deepcopy(value)
    # As the files are written: in one way, sorted and without blanks.
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=dice.random() < 0.1)
    return text.encode("utf-8", "surrogatepass")


def _names(holder: Any) -> Iterable[Any]:
    return range(len(holder)) if isinstance(holder, list) else holder


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (dict, list)):
        for key in list(_names(value)):
            yield value, key
            yield from _places(value[key])


def json_file(data: bytes, change: Change, dice: random.Random) -> bytes:
    """Change a JSON document in one of its places, or its bytes."""
    changed = _json_changed(data, dice) if dice.random() < 0.7 else None
    return change(data) if changed is None else changed


def signed_metadata(data: bytes, change: Change, dice: random.Random) -> bytes:
    """Change one of the files, and have it signed again most of the time."""
    flags, files = signed.unpack(data)
    number = dice.randrange(len(files))
    files[number] = json_file(files[number], change, dice)
    if dice.random() < 0.7:
        flags |= 1 << number
    if dice.random() < 0.2:
        flags ^= dice.choice((signed.ONLINE, signed.LINK))
    return signed.pack(flags & 0xFF, files)


MUTATORS: Final[dict[str, Callable[[bytes, Change, random.Random], bytes]]] = {
    "boot_state": boot_state,
    "bundle": bundle,
    "manifest": json_file,
    "worker_line": json_file,
    "patch": patch,
    "signed_metadata": signed_metadata,
    "web_app_list": json_file,
}
