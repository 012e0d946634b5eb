"""The device's files: what a name may be, what is kept about each, and how much room all of them may take. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.names import MIB
from zentrid.errors import ZentriError

MAX_NAME_CHARS: Final = 120
MAX_DEPTH: Final = 8
"""Parts of a name, which `/` separates."""
MAX_FILES: Final = 512
MAX_FILE_BYTES: Final = 32 * MIB
MAX_TOTAL_BYTES: Final = 64 * MIB
"""All files together, those on their way included."""
RESERVE_BYTES: Final = 32 * MIB
"""Stays free on the data partition for updates, settings and reports."""
RESERVE_INODES: Final = 1024
MAX_META_BYTES: Final = 256

DEFAULT_VERSION: Final = "1.0.0"
DEFAULT_TYPE: Final = 0xFE
FLAG_VALID: Final = 0x0001
"""Set for every file that can be listed: one that is not whole cannot be."""
FLAG_ESSENTIAL: Final = 0x0010
FLAG_USER: Final = 0x0020
_BLOCK_BYTES: Final = 4096
"""What file systems give room in."""
_KNOWN_FLAGS: Final = FLAG_ESSENTIAL | FLAG_USER

_PART: Final = re.compile(r"[A-Za-z0-9_+@=~][A-Za-z0-9._+@=~-]*", re.ASCII)
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,31}", re.ASCII)
_HEX: Final = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{1,4})", re.ASCII)


class FileError(ZentriError):
    """A file cannot be read, written or removed; the sentence says why and what to do."""

    reason = "file"


@dataclass(frozen=True)
class FileMeta:
    """What is kept about a file besides its bytes."""

    version: str = DEFAULT_VERSION
    type: int = DEFAULT_TYPE
    """0 to 255; means something to whoever uses the file, nothing to the device."""
    flags: int = 0
    """FLAG_ESSENTIAL, FLAG_USER."""
    crc: int | None = None
    """CRC-16 of the bytes; None: not known."""

    @property
    def essential(self) -> bool:
        """Whether it is not deleted by mistake."""
        return bool(self.flags & FLAG_ESSENTIAL)

    def to_bytes(self) -> bytes:
        """Return it as it is stored with the file."""
        return json.dumps([self.version, self.type, self.flags, self.crc]).encode()


def parse_meta(data: bytes) -> FileMeta:
    """Return what is stored with a file; the defaults for anything that this version does not understand."""
    if len(data) > MAX_META_BYTES:
        return FileMeta()
    try:
        version, kind, flags, crc = json.loads(data)
        sound = (
            bool(_VERSION.fullmatch(version))
            and _is_number(kind, 0xFF)
            and _is_number(flags, 0xFFFF)
            and (crc is None or _is_number(crc, 0xFFFF))
        )
    except (ValueError, TypeError, RecursionError):
        return FileMeta()
    return FileMeta(version, kind, flags & _KNOWN_FLAGS, crc) if sound else FileMeta()


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


@dataclass(frozen=True)
class FileInfo:
    """One file that is there."""

    name: str
    size_bytes: int
    meta: FileMeta = FileMeta()

    @property
    def flags(self) -> int:
        """The flags as `ls` shows them."""
        return FLAG_VALID | self.meta.flags


# --- what is typed ------------------------------------------------------------------------------------------------------
def check_name(name: str) -> str:
    """Return a file's name if it is one: relative, plain characters, no part that leads elsewhere. Raises CommandError."""
    parts = name.split("/")
    if len(name) > MAX_NAME_CHARS or len(parts) > MAX_DEPTH:
        raise CommandError(
            Code.BAD_ARGUMENT,
            f"A name has at most {MAX_NAME_CHARS} characters and {MAX_DEPTH} parts; use a shorter one.",
        )
    if not all(_PART.fullmatch(part) for part in parts):
        raise CommandError(
            Code.BAD_ARGUMENT,
            f"'{name}' is no name of a file: use letters, digits and . _ - + @ = ~, with / between folders; no part "
            "begins with a dot or a dash.",
        )
    return name


