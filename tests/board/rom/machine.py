"""The real ROM in QEMU, boot after boot in one process: between two boots the machine stands still and everything can be set.

Time in this machine is counted in instructions (`-icount`), so that the script's pauses and the watchdog's minute take moments.
The tiny kernel switches the machine off, which stops it (`shutdown=pause`); so does a reset that the script asks for.
"""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.board_driver.chosen import BOARD
from scripts.board_driver.errors import MachineError
from scripts.board_driver.machine import WATCHDOG_PCI_SLOT
from scripts.board_driver.process import start_bound
from scripts.board_driver.qmp import Qmp
from scripts.board_driver.qtest import read_word, request, set_input
from scripts.image import bootenv
from tests.support.disks import make_disk
from zentrid.core import names
from zentrid.core.bootrules import NO_RAM, Ram
from zentrid.core.bootstate import BootState, CorruptCopyError, decode
from zentrid.core.names import MIB

TIMEOUT_S: Final = 120.0
NS_PER_INSTRUCTION: Final = 7
"""As a power of two: 128 ns, about a hundred times as slow as the host, so a second of the board is some 10 ms."""
WORDS: Final[Mapping[str, int]] = {
    "wait": bootenv.WAIT_ADDRESS, "safe": bootenv.SAFE_ADDRESS, "button": bootenv.BUTTON_ADDRESS,
    "unsaved": bootenv.UNSAVED_ADDRESS, "turn": bootenv.TURN_ADDRESS,
}  # fmt: skip
GARBAGE: Final = b"\xa5"
STARTED: Final = "tiny: started"
"""What the tiny kernel says first."""


