"""Which release the device runs: the firmware's, or a newer one that brought only applications and files."""

from __future__ import annotations

from zentrid.adapters.items import ItemFolder
from zentrid.core.items import release_of
from zentrid.core.names import SAFE_SLOT
from zentrid.update.link import Parts


def running_release(parts: Parts) -> str:
    """Return the version of the newest release that is part of what runs. Reads a small file."""
    slot, firmware = parts.slots.running, parts.release.version
    # The safe-mode system has no set.
    return firmware if slot == SAFE_SLOT else release_of(ItemFolder(parts.paths.items).held(slot), firmware)
