"""Changes that keep checksums and lengths right: what the fuzzer changes would else never be read.

`repair(target, data)` returns the input with its checksums made right; `parts(target, data)` the places where a change is
worth while, for inputs that are made of several files.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Final

import zstandard

from tests.fuzz import signed
from zentrid.bundle.patch import PatchError, PatchHeader
from zentrid.core.names import BOOTSTATE_COPY_BYTES

Change = Callable[[bytes], bytes]
_BLOCK: Final = 512


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
    """Change the header, or what one frame holds: it is compressed again, its new length put where the old one was."""
    try:
        header = PatchHeader.parse(data)
    except PatchError:
        return change(data)
    if not header.frames or dice.random() < 0.4:
        return change(data[: header.leaf_offset]) + data[header.leaf_offset :]
    frame = dice.choice(header.frames)
    end = frame.offset + frame.compressed_bytes
    try:
        plain = zstandard.ZstdDecompressor().decompress(data[frame.offset : end], max_output_size=1 << 20)
    except zstandard.ZstdError:
        return change(data)
    packed = zstandard.ZstdCompressor(level=1).compress(change(plain))
    head = data[: header.leaf_offset].replace(
        struct.pack(">I", frame.compressed_bytes), struct.pack(">I", len(packed)), 1
    )
    return head + data[header.leaf_offset : frame.offset] + packed + data[end:]


def signed_metadata(data: bytes, change: Change, dice: random.Random) -> bytes:
    """Change one of the files, and have it signed again most of the time."""
    flags, files = signed.unpack(data)
    number = dice.randrange(len(files))
    files[number] = change(files[number])
    if dice.random() < 0.7:
        flags |= 1 << number
    if dice.random() < 0.2:
        flags ^= dice.choice((signed.ONLINE, signed.LINK))
    return signed.pack(flags & 0xFF, files)


MUTATORS: Final[dict[str, Callable[[bytes, Change, random.Random], bytes]]] = {
    "boot_state": boot_state,
    "bundle": bundle,
    "patch": patch,
    "signed_metadata": signed_metadata,
}
