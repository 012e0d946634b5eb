"""What is on the slots' partitions, found by the kernel's partition labels; and which slot runs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zentrid.adapters.blockdev import read_at, size_bytes
from zentrid.core import names
from zentrid.core.bootstate import BootState, BootStateLostError
from zentrid.core.fit import FitConfiguration, fit_bytes, read_configuration
from zentrid.core.names import SAFE_SLOT, SLOTS, SlotName
from zentrid.core.update import Capacity
from zentrid.errors import ZentriError
from zentrid.ports import BootStateStore, SlotInfo

SYS_BLOCK: Final = Path("/sys/class/block")
_MAX_UEVENT_BYTES: Final = 4096
_ROOT = re.compile(r"dm-mod\.waitfor=PARTUUID=([0-9a-fA-F-]{36})")
_ALL: Final[tuple[SlotName, ...]] = (*SLOTS, SAFE_SLOT)


class SlotError(ZentriError):
    """A partition that the board must have is not there, or the running slot is not known."""

    reason = "no_slot"


def find_partition(label: str, sys_block: Path = SYS_BLOCK) -> dict[str, str]:
    """Return what the kernel tells of the partition with this label: DEVNAME, PARTUUID, … Raises SlotError."""
    for path in sorted(sys_block.glob("*/uevent")):
        with path.open("rb") as file:
            text = file.read(_MAX_UEVENT_BYTES).decode("utf-8", "replace")
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        if values.get("PARTNAME") == label:
            return {"DEVNAME": path.parent.name, **values}
    raise SlotError(f"the disk has no partition {label}; write the disk image again")


class DiskSlots:
    """The production `ports.SlotInspector`, and what the update manager needs to know about the slots.

    All roots are injectable: ordinary files of a test can stand for everything.
    """

    def __init__(
        self,
        boot_state: BootStateStore,
        sys_block: Path = SYS_BLOCK,
        dev: Path = Path("/dev"),
        cmdline: Path = Path("/proc/cmdline"),
    ) -> None:
        self._boot_state = boot_state
        self._sys_block = sys_block
        self._dev = dev
        self._arguments = cmdline.read_text(errors="replace").split()

    @property
    def running(self) -> SlotName:
        """The slot that the boot script started. Raises SlotError if it did not say."""
        # The script appends its arguments, so the last one is its own.
        values = [text.partition("=")[2] for text in self._arguments if text.startswith(f"{names.ARG_SLOT}=")]
        if not values or values[-1] not in _ALL:
            raise SlotError(f"the boot script did not say which slot runs ({names.ARG_SLOT}=); restart the board")
        return next(slot for slot in _ALL if slot == values[-1])

    def device(self, label: str) -> Path:
        """Return the device of the partition with this label. Raises SlotError."""
        return self._dev / find_partition(label, self._sys_block)["DEVNAME"]

    def is_running_partition(self, label: str) -> bool:
        """Tell whether the running root file system is on the partition `label`, by its PARTUUID.

        Independent of what the boot script says about the slot.
        """
        running = {match[1].lower() for text in self._arguments if (match := _ROOT.fullmatch(text))}
        return self._partuuid(label) in running

    def capacity(self, slot: SlotName) -> Capacity:
        """Return what the slot's two partitions can take. Raises SlotError."""
        return Capacity(self._size_bytes(f"kernel_{slot}"), self._size_bytes(f"rootfs_{slot}"))

    def configuration(self, slot: SlotName) -> FitConfiguration | None:
        """Return what the slot's FIT says about this slot; None: empty, damaged, or no such partition."""
        try:
            fd = os.open(self.device(f"kernel_{slot}"), os.O_RDONLY | os.O_CLOEXEC)
        except (SlotError, OSError):
            return None
        try:
            return read_configuration(lambda offset, size: read_at(fd, offset, size), slot)
        except OSError:
            return None
        finally:
            os.close(fd)

    def kernel_bytes(self, slot: SlotName) -> int:
        """Return the length of the slot's FIT by its own header; 0: there is none."""
        try:
            with self.device(f"kernel_{slot}").open("rb") as file:
                return fit_bytes(file.read(8))
        except (SlotError, OSError):
            return 0

    def slots(self) -> Sequence[SlotInfo]:
        """Return a, b and r in that order, fresh from the disk."""
        try:
            state = self._boot_state.read()
        except BootStateLostError:
            state = BootState()
        return [self._info(slot, state) for slot in _ALL]

    def _info(self, slot: SlotName, state: BootState) -> SlotInfo:
        found = self.configuration(slot)
        version = str(found.version) if found and found.version else None
        running = slot == self.running
        return SlotInfo(
            slot, version, running, state.left(slot), state.good(slot), self._state_word(slot, version, running, state)
        )

    def _state_word(self, slot: SlotName, version: str | None, running: bool, state: BootState) -> str:
        if running:
            return "running"
        safe_mode_next = state.safemode or state.faults >= names.MAX_FAULTS
        if slot == SAFE_SLOT:
            return "next" if safe_mode_next else "safe-mode"
        if version is None:
            return "empty"
        if not state.left(slot):
            return "bad"
        return "next" if state.order[0] == slot and not safe_mode_next else "fallback"

    def _partuuid(self, label: str) -> str:
        try:
            found = find_partition(label, self._sys_block).get("PARTUUID")
        except SlotError:
            found = None
        return (found or names.partition(label).partuuid).lower()

    def _size_bytes(self, label: str) -> int:
        try:
            fd = os.open(self.device(label), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SlotError(f"the partition {label} cannot be opened ({error.strerror})") from error
        try:
            return size_bytes(fd)
        finally:
            os.close(fd)
