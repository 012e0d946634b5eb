"""What is known and what is settled before anything is started: identity, a lost boot state, damaged data, why safe mode."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zentrid.adapters.about import BootArguments, IdentityError, read_boot_arguments, read_identity, read_release
from zentrid.adapters.bootstate import DiskBootStateStore
from zentrid.core.bootstate import BootStateLostError, BootStateWriteError, Fault, add_fault, request_safe_mode
from zentrid.core.names import SAFE_SLOT
from zentrid.ports import Identity, Release

log = logging.getLogger("zentrid")

EARLY: Final = Path("/run/zentri")
"""Where early user space leaves its notes."""
IDENTITY: Final = Path("/identity")
NO_IDENTITY: Final = Identity("00000000-0000-0000-0000-000000000000", "00:00:00:00:00:00", "", 0)
DATA_FAILED: Final = "the data partition could not be mounted; settings are kept in RAM until it is repaired or reset"


@dataclass(frozen=True)
class Device:
    """What is known before anything is started."""

    boot: BootArguments
    release: Release
    identity: Identity
    identity_problem: str | None


def read_device() -> Device:
    """Read arguments, release and identity; a device without a usable identity still starts and says so."""
    boot, release = read_boot_arguments(), read_release()
    try:
        return Device(boot, release, read_identity(IDENTITY), None)
    except IdentityError as error:
        log.error("%s", error)
        return Device(boot, release, NO_IDENTITY, str(error))


def restore_boot_state(store: DiskBootStateStore, device: Device, uptime_s: float, utc: str) -> None:
    """Write a good boot state where the boot script found none, and record that as a fault."""
    if not device.boot.state_lost:
        return
    fault = Fault(
        "state_lost", device.boot.slot, device.release.version, int(uptime_s), utc, "both copies were damaged"
    )
    try:
        store.update(lambda state: add_fault(state, fault))
    except BootStateWriteError as error:
        log.error("%s", error)


def data_problem() -> str | None:
    """Return what is wrong with the data file system, None if it is mounted and can be written."""
    if data_failed():
        return DATA_FAILED
    try:
        flags = os.statvfs("/data").f_flag
    except OSError as error:
        return f"the data partition does not answer ({error.strerror})"
    return "the data partition is read-only" if flags & os.ST_RDONLY else None


def data_failed() -> bool:
    """Tell whether early user space could not mount the data partition."""
    return (EARLY / "data-failed").exists()


def safe_mode_reason(boot: BootArguments) -> str:
    """Return why this is safe mode, for the console's first line."""
    if boot.why == "faults":
        return "Max faults exceeded"
    if data_failed():
        return "The data partition cannot be mounted"
    return "Safe mode was asked for" if boot.why == "asked" else "No slot is left that boots"


def ask_for_safe_mode(store: DiskBootStateStore, device: Device) -> bool:
    """Damaged data is never wiped unasked: a release that was good before hands over to safe mode. True: restart now.

    A release on trial does not: it may be the reason, so its tries decide. Nor does a boot state that cannot be written,
    which would restart the board for ever.
    """
    if not data_failed() or device.boot.slot == SAFE_SLOT:
        return False
    try:
        if not store.read().good(device.boot.slot):
            return False
        store.update(request_safe_mode)
    except (BootStateLostError, BootStateWriteError) as error:
        log.error("no safe mode although the data partition is damaged: %s", error)
        return False
    return True
