"""What the virtual boards are made of, as QEMU arguments, beside what distinguishes one from another (`boards.py`).

Source: the platform chapter of the design. `romfile=` must be empty, or PCI devices look for option ROMs that need not be
installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.board_driver.boards import BoardKind
from scripts.board_driver.chosen import BOARD

PL061_ADDRESS: Final = 0x0903_0000
"""The GPIO controller's registers (QEMU `virt`: VIRT_GPIO)."""

PL011_ADDRESS: Final = 0x0900_0000
"""The serial port's registers (QEMU `virt`: VIRT_UART)."""

WATCHDOG_PCI_SLOT: Final = 0x1F
"""The watchdog's fixed place on the PCI bus, away from those that QEMU gives out itself: the boot script arms it there."""

ACCELERATOR: Final = "tcg,tb-size=64"
"""QEMU keeps translated code over a reset of the board, and every write to a page that once held code is slow from then on:
with its default buffer (1 GiB) a warm start takes twice as long as a cold one. A buffer of 64 MiB is emptied often enough."""

HOST_SEEN_BY_BOARD: Final = "10.0.2.2"
"""The host's loopback, as the board sees it through QEMU's user network."""

MAX_SOCKET_PATH_BYTES: Final = 107
"""sockaddr_un has 108 bytes with the closing zero."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one running board. Short names: the sockets' paths must fit into a socket address."""

    path: Path

    @property
    def qmp(self) -> Path:
        """QEMU's control socket."""
        return self.path / "qmp"

    @property
    def qtest(self) -> Path:
        """QEMU's socket for GPIO lines and memory."""
        return self.path / "qtest"

    @property
    def serial(self) -> Path:
        """The serial console; one user at a time."""
        return self.path / "serial"

    @property
    def serial_log(self) -> Path:
        """Everything the console printed since `up`."""
        return self.path / "serial.log"

    @property
    def qemu_log(self) -> Path:
        """What QEMU itself printed."""
        return self.path / "qemu.log"

    @property
    def state(self) -> Path:
        """State file, see state.py."""
        return self.path / "state.json"

    @property
    def lock(self) -> Path:
        """Held while a verb changes the board's power."""
        return self.path / "lock"

    @property
    def console_lock(self) -> Path:
        """Held by whoever uses the serial console."""
        return self.path / "console.lock"


@dataclass(frozen=True)
class DirectStart:
    """A kernel that QEMU starts itself, without the ROM and with QEMU's own device tree: for measuring, never for testing."""

    kernel: Path
    arguments: str


@dataclass(frozen=True)
class QemuConfig:
    """One start of the board."""

    rom: Path
    disk: Path
    """The board's own qcow2 overlay."""
    run: RunFolder
    ssh_port: int
    """On the host's loopback, leads to port 22 of the board."""
    http_port: int
    """On the host's loopback, leads to port 80 of the board."""
    board: BoardKind = BOARD
    mac: str | None = None
    """The network card's address; None: QEMU's default."""
    paused: bool = False
    """Wait before the first instruction, so that a button can be down at power-up."""
    write_log: Path | None = None
    """Record every write of the board here (QEMU's `blklogwrites`, dm-log-writes format)."""
    append_write_log: bool = False
    """Go on with the record of an earlier power-on."""
    direct: DirectStart | None = None
    """Start this instead of the ROM."""
    extra: tuple[str, ...] = field(default=())


def _escape(path: Path) -> str:
    """Return a path as a value in QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def _disk_args(config: QemuConfig) -> list[str]:
    qcow = f"driver=qcow2,node-name=overlay,discard=unmap,file.driver=file,file.filename={_escape(config.disk)}"
    node = "overlay"
    args = ["-blockdev", qcow]
    if config.write_log is not None:
        node = "recorded"
        args += [
            "-blockdev",
            "driver=blklogwrites,node-name=recorded,file=overlay,"
            f"log.driver=file,log.filename={_escape(config.write_log)},"
            f"log-append={'on' if config.append_write_log else 'off'}",
        ]
    return [*args, "-device", f"virtio-blk-pci,drive={node},romfile="]


def _start_args(config: QemuConfig) -> list[str]:
    if config.direct is None:
        return ["-bios", str(config.rom)]
    return ["-kernel", str(config.direct.kernel), "-append", config.direct.arguments]


def command_line(config: QemuConfig) -> list[str]:
    """Return the whole QEMU command. Pure. ValueError if a socket's path is too long for a socket address."""
    for path in (config.run.qmp, config.run.qtest, config.run.serial):
        if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"{path} is too long for a socket; set XDG_RUNTIME_DIR to a shorter folder")
    mac = f",mac={config.mac}" if config.mac else ""
    network = f"user,id=net0,hostfwd=tcp:127.0.0.1:{config.ssh_port}-:22,hostfwd=tcp:127.0.0.1:{config.http_port}-:80"
    serial = (
        f"socket,id=serial0,path={_escape(config.run.serial)},server=on,wait=off"
        f",logfile={_escape(config.run.serial_log)},logappend=on"
    )
    return [
        config.board.qemu, "-nodefaults", "-no-user-config", *config.board.machine, "-accel", ACCELERATOR, "-display", "none",
        "-monitor", "none",
        *_start_args(config),
        *_disk_args(config),
        "-netdev", network, "-device", f"virtio-net-pci,netdev=net0,romfile={mac}",
        "-device", "virtio-rng-pci,romfile=",
        "-device", f"i6300esb,addr=0x{WATCHDOG_PCI_SLOT:x}", "-action", "watchdog=reset",
        "-chardev", serial, "-serial", "chardev:serial0",
        "-qmp", f"unix:{_escape(config.run.qmp)},server=on,wait=off",
        "-qtest", f"unix:{_escape(config.run.qtest)},server=on,wait=off", "-qtest-log", "none",
        *(("-S",) if config.paused else ()),
        *config.extra,
    ]  # fmt: skip