class EventQmp(Qmp):
    """A control connection that keeps the events which arrive between answers."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__(path, timeout_s)
        self._events: deque[dict[str, Any]] = deque()

    def _read(self) -> dict[str, Any]:
        reply = super()._read()
        if "event" in reply:
            self._events.append(reply)
        return reply

    def forget(self) -> None:
        """Drop the events until now."""
        self._events.clear()

    def wait_for(self, *wanted: str) -> dict[str, Any]:
        """Return the next event with one of these names, drop those before it. MachineError when none comes in time."""
        while True:
            while self._events:
                event = self._events.popleft()
                if event["event"] in wanted:
                    return event
            self._read()


@dataclass(frozen=True)
class Seen:
    """What one boot left behind."""

    console: str
    reason: str
    """Why the machine stands still, as QEMU says: `guest-shutdown` (a kernel ran), `guest-reset`; empty: stopped by hand."""
    lamp: bool
    ram: Ram
    copies: tuple[BootState | None, BootState | None]


class RomMachine:
    """One QEMU process with the ROM and a small disk. Use as a context manager."""

    def __init__(self, rom: Path, folder: Path, *, drive: str = "driver=file,filename={disk}") -> None:
        """Make the disk in `folder`. `drive`: the block device below the raw format."""
        self.folder = folder
        self.disk = folder / "disk.img"
        make_disk(self.disk)
        self.log = folder / "serial.log"
        self.log.touch()
        self._read_to = 0
        self._command = [
            BOARD.qemu, "-nodefaults", "-no-user-config", *BOARD.machine, "-accel", "tcg", "-display", "none", "-monitor", "none",
            "-S", "-bios", str(rom), "-icount", f"shift={NS_PER_INSTRUCTION},sleep=off",
            "-blockdev", f"driver=raw,node-name=disk,{self._nested(drive)}",
            "-device", "virtio-blk-pci,drive=disk,romfile=",
            "-device", f"i6300esb,addr=0x{WATCHDOG_PCI_SLOT:x}", "-action", "watchdog=reset,shutdown=pause",
            "-chardev", f"socket,id=serial0,path={folder}/serial,server=on,wait=off,logfile={self.log},logappend=on",
            "-serial", "chardev:serial0",
            "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
            "-qtest", f"unix:{folder}/qtest,server=on,wait=off", "-qtest-log", "none",
        ]  # fmt: skip
        places, at = {}, MIB
        for entry in names.PARTITIONS:
            places[entry.name] = at
            at += entry.size_bytes
        self._places = places

    def _nested(self, drive: str) -> str:
        return ",".join(f"file.{word}" for word in drive.format(disk=self.disk).split(","))

    def place(self, partition: str) -> int:
        """Return where a partition begins, in bytes."""
        return self._places[partition]

    def __enter__(self) -> RomMachine:
        self._process = start_bound(self._command, self.folder / "qemu.log")
        deadline = time.monotonic() + TIMEOUT_S
        while not (self.folder / "qtest").exists() or not (self.folder / "qmp").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"QEMU does not start: {(self.folder / 'qemu.log').read_text()[-500:]}")
            time.sleep(0.01)
        self._qmp = EventQmp(self.folder / "qmp", TIMEOUT_S)
        self._qmp.__enter__()
        self._gpio = self._qmp.find_device("pl061")
        return self

    def __exit__(self, *_: object) -> None:
        self._qmp.__exit__(None, None, None)
        self._process.kill()
        self._process.wait()

    # --- while the machine stands still ---------------------------------------------------------------------------
    def write(self, partition: str, offset_bytes: int, data: bytes) -> None:
        """Write to the disk."""
        with self.disk.open("r+b") as stream:
            stream.seek(self.place(partition) + offset_bytes)
            stream.write(data)

    def write_copy(self, number: int, copy: bytes | None) -> None:
        """Write a copy of the boot state; None: damage it."""
        data = GARBAGE * names.BOOTSTATE_COPY_BYTES if copy is None else copy
        self.write("bootstate", names.BOOTSTATE_COPY_OFFSETS_BYTES[number], data)

    def read_copy(self, number: int) -> BootState | None:
        """Return a copy of the boot state; None: it is damaged."""
        with self.disk.open("rb") as stream:
            stream.seek(self.place("bootstate") + names.BOOTSTATE_COPY_OFFSETS_BYTES[number])
            try:
                return decode(stream.read(names.BOOTSTATE_COPY_BYTES))
            except CorruptCopyError:
                return None

    # --- one boot ---------------------------------------------------------------------------------------------------
    def begin(self, *, warm: bool, ram: Ram = NO_RAM, button: bool = False, stop_at_reset: bool = True) -> None:
        """Reset the machine, set RAM words and button, and let it run. `stop_at_reset`: stand still at the next reset."""
        self._qmp.command("set-action", reboot="reset")
        self._qmp.forget()
        self._qmp.command("system_reset")
        self._qmp.wait_for("RESET")
        self.set_word(bootenv.MAGIC_ADDRESS, int(bootenv.MAGIC_WORD, 16) if warm else 0)
        for name, address in WORDS.items():
            # A power-on finds anything in RAM but the magic word.
            self.set_word(address, getattr(ram, name) if warm else 0xDEADBEEF)
        self.press(down=button)
        if stop_at_reset:
            self._qmp.command("set-action", reboot="shutdown")
        self._read_to = self.log.stat().st_size
        self._qmp.forget()
        self._qmp.command("cont")

    def finish(self, stop_at: str = "") -> Seen:
        """Wait until the machine stands still; return what the boot did. MachineError if it does not come to an end.

        `stop_at`: stop it by hand when the console has printed a line with this; a kernel that runs ends it all the same.
        """
        reason = ""
        if stop_at:
            # The whole line: what follows its beginning is wanted too.
            line = re.compile(f"(?:{re.escape(stop_at)}|{STARTED}).*\n")
            self.wait_until(lambda: line.search(self.console()) is not None, stop_at)
            self._qmp.command("stop")
        else:
            reason = self._qmp.wait_for("SHUTDOWN")["data"]["reason"]
            self._qmp.wait_for("STOP")
        ram = Ram(**{name: self.word(address) for name, address in WORDS.items()})
        return Seen(self.console(), reason, self.lamp(), ram, (self.read_copy(0), self.read_copy(1)))

    def console(self) -> str:
        """Return what the console has printed since `begin`."""
        with self.log.open("rb") as stream:
            stream.seek(self._read_to)
            return stream.read().decode(errors="replace").replace("\r", "")

    def wait_for(self, text: str) -> None:
        """Wait until the console has printed `text`."""
        self.wait_until(lambda: text in self.console(), text)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds. MachineError if it takes too long."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise MachineError(f"not seen in {TIMEOUT_S:g} s: {what}; the console says:\n{self.console()[-2000:]}")
            time.sleep(0.002)

    def press(self, *, down: bool) -> None:
        """Push the button or let it go."""
        set_input(self.folder / "qtest", self._gpio, names.GPIO_FACTORY_RESET, high=False)
        if down:
            set_input(self.folder / "qtest", self._gpio, names.GPIO_FACTORY_RESET, high=True)

    def lamp(self) -> bool:
        """Return whether the lamp is lit at this moment."""
        data = int(request(self.folder / "qtest", f"readb 0x{bootenv.GPIO_ADDRESS + 0x3FC:x}"), 16)
        return bool(data >> names.GPIO_LED & 1)

    def word(self, address: int) -> int:
        """Return a word of RAM."""
        return read_word(self.folder / "qtest", address)

    def set_word(self, address: int, value: int) -> None:
        """Write a word of RAM."""
        request(self.folder / "qtest", f"writel 0x{address:x} 0x{value:x}")

    def type(self, keys: bytes) -> None:
        """Type at the console."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(self.folder / "serial"))
            connection.sendall(keys)
