"""The GPIOs: what they are, reading and driving them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from zentrid.commands.call import Call
from zentrid.commands.registry import Command
from zentrid.commands.table import columns
from zentrid.core.gpio import DIRECTIONS, Pin, check_direction, check_set, pin_number
from zentrid.core.grammar import Argument
from zentrid.core.names import GPIO_LINES

_PIN = Argument("gpio", f"its number, 0 to {GPIO_LINES - 1}")


async def _dir(call: Call) -> str:
    number, word = pin_number(call.arguments.values["gpio"]), call.arguments.values["direction"]
    if note := check_direction(number, word):
        call.out.log(note)
    await asyncio.to_thread(call.ctx.gpios.configure, number, word)
    return "Set OK"


async def _get(call: Call) -> str:
    pin = await asyncio.to_thread(call.ctx.gpios.pin, pin_number(call.arguments.values["gpio"]))
    return pin.level


async def _set(call: Call) -> str:
    number, high = pin_number(call.arguments.values["gpio"]), call.arguments.values["level"] == "1"
    check_set(number, (await asyncio.to_thread(call.ctx.gpios.pin, number)).direction)
    await asyncio.to_thread(lambda: call.ctx.gpios.set(number, high=high))
    return "Set OK"


async def _all(call: Call) -> str:
    return pin_lines(await asyncio.to_thread(call.ctx.gpios.pins))


def pin_lines(pins: Sequence[Pin]) -> str:
    """Return the GPIOs as a table: the header begins with `#`, columns are separated by blanks."""
    rows = [("# gpio", "direction", "level", "function")]
    rows += [(f"  {pin.number}", pin.direction, pin.level, pin.function) for pin in pins]
    return columns(rows)


COMMANDS = (
    Command(
        "gpio_dir",
        "make a GPIO an input or an output, until the next start; gpio.init.<gpio> says what it begins as",
        _dir,
        "gpio_dir 3 out",
        "gdi",
        arguments=(
            _PIN,
            Argument(
                "direction",
                "in; out or low: an output that begins low; high: one that begins high; none: let go of it",
                choices=DIRECTIONS,
            ),
        ),
        safe_mode=False,
        notes="GPIO 0 stays the factory reset button whatever it is configured as, and is never driven. GPIO 1 is the lamp.",
    ),
    Command(
        "gpio_get",
        "print the level of a GPIO, input or output: 0 or 1",
        _get,
        "gpio_get 0",
        "gge",
        arguments=(_PIN,),
        safe_mode=False,
        notes="'-' is printed for a GPIO that something else holds.",
    ),
    Command(
        "gpio_set",
        "drive a GPIO that is an output",
        _set,
        "gpio_set 1 1",
        "gse",
        arguments=(_PIN, Argument("level", "0: low, 1: high", choices=("0", "1"))),
        safe_mode=False,
        notes="The lamp (GPIO 1) still blinks while the button is held.",
    ),
    Command("gpios_get", "print all GPIOs: direction, level, function", _all, "gpios_get", "gges", safe_mode=False),
)
