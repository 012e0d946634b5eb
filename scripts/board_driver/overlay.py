"""A board's own disk: a qcow2 file of what differs from the image; reading and writing it while the power is off."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from scripts.board_driver.errors import MachineError
from scripts.board_driver.gpt import GPT_AREA_BYTES, SECTOR_BYTES, Extent, parse_gpt

MAX_TRANSFER_BYTES: Final = 512 * 1024 * 1024
TOOL_TIMEOUT_S: Final = 300.0


def _run(command: list[str], cwd: Path | None = None) -> str:
    """Run one of QEMU's disk tools; return what it printed. MachineError if it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=TOOL_TIMEOUT_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise MachineError(f"{command[0]} is not installed; run `make host-packages`") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{command[0]} did not finish in {TOOL_TIMEOUT_S:.0f} s") from error
    output = done.stdout + done.stderr
    # qemu-io reports some failures in words only.
    if done.returncode or "failed:" in output:
        hint = "; power the board off first" if "lock" in output else ""
        raise MachineError(f"{command[0]} failed: {output.strip()[-500:]}{hint}")
    return output


class Overlay:
    """The qcow2 file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partitions: dict[str, Extent] | None = None

    @classmethod
    def create(cls, path: Path, backing: Path) -> Overlay:
        """Make an overlay at `path` that reads through to the raw image `backing`, which is never written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        _run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing.resolve()), "-F", "raw", str(path)])
        return cls(path)

    def read(self, offset_bytes: int, count: int) -> bytes:
        """Return `count` bytes at `offset_bytes` of the whole disk. The board's power must be off."""
        _check_range(offset_bytes, count)
        begin = offset_bytes - offset_bytes % SECTOR_BYTES
        end = -(-(offset_bytes + count) // SECTOR_BYTES) * SECTOR_BYTES
        source = {
            "driver": "raw",
            "offset": begin,
            "size": end - begin,
            "file": {"driver": "qcow2", "file": {"driver": "file", "filename": str(self.path)}},
        }
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            target = Path(folder) / "part"
            _run(["qemu-img", "convert", "-O", "raw", f"json:{json.dumps(source)}", str(target)])
            data = target.read_bytes()
        return data[offset_bytes - begin : offset_bytes - begin + count]

    def write(self, offset_bytes: int, data: bytes) -> None:
        """Write `data` at `offset_bytes` of the whole disk. The board's power must be off."""
        _check_range(offset_bytes, len(data))
        begin = offset_bytes - offset_bytes % SECTOR_BYTES
        end = -(-(offset_bytes + len(data)) // SECTOR_BYTES) * SECTOR_BYTES
        if begin != offset_bytes or end != offset_bytes + len(data):
            # The tool writes whole sectors.
            whole = bytearray(self.read(begin, end - begin))
            whole[offset_bytes - begin : offset_bytes - begin + len(data)] = data
            data = bytes(whole)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            Path(folder, "part").write_bytes(data)
            # A relative name, because the tool splits its command at blanks.
            command = f"write -q -s part {begin} {len(data)}"
            _run(["qemu-io", "-f", "qcow2", "-c", command, str(self.path.resolve())], cwd=Path(folder))

    @property
    def partitions(self) -> dict[str, Extent]:
        """The partitions by label, from the disk's own table."""
        if self._partitions is None:
            self._partitions = parse_gpt(self.read(0, GPT_AREA_BYTES))
        return self._partitions

    def extent(self, partition: str, offset_bytes: int, count: int) -> int:
        """Return where on the disk `offset_bytes` of a partition lies.

        MachineError if there is no such partition or `count` bytes from there do not fit into it.
        """
        found = self.partitions.get(partition)
        if found is None:
            raise MachineError(f"the disk has no partition {partition!r}; it has {', '.join(self.partitions)}")
        if offset_bytes < 0 or count < 0 or offset_bytes + count > found.size_bytes:
            raise MachineError(
                f"{count} bytes at {offset_bytes} do not fit into partition {partition} of {found.size_bytes} bytes"
            )
        return found.offset_bytes + offset_bytes

    def read_partition(self, partition: str, offset_bytes: int, count: int) -> bytes:
        """Return `count` bytes at `offset_bytes` of a partition."""
        return self.read(self.extent(partition, offset_bytes, count), count)

    def write_partition(self, partition: str, offset_bytes: int, data: bytes) -> None:
        """Write `data` at `offset_bytes` of a partition."""
        self.write(self.extent(partition, offset_bytes, len(data)), data)

    def flip_bit(self, partition: str, offset_bytes: int, bit: int = 0) -> None:
        """Turn over bit `bit` (0 to 7) of one byte of a partition."""
        if not 0 <= bit <= 7:
            raise ValueError("a byte has the bits 0 to 7")
        (old,) = self.read_partition(partition, offset_bytes, 1)
        self.write_partition(partition, offset_bytes, bytes([old ^ 1 << bit]))


def _check_range(offset_bytes: int, count: int) -> None:
    if offset_bytes < 0 or not 0 < count <= MAX_TRANSFER_BYTES:
        raise MachineError(f"cannot handle {count} bytes at {offset_bytes}; at most {MAX_TRANSFER_BYTES} at a time")
