"""Makes a disk image with the board's partitions, all of them empty: a GUID partition table written by hand."""

import struct
import zlib
from pathlib import Path
from uuid import UUID

from zentrid.core.names import MIB, PARTITIONS

SECTOR_BYTES = 512
LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def gpt_head(partitions: list[tuple[str, str, int, int]], sectors: int) -> bytes:
    """Return the first 34 sectors. `partitions`: label, GUID, first sector, number of sectors."""
    entries = b"".join(
        struct.pack(
            "<16s16sQQQ72s", LINUX.bytes_le, UUID(guid).bytes_le, first, first + count - 1, 0, label.encode("utf-16-le")
        )
        for label, guid, first, count in partitions
    ).ljust(128 * 128, b"\0")
    fields = [
        b"EFI PART",
        0x10000,
        92,
        0,
        0,
        1,
        sectors - 1,
        34,
        sectors - 34,
        bytes(16),
        2,
        128,
        128,
        zlib.crc32(entries),
    ]
    layout = "<8sIIIIQQQQ16sQIII"
    fields[3] = zlib.crc32(struct.pack(layout, *fields))
    # UEFI specification 2.10, 5.2.3: without a protective MBR, U-Boot sees no table.
    protective = struct.pack("<446xB3sB3sII48x2s", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, sectors - 1, b"\x55\xaa")
    return protective + struct.pack(layout, *fields).ljust(SECTOR_BYTES, b"\0") + entries


def make_disk(path: Path) -> None:
    """Write a sparse image with every partition of the board, one after the other from 1 MiB on."""
    first, table = MIB // SECTOR_BYTES, []
    for entry in PARTITIONS:
        count = entry.size_bytes // SECTOR_BYTES
        table.append((entry.name, entry.partuuid, first, count))
        first += count
    sectors = first + MIB // SECTOR_BYTES
    with path.open("wb") as stream:
        stream.write(gpt_head(table, sectors))
        stream.truncate(sectors * SECTOR_BYTES)
