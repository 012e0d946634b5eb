"""What is known and what is settled before anything is started: identity, a lost boot state, damaged data, why safe mode."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zentrid.adapters.about import BootArguments, IdentityError, read_boot_arguments, read_identity, read_release
from zentrid.core.bootstate import BootStateLostError, BootStateWriteError, factory_reset_done, request_safe_mode
from zentrid.core.names import MAX_FAULTS, SAFE_SLOT
from zentrid.factoryreset import EVERYTHING_DONE, UNCLEARED_NAME, early_notes
from zentrid.ports import BootStateStore, Identity, Release

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


def restore_boot_state(store: BootStateStore, device: Device) -> None:
    """Write a good boot state where the boot script found none."""
    if not device.boot.state_lost:
        return
    try:
        store.update(lambda state: state)
    except BootStateWriteError as error:
        log.error("%s", error)


def lost_state_is_news(device: Device, told: Path) -> bool:
    """Tell, once in a boot however often the supervisor starts, that the boot state was lost. `told`: a mark in RAM."""
    if not device.boot.state_lost or told.exists():
        return False
    try:
        told.touch()
    except OSError as error:
        log.error("the mark %s cannot be set: %s", told, error.strerror)
    return True


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


def safe_mode_is_over(store: BootStateStore, device: Device) -> bool:
    """Tell whether a factory reset of everything, done at this start, has taken the reason of this safe mode away."""
    if device.boot.slot != SAFE_SLOT or device.boot.why != "asked":
        return False
    if not any(note.startswith(EVERYTHING_DONE) for note in early_notes(EARLY)):
        return False
    try:
        state = store.read()
    except BootStateLostError:
        return False
    return not state.safemode and state.faults < MAX_FAULTS


def late_clearing(store: BootStateStore) -> bool:
    """Clear the request of a factory reset that early user space has done but could not clear; True: nothing is left to do.

    It must not erase at the next start what was put in since.
    """
    mark = EARLY / UNCLEARED_NAME
    try:
        tier = int(mark.read_text()[:1])
    except (OSError, ValueError):
        return True
    try:
        store.update(lambda state: factory_reset_done(state) if state.factory_reset == tier else state)
    except BootStateWriteError as error:
        log.error("the factory reset is done, but its request still stands: %s", error)
        return False
    mark.unlink(missing_ok=True)
    return True


def ask_for_safe_mode(store: BootStateStore, device: Device) -> bool:
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
