"""Turns the readable boot script into the ROM's default environment (U-Boot's `CONFIG_DEFAULT_ENV_FILE` text form)."""

from __future__ import annotations

import re

from scripts.board_driver.chosen import BOARD
from scripts.board_driver.machine import WATCHDOG_PCI_SLOT
from zentrid.core import names
from zentrid.core.bootstate import seq_end

STATE_ADDRESS = 0x48000000
READ_BACK_ADDRESS = 0x48010000
FIT_ADDRESS = 0x50000000
MAGIC_ADDRESS = 0x40300000
WAIT_ADDRESS = 0x40300008
SAFE_ADDRESS = 0x4030000C
BUTTON_ADDRESS = 0x40300010
UNSAVED_ADDRESS = 0x40300014
TURN_ADDRESS = 0x40300018
GPIO_ADDRESS = 0x09030000
"""The PL061 of QEMU `virt` (VIRT_GPIO)."""
GPIO_DIRECTION = 0x400
MAGIC_WORD = "5a454e54"  # "ZENT"
WATCHDOG_ADDRESS = 0x3EFE0000
"""Where the ROM puts the watchdog's registers: near the end of the PCI window, which U-Boot and Linux fill from the beginning."""
WATCHDOG_TIMEOUT_S = 60

_FUNC = re.compile(r"func ([a-z_0-9]+)")


class BootScriptError(ValueError):
    """The boot script's source is not well formed; the message names the line."""


def parse_functions(source: str) -> dict[str, str]:
    """Return the functions of the script, in order, each as one line of commands.

    Raises BootScriptError for text outside a function, a function without an end, or a name used twice.
    """
    functions: dict[str, str] = {}
    current: str | None = None
    lines: list[str] = []
    for number, raw in enumerate(source.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        start = _FUNC.fullmatch(line)
        if start:
            if current is not None or start[1] in functions:
                raise BootScriptError(f"line {number}: function {start[1]} begins inside another one or a second time")
            current, lines = start[1], []
        elif current is None:
            raise BootScriptError(f"line {number}: {line!r} stands outside every function")
        elif line == "end":
            functions[current], current = " ".join(lines), None
        else:
            lines.append(line)
    if current is not None:
        raise BootScriptError(f"function {current} has no end")
    return functions


def _first_sectors() -> dict[str, int]:
    """Return where each partition begins (sectors of 512 bytes): one after the other from 1 MiB on, as genimage lays them."""
    places, at_bytes = {}, names.MIB
    for entry in names.PARTITIONS:
        places[entry.name] = at_bytes // 512
        at_bytes += entry.size_bytes
    return places


def _data_offset(line: int) -> int:
    """Return the offset of the data register that reads and writes just this line (PL061: address bits 9 to 2 are a mask)."""
    return 1 << (line + 2)


def constants(bits: int = BOARD.bits) -> dict[str, str]:
    """Return the script's constants, made from the names that the rest of the system uses. `bits`: of the board's word."""
    kernel_sectors = names.partition("kernel_a").size_bytes // 512
    places = _first_sectors()
    return {
        **{f"place_{name}": f"0x{places[name]:x}" for name in ("bootstate", "kernel_a", "kernel_b", "kernel_r")},
        "stateaddr": f"0x{STATE_ADDRESS:x}",
        "backaddr": f"0x{READ_BACK_ADDRESS:x}",
        "fitaddr": f"0x{FIT_ADDRESS:x}",
        "fitsectors": f"0x{kernel_sectors:x}",
        "magicaddr": f"0x{MAGIC_ADDRESS:x}",
        "waitaddr": f"0x{WAIT_ADDRESS:x}",
        "safeaddr": f"0x{SAFE_ADDRESS:x}",
        "buttonaddr": f"0x{BUTTON_ADDRESS:x}",
        "unsavedaddr": f"0x{UNSAVED_ADDRESS:x}",
        "turnaddr": f"0x{TURN_ADDRESS:x}",
        "wd_pci": f"0.{WATCHDOG_PCI_SLOT:x}.0",
        "wd_base": f"0x{WATCHDOG_ADDRESS:x}",
        "wd_timer2": f"0x{WATCHDOG_ADDRESS + 0x4:x}",
        "wd_reload": f"0x{WATCHDOG_ADDRESS + 0xC:x}",
        # Half a second is 512 ticks of about 1 kHz; two timers, one after the other, make the whole.
        "wd_half": f"0x{WATCHDOG_TIMEOUT_S * 512:x}",
        "gpio_dir": f"0x{GPIO_ADDRESS + GPIO_DIRECTION:x}",
        "gpio_button": f"0x{GPIO_ADDRESS + _data_offset(names.GPIO_FACTORY_RESET):x}",
        "gpio_led": f"0x{GPIO_ADDRESS + _data_offset(names.GPIO_LED):x}",
        "led_on": f"0x{1 << names.GPIO_LED:x}",
        "magicword": MAGIC_WORD,
        # U-Boot's shell calculates and compares in signed words.
        "seq_end": f"{seq_end(bits):x}",
        "seq_most": f"{seq_end(bits) - 1:x}",
        "seq_high": f"{seq_end(bits) - (1 << bits // 2):x}",
        "floor_most": f"{min(0xFFFFFFFF, (1 << (bits - 1)) - 1):x}",
        "bs_vars": " ".join(names.BOOTSTATE_VARS),
    }


def environment(source: str, *, production: bool, bits: int = BOARD.bits) -> str:
    """Return the environment file for a script source. `bits`: of the board's word.

    In a production ROM standard input is the null device: no key stops the script and no prompt can be typed at.
    """
    # bootdelay must stand in the environment: the built-in variable overrides CONFIG_BOOTDELAY.
    settings = {"bootcmd": "run main", "bootdelay": "-2", "stdout": "serial", "stderr": "serial"}
    settings["stdin"] = "nulldev" if production else "serial"
    if bits == 32:
        source = source.replace("itest.q ", "itest.l ")  # a word of that processor; U-Boot has no wider one there
    values = settings | constants(bits) | parse_functions(source)
    return "".join(f"{name}={value}\n" for name, value in values.items())
