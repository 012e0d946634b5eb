"""Partition table, overlay, and the making of a board's disk, on real files with QEMU's disk tools."""

import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from scripts.board_driver.disk import BoardDisk, IdentityFolder
from scripts.board_driver.errors import MachineError
from scripts.board_driver.gpt import GPT_AREA_BYTES, Extent, parse_gpt
from scripts.board_driver.overlay import Overlay
from scripts.board_driver.state import DiskRecord
from tests.support.disks import gpt_head, make_disk
from zentrid.core.names import MIB, PARTITIONS

TABLE = [
    ("one", "5a454e54-0001-4000-8000-000000000001", 64, 10),
    ("two", "5a454e54-0002-4000-8000-000000000002", 74, 6),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    make_disk(folder / "disk.img")
    (folder / "rom.bin").write_bytes(b"rom")
    return folder


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    folder = tmp_path / "identity"
    folder.mkdir()
    (folder / "identity.json").write_text(
        json.dumps({"uuid": "u", "mac": "02:00:00:00:00:01", "dms_host": "h", "dms_port": 8443})
    )
    (folder / "identity.img").write_bytes(b"I" * 5000)
    return folder


# --- the partition table --------------------------------------------------------------------------------------------------


def test_partitions_are_found_by_label_in_bytes():
    assert parse_gpt(gpt_head(TABLE, 200)) == {"one": Extent(64 * 512, 10 * 512), "two": Extent(74 * 512, 6 * 512)}


def test_a_table_made_by_genimage_is_read_the_same(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "genimage.cfg").write_text(
        'image disk {\n  hdimage { partition-table-type = "gpt" }\n'
        "  partition one { size = 1M\n offset = 1M }\n  partition two_b { size = 2M\n offset = 4M }\n}\n"
    )
    command = [
        "genimage",
        "--config",
        "genimage.cfg",
        "--rootpath",
        "root",
        "--tmppath",
        "tmp",
        "--inputpath",
        ".",
        "--outputpath",
        "out",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = parse_gpt((tmp_path / "out" / "disk").read_bytes())
    assert found == {"one": Extent(MIB, MIB), "two_b": Extent(4 * MIB, 2 * MIB)}


@pytest.mark.parametrize("offset", [512, 512 + 16, 512 + 40, 512 + 80, 1024, 1024 + 200])
def test_any_flipped_bit_in_the_table_is_noticed(offset: int):
    head = bytearray(gpt_head(TABLE, 200))
    head[offset] ^= 1
    with pytest.raises(MachineError, match=r"partition table"):
        parse_gpt(bytes(head))


def test_no_table_too_small_and_impossible_tables_are_refused():
    for head in (bytes(GPT_AREA_BYTES), gpt_head(TABLE, 200)[:-1], b""):
        with pytest.raises(MachineError, match="build the image again"):
            parse_gpt(head)
    twice = [TABLE[0], (TABLE[0][0], *TABLE[1][1:])]
    outside = [("one", TABLE[0][1], 64, 1000)]
    for table in (twice, outside):
        with pytest.raises(MachineError, match="twice or lies outside"):
            parse_gpt(gpt_head(table, 200))


def test_a_table_that_asks_for_too_many_entries_is_refused():
    head = bytearray(gpt_head(TABLE, 200))
    struct.pack_into("<I", head, 512 + 80, 2**31)
    struct.pack_into("<I", head, 512 + 16, 0)
    struct.pack_into("<I", head, 512 + 16, zlib.crc32(head[512 : 512 + 92]))
    with pytest.raises(MachineError, match="unusual shape"):
        parse_gpt(bytes(head))


# --- the overlay ------------------------------------------------------------------------------------------------------------


def test_an_overlay_reads_through_and_never_writes_the_image(image: Path, tmp_path: Path):
    before = (image / "disk.img").stat().st_mtime_ns
    overlay = Overlay.create(tmp_path / "o" / "disk.qcow2", image / "disk.img")
    assert set(overlay.partitions) == {entry.name for entry in PARTITIONS}
    assert overlay.partitions["data"].size_bytes == 256 * MIB
    overlay.write_partition("data", 1000, b"hello")  # neither begins nor ends at a sector
    assert overlay.read_partition("data", 995, 15) == bytes(5) + b"hello" + bytes(5)
    assert (image / "disk.img").stat().st_mtime_ns == before
    assert Overlay.create(tmp_path / "p.qcow2", image / "disk.img").read_partition("data", 1000, 5) == bytes(5)


def test_large_unaligned_data_survives(image: Path, tmp_path: Path):
    overlay = Overlay.create(tmp_path / "disk.qcow2", image / "disk.img")
    data = bytes(range(256)) * 12_001
    overlay.write_partition("rootfs_a", 77, data)
    assert overlay.read_partition("rootfs_a", 77, len(data)) == data
    assert overlay.read_partition("rootfs_a", 0, 77) == bytes(77)


def test_one_bit_is_flipped_and_back(image: Path, tmp_path: Path):
    overlay = Overlay.create(tmp_path / "disk.qcow2", image / "disk.img")
    overlay.flip_bit("kernel_a", 12_345, 7)
    assert overlay.read_partition("kernel_a", 12_344, 3) == b"\0\x80\0"
    overlay.flip_bit("kernel_a", 12_345, 7)
    assert overlay.read_partition("kernel_a", 12_345, 1) == b"\0"
    with pytest.raises(ValueError, match="bits 0 to 7"):
        overlay.flip_bit("kernel_a", 0, 8)


def test_a_partition_has_an_end(image: Path, tmp_path: Path):
    overlay = Overlay.create(tmp_path / "disk.qcow2", image / "disk.img")
    overlay.write_partition("identity", 4 * MIB - 1, b"x")
    for offset, data in ((4 * MIB - 1, b"xx"), (4 * MIB, b"x"), (-1, b"x")):
        with pytest.raises(MachineError, match="do not fit"):
            overlay.write_partition("identity", offset, data)
    with pytest.raises(MachineError, match="no partition 'swap'; it has bootstate"):
        overlay.read_partition("swap", 0, 1)
    with pytest.raises(MachineError, match="at most"):
        overlay.read(0, 0)


def test_a_damaged_overlay_is_told(image: Path, tmp_path: Path):
    overlay = Overlay.create(tmp_path / "disk.qcow2", image / "disk.img")
    overlay.path.write_bytes(b"not qcow2" * 100)
    with pytest.raises(MachineError, match="qemu-img failed"):
        overlay.read(0, 512)


# --- a board's disk -----------------------------------------------------------------------------------------------------------


def test_a_disk_is_made_once_and_gets_its_identity(image: Path, identity: Path, tmp_path: Path):
    disk = BoardDisk(tmp_path / "board")
    record = disk.prepare(image, identity, fresh=False)
    assert (record.mac, record.dms_port) == ("02:00:00:00:00:01", 8443)
    assert disk.overlay.read_partition("identity", 4990, 20) == b"I" * 10 + bytes(10)
    disk.overlay.write_partition("data", 0, b"kept")
    again = BoardDisk(tmp_path / "board")
    assert again.prepare(image, identity, fresh=False) == record
    assert again.prepare(None, None, fresh=False) == record
    assert again.overlay.read_partition("data", 0, 4) == b"kept"


def test_a_fresh_disk_keeps_the_identity_and_nothing_else(image: Path, identity: Path, tmp_path: Path):
    disk = BoardDisk(tmp_path / "board")
    disk.prepare(image, identity, fresh=False)
    disk.overlay.write_partition("data", 0, b"lost")
    record = disk.prepare(image, None, fresh=True)
    assert record.identity == str(identity)
    assert disk.overlay.read_partition("data", 0, 4) == bytes(4)
    assert disk.overlay.read_partition("identity", 0, 4) == b"IIII"


def test_a_second_identity_is_refused(image: Path, identity: Path, tmp_path: Path):
    disk = BoardDisk(tmp_path / "board")
    disk.prepare(image, identity, fresh=False)
    other = tmp_path / "other"
    shutil.copytree(identity, other)
    with pytest.raises(MachineError, match="another identity"):
        disk.prepare(image, other, fresh=False)


def test_an_image_that_changed_under_a_disk_is_refused(image: Path, identity: Path, tmp_path: Path):
    disk = BoardDisk(tmp_path / "board")
    disk.prepare(image, identity, fresh=False)
    assert disk.is_made_from(image, identity)
    with (image / "disk.img").open("r+b") as stream:
        stream.truncate((image / "disk.img").stat().st_size + 512)
    assert not disk.is_made_from(image, identity)
    with pytest.raises(MachineError, match="up --fresh"):
        disk.prepare(image, None, fresh=False)
    disk.prepare(image, None, fresh=True)
    assert disk.is_made_from(image, identity)
    (image / "rom.bin").unlink()
    with pytest.raises(MachineError, match="ROM of this board, is gone"):
        disk.prepare(image, None, fresh=False)


def test_a_newer_image_elsewhere_makes_the_board_outdated_but_not_unusable(image: Path, tmp_path: Path):
    disk = BoardDisk(tmp_path / "board")
    record = disk.prepare(image, None, fresh=False)
    newer = tmp_path / "newer"
    newer.mkdir()
    make_disk(newer / "disk.img")
    (newer / "rom.bin").write_bytes(b"newer")
    assert not disk.is_outdated(image)
    assert disk.is_outdated(newer)
    assert not disk.is_outdated(tmp_path / "none")
    assert disk.prepare(newer, None, fresh=False) == record


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"mac": "no", "dms_port": 1}', '{"mac": "02:00:00:00:00:01,x=y", "dms_port": 1}']
)
def test_a_folder_that_is_no_identity_is_refused(identity: Path, text: str):
    (identity / "identity.json").write_text(text)
    with pytest.raises(MachineError, match="scripts/provision device"):
        IdentityFolder.load(identity)


def test_an_identity_that_does_not_fit_leaves_no_disk(image: Path, identity: Path, tmp_path: Path):
    (identity / "identity.img").write_bytes(bytes(4 * MIB + 1))
    disk = BoardDisk(tmp_path / "board")
    with pytest.raises(MachineError, match="do not fit"):
        disk.prepare(image, identity, fresh=False)
    assert not disk.exists


def test_a_damaged_record_is_told_and_a_fresh_disk_mends_it(image: Path, tmp_path: Path):
    disk = BoardDisk(tmp_path / "board")
    disk.prepare(image, None, fresh=False)
    (tmp_path / "board" / "board.json").write_text("{")
    with pytest.raises(MachineError, match=r"damaged.*--fresh"):
        disk.prepare(image, None, fresh=False)
    disk.prepare(image, None, fresh=True)
    assert isinstance(disk.record(), DiskRecord)