def check_version(text: str) -> str:
    """Return a file's version. Raises CommandError."""
    if not _VERSION.fullmatch(text):
        raise CommandError(Code.BAD_ARGUMENT, f"'{text}' is no version: use up to 32 letters, digits and . + - _.")
    return text


def parse_type(text: str) -> int:
    """Return a file's type, which is written in hexadecimal. Raises CommandError."""
    number = _parse_hex(text, "type")
    if number > 0xFF:
        raise CommandError(Code.OUT_OF_BOUNDS, "The type is 0 to FF, in hexadecimal.")
    return number


def parse_crc(text: str) -> int:
    """Return a checksum, which is written in hexadecimal. Raises CommandError."""
    return _parse_hex(text, "CRC")


def _parse_hex(text: str, what: str) -> int:
    match = _HEX.fullmatch(text)
    if not match:
        raise CommandError(Code.BAD_ARGUMENT, f"'{text}' is no {what}: write it in hexadecimal, as FE or 0x6F91.")
    return int(match[1], 16)


# --- room ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Room:
    """What there is, and what the file system has left."""

    files: int
    total_bytes: int
    """Of all files, whole ones and those on their way."""
    free_bytes: int
    free_inodes: int


def check_room(room: Room, size_bytes: int) -> None:
    """Refuse another file, of `size_bytes`, that would take too much. Raises FileError."""
    if room.files >= MAX_FILES:
        raise FileError(f"There are {MAX_FILES} files already; delete one with 'file_delete'.")
    if room.free_inodes <= RESERVE_INODES:
        raise FileError("The data partition has no room for another file; delete some.")
    check_growth(room, 0, size_bytes)


def check_growth(room: Room, size_bytes: int, more_bytes: int) -> None:
    """Refuse to let a file of `size_bytes` grow by `more_bytes`. Raises FileError."""
    if size_bytes + more_bytes > MAX_FILE_BYTES:
        raise FileError(f"A file has at most {MAX_FILE_BYTES} bytes; send a smaller one, or several.")
    left = min(MAX_TOTAL_BYTES - room.total_bytes, room.free_bytes - RESERVE_BYTES)
    if more_bytes > left:
        raise FileError(
            f"There is room for {max(left, 0)} bytes more; delete a file ('ls -v' shows their sizes). Updates need the rest."
        )


def check_change(room: Room, present: Mapping[str, int], gone: Collection[str], new: Mapping[str, int]) -> None:
    """Refuse a change of many files that could not be gone through with. Raises FileError.

    First the files in `gone` go, then those in `new` come, one after the other, each in place of the one of its name, if there is
    one. By name and size in bytes, as in `present`.
    """
    stay = {name: size_bytes for name, size_bytes in present.items() if name not in gone}
    room = _with(room, -(len(present) - len(stay)), [-size for name, size in present.items() if name in gone])
    names = {*stay, *new}
    for name, size_bytes in new.items():
        for above in _above(name):
            if above in names:
                raise FileError(f"'{above}' is a file, so nothing can be below it; delete it, or choose another name.")
        check_room(room, size_bytes)
        room = _with(room, name not in stay, [size_bytes, -stay.get(name, 0)])
    below = next((name for name in stay if not new.keys().isdisjoint(_above(name))), None)
    if below is not None:
        raise FileError(f"'{below}' is in a folder where a file is to be; delete it, or choose another name.")


def _with(room: Room, more_files: int, sizes_bytes: Collection[int]) -> Room:
    taken_bytes = sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES for size in sizes_bytes)
    return replace(
        room,
        files=room.files + more_files,
        total_bytes=room.total_bytes + sum(sizes_bytes),
        free_bytes=room.free_bytes - taken_bytes,
        free_inodes=room.free_inodes - more_files,
    )


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
