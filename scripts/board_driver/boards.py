"""The boards that there are: what everything else must know of a board, in one place. Pure; `chosen.py` reads the choice.

A new board is one more entry of `BOARDS` and a folder below `buildroot_external/board` (docs/porting.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zentrid.errors import ZentriError

BOARD_ENV: Final = "BOARD"
"""The variable that names the board, of the environment and of `make`."""


class UnknownBoardError(ZentriError):
    """A name that no board has; the message lists those that there are."""

    reason = "unknown_board"

    def __init__(self, name: str) -> None:
        super().__init__(f"{BOARD_ENV}={name[:80]}: there is no such board; there are {', '.join(BOARDS)}")


@dataclass(frozen=True)
class BoardKind:
    """What distinguishes one kind of board from another, for builds, bundles and the driver."""

    name: str
    """In releases and bundles, and of its folder below `buildroot_external/board`."""
    product: str
    """Code of the product that demonstrations and tests make for it."""
    # --- the machine
    qemu: str
    """The program that emulates it."""
    machine: tuple[str, ...]
    """Everything that shapes QEMU's device tree: it is dumped with these, and the board is started with these."""
    # --- the processor
    bits: int
    """Of a word: 32 or 64. The boot loader's shell counts in words."""
    elf_machine: str
    """As pyelftools and readelf name it, without the prefix."""
    triplet: str
    """Of its programs: the compiler's prefix, and the name of the library folders (Debian's multiarch)."""
    debian: str
    """Debian's name of the architecture."""
    user_emulator: str
    """The program that runs the board's programs on the host."""
    program_flags: tuple[str, ...]
    """What the compiler is told for programs that end in an image, beside what holds on every board."""
    # --- kernel and boot loader
    linux_arch: str
    """Linux's name of the architecture; its uncompressed `Image` is what boots."""
    uboot_defconfig: str
    fit_arch: str
    """U-Boot's name of the architecture, in a FIT."""
    load_address: int
    """Where the boot loader puts the kernel, above what `reserved-memory.dtsi` reserves. It is started at its first byte."""

    @property
    def cross(self) -> str:
        """What the names of the compiler's programs begin with."""
        return f"{self.triplet}-"


VIRT: Final = BoardKind(
    name="virt",
    product="DEMO-VIRT_SENSOR",
    qemu="qemu-system-aarch64",
    # With ACPI there is no GPIO controller.
    machine=("-M", "virt,acpi=off", "-cpu", "cortex-a57", "-smp", "2", "-m", "512"),
    bits=64,
    elf_machine="AARCH64",
    triplet="aarch64-linux-gnu",
    debian="arm64",
    user_emulator="qemu-aarch64-static",
    program_flags=("-mbranch-protection=standard",),
    linux_arch="arm64",
    uboot_defconfig="qemu_arm64_defconfig",
    fit_arch="arm64",
    load_address=0x4040_0000,
)
"""QEMU's 64-bit ARM machine."""

VIRT32: Final = BoardKind(
    name="virt32",
    product="DEMO-VIRT32_SENSOR",
    qemu="qemu-system-arm",
    # The boot loader reaches nothing above 4 GiB: PCI has to lie below.
    machine=("-M", "virt,acpi=off,highmem=off", "-cpu", "cortex-a15", "-smp", "2", "-m", "512"),
    bits=32,
    elf_machine="ARM",
    triplet="arm-linux-gnueabihf",
    debian="armhf",
    user_emulator="qemu-arm-static",
    program_flags=("-marm",),
    linux_arch="arm",
    uboot_defconfig="qemu_arm_defconfig",
    fit_arch="arm",
    # A 32-bit kernel begins 32 KiB into the memory that it takes for its own, and takes none below that.
    load_address=0x4040_8000,
)
"""QEMU's 32-bit ARM machine."""

BOARDS: Final = {board.name: board for board in (VIRT, VIRT32)}
DEFAULT: Final = VIRT


def board_named(name: str) -> BoardKind:
    """Return the board with this name, the ordinary one for an empty name. Raises UnknownBoardError."""
    if not name:
        return DEFAULT
    if name not in BOARDS:
        raise UnknownBoardError(name)
    return BOARDS[name]


def folder_name(name: str, board: BoardKind) -> str:
    """Return the name of a folder of built things: each board but the ordinary one has its own (`image-virt32`)."""
    return name if board is DEFAULT else f"{name}-{board.name}"
