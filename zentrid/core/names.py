"""Names that the image, the boot script, zentrid and the tests share. Everything else is made from these, or tested to agree.

Source: the board's design, chapters "Disk" and "Boot state"; partition GUIDs are this project's own, fixed for ever.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

SlotName = Literal["a", "b", "r"]
"""A slot: `a` and `b` hold releases; `r` is the safe-mode system."""

SLOTS: Final[tuple[SlotName, ...]] = ("a", "b")
SAFE_SLOT: Final[SlotName] = "r"

MIB: Final = 1024 * 1024


class Partition(NamedTuple):
    """A GPT partition: label, fixed PARTUUID (lower case) and size in bytes."""

    name: str
    partuuid: str
    size_bytes: int


PARTITIONS: Final[tuple[Partition, ...]] = (
    Partition("bootstate", "5a454e54-0001-4000-8000-000000000001", 1 * MIB),
    Partition("identity", "5a454e54-0002-4000-8000-000000000002", 4 * MIB),
    Partition("kernel_r", "5a454e54-0003-4000-8000-000000000003", 16 * MIB),
    Partition("rootfs_r", "5a454e54-0004-4000-8000-000000000004", 160 * MIB),
    Partition("kernel_a", "5a454e54-0005-4000-8000-000000000005", 16 * MIB),
    Partition("rootfs_a", "5a454e54-0006-4000-8000-000000000006", 160 * MIB),
    Partition("kernel_b", "5a454e54-0007-4000-8000-000000000007", 16 * MIB),
    Partition("rootfs_b", "5a454e54-0008-4000-8000-000000000008", 160 * MIB),
    Partition("data", "5a454e54-0009-4000-8000-000000000009", 256 * MIB),
)

# --- boot state ---------------------------------------------------------------------------------------------------
BOOTSTATE_COPY_BYTES: Final = 4096
BOOTSTATE_COPY_OFFSETS_BYTES: Final = (0, 512 * 1024)
BOOTSTATE_VARS: Final[tuple[str, ...]] = (
    "seq",
    "BOOT_ORDER",
    "BOOT_A_LEFT",
    "BOOT_B_LEFT",
    "BOOT_A_GOOD",
    "BOOT_B_GOOD",
    "running",
    "last",
    "faults",
    *(f"fault_{n}" for n in range(8)),
    "cold_boots",
    "safemode",
    "factory_reset",
    "floor",
    "boot_floor",
)
BOOT_TRIES: Final = 3
MAX_FAULTS: Final = 8
MAX_COLD_BOOTS: Final = 10

# --- GPIO lines of the board's one chip ----------------------------------------------------------------------------
GPIO_CHIP: Final = "/dev/gpiochip0"
GPIO_FACTORY_RESET: Final = 0
GPIO_LED: Final = 1
GPIO_LINES: Final = 8

NETWORK_INTERFACE: Final = "eth0"

# --- kernel arguments that the boot script appends -------------------------------------------------------------------
ARG_SLOT: Final = "zentri.slot"
ARG_WARM: Final = "zentri.warm"
ARG_STATE_LOST: Final = "zentri.state_lost"
ARG_RESET: Final = "zentri.reset"
"""What early user space has to do before it mounts data: 0 nothing, 1 a factory reset, 2 one of the settings only."""
ARG_WHY: Final = "zentri.why"
"""Why this system was chosen: `slot`, or for the safe-mode system `faults`, `asked` or `noslot`."""

# --- property of a FIT configuration: the release's version as one number, see `encode_version` --------------------
FIT_VERSION_PROPERTY: Final = "zentri-version"


def partition(name: str) -> Partition:
    """Return the partition called `name`; KeyError if the board has none of that name."""
    for entry in PARTITIONS:
        if entry.name == name:
            return entry
    raise KeyError(name)
