"""QEMU's qtest socket: drives input lines of the GPIO controller and reads the board's memory, while the board runs."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import NamedTuple

from scripts.board_driver.errors import MachineError
from scripts.board_driver.machine import PL011_ADDRESS, PL061_ADDRESS
from scripts.board_driver.turn import connect

# PL061 registers: the data register's address selects the lines (bits 9..2); all eight lines are at 0x3fc.
_DATA = PL061_ADDRESS + 0x3FC
_DIRECTION = PL061_ADDRESS + 0x400

# PL011 registers and bits (ARM DDI 0183): flags, interrupt mask, raw interrupts.
_UART_FLAGS, _UART_MASK, _UART_RAISED = 0x18, 0x38, 0x3C
_RECEIVE_EMPTY, _RECEIVE_INTERRUPT = 1 << 4, 1 << 4
_MAX_UNREAD = 4096


class Gpio(NamedTuple):
    """The GPIO controller's eight lines, bit n for line n."""

    data: int
    direction: int
    """1: an output."""

    def is_output(self, line: int) -> bool:
        """Return whether the board drives this line."""
        return bool(self.direction >> line & 1)

    def level(self, line: int) -> bool:
        """Return whether this line is high."""
        return bool(self.data >> line & 1)


def request(path: Path, command: str, timeout_s: float = 10) -> str:
    """Send one qtest command; return what follows `OK`. MachineError if QEMU is not there or refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connect(connection, path, timeout_s)
            connection.sendall(command.encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = stream.readline(4096).decode(errors="replace").strip()
        except OSError as error:
            raise MachineError(f"QEMU does not answer on {path} ({error}); is the board up?") from error
    word, _, rest = answer.partition(" ")
    if word != "OK":
        raise MachineError(f"QEMU refused {command!r}: {answer or 'it closed the connection'}")
    return rest


def set_input(path: Path, device: str, line: int, *, high: bool) -> None:
    """Set an input line of the device at object path `device` (from Qmp.find_device)."""
    request(path, f"set_irq_in {device} unnamed-gpio-in {line} {int(high)}")


def read_gpio(path: Path) -> Gpio:
    """Return levels and directions of the GPIO lines."""
    data, direction = (int(request(path, f"readb 0x{address:x}"), 16) for address in (_DATA, _DIRECTION))
    return Gpio(data, direction)


def read_word(path: Path, address: int) -> int:
    """Return the 32-bit word at a physical address."""
    return int(request(path, f"readl 0x{address:x}"), 16)


def unstick_uart(path: Path) -> bool:
    """Empty the serial port's receive buffer if its interrupt is lost; return whether it was.

    QEMU's PL011 (seen in 7.2) raises the receive interrupt only when the buffer goes from empty to one byte, and has no
    receive timeout. What is typed while the board starts can still be in the buffer when Linux clears the interrupt: then
    none comes ever again and the console is deaf until the next start. A real port is not; this repairs QEMU's.
    """
    for _ in range(2):
        if not _interrupt_lost(path):
            return False
        time.sleep(0.1)  # the driver may just be about to read
    for _ in range(_MAX_UNREAD):
        if read_word(path, PL011_ADDRESS + _UART_FLAGS) & _RECEIVE_EMPTY:
            break
        read_word(path, PL011_ADDRESS)
    return True


def _interrupt_lost(path: Path) -> bool:
    """Return whether bytes wait, their interrupt is wanted, and it is not raised."""
    flags, mask, raised = (
        read_word(path, PL011_ADDRESS + register) for register in (_UART_FLAGS, _UART_MASK, _UART_RAISED)
    )
    return not flags & _RECEIVE_EMPTY and bool(mask & _RECEIVE_INTERRUPT) and not raised & _RECEIVE_INTERRUPT
