"""Attaches a person's terminal to the serial console."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Final

from scripts.board_driver.serial import SerialLink

LEAVE: Final = b"\x1d"
UNHEARD_S: Final = 1.0
"""After so long without an echo it is looked whether the board can hear at all."""
BANNER: Final = "Connected to the board's serial console. Leave with Ctrl-].\r\n"


def attach(link: SerialLink) -> None:
    """Carry bytes between this terminal and the console until Ctrl-], or the end of standard input when piped.

    MachineError when the power is cut.
    """
    descriptor = sys.stdin.fileno()
    saved = termios.tcgetattr(descriptor) if os.isatty(descriptor) else None
    try:
        if saved is not None:
            tty.setraw(descriptor)
        _write(BANNER.encode())
        _carry(link, descriptor)
    finally:
        if saved is not None:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
            _write(b"\n")


def _carry(link: SerialLink, descriptor: int) -> None:
    unheard = False
    while True:
        ready, _, _ = select.select([descriptor, link.fileno()], [], [], UNHEARD_S if unheard else None)
        if not ready:
            link.unstick()
            unheard = False
        if link.fileno() in ready:
            _write(link.receive(1))
            unheard = False
        if descriptor in ready:
            typed = os.read(descriptor, 4096)
            before, leave, _ = typed.partition(LEAVE)
            if before:
                link.send(before)
                unheard = True
            if leave or not typed:
                return


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
