"""The boot state and the slots on the disk of a board without power."""

import dataclasses
import os
from pathlib import Path

from scripts.board_driver.watched import WatchedBoard
from zentrid.core import names
from zentrid.core.bootstate import BootState, encode, newest

SECOND_COPY = names.BOOTSTATE_COPY_OFFSETS_BYTES[1]
MIB = 1024 * 1024


def read_state(board: WatchedBoard) -> BootState:
    """Return the boot state on the disk of a board without power."""
    copies = [board.disk_read("bootstate", offset, names.BOOTSTATE_COPY_BYTES) for offset in (0, SECOND_COPY)]
    return newest(*copies)[0]


def write_state(board: WatchedBoard, **changes: object) -> None:
    """Change the boot state on the disk of a board without power."""
    state = read_state(board)
    changed = dataclasses.replace(state, seq=state.seq + 1, **changes)  # type: ignore[arg-type]
    for offset in (0, SECOND_COPY):
        board.disk_write("bootstate", offset, encode(changed))


def copy_slot(board: WatchedBoard, source: str, target: str) -> None:
    """Copy kernel and rootfs of one slot to another, on a board without power."""
    for part in ("kernel", "rootfs"):
        size = names.partition(f"{part}_{source}").size_bytes
        board.disk_write(f"{part}_{target}", 0, board.disk_read(f"{part}_{source}", 0, size))


def busy_s(board: WatchedBoard) -> float:
    """Return the processor time that the board has used since it was switched on; other work beside it hardly changes it."""
    state = board.state()
    assert state is not None
    fields = Path(f"/proc/{state.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
