"""A board at its best, as the boot script finds it: what tests of the boot rules start from."""

from __future__ import annotations

from zentrid.core import names
from zentrid.core.bootrules import Fit, System
from zentrid.core.bootstate import BootState
from zentrid.core.names import BOOT_TRIES, SAFE_SLOT, SlotName
from zentrid.core.version import Version

FIRST = Version(1, 0, 0)


def fresh_systems(version: Version = FIRST) -> dict[SlotName, System]:
    """Return three good systems of one version."""
    return {slot: System(Fit.GOOD, version) for slot in (*names.SLOTS, SAFE_SLOT)}


def fresh_state(version: Version = FIRST) -> BootState:
    """Return the boot state of a board with two good slots that has been healthy and runs."""
    return BootState(
        seq=1, a_left=BOOT_TRIES, b_left=BOOT_TRIES, a_good=True, b_good=True, running=True, last="a", floor=version
    )
