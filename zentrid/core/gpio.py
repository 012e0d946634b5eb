"""What may be done with which GPIO, and how it is shown. Pure.

GPIO 0 is the factory reset button whatever it is configured for: it can be read, and the button is heard. GPIO 1 is the lamp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.names import GPIO_FACTORY_RESET, GPIO_LED, GPIO_LINES
from zentrid.core.variables import Values
from zentrid.errors import ZentriError

DIRECTIONS: Final = ("in", "out", "low", "high", "none")
"""`out` and `low`: an output that begins low; `high`: one that begins high; `none`: left alone."""
BUTTON_NOTE: Final = "GPIO 0 stays the factory reset button, which comes first: it is read, and never driven."
_FUNCTIONS: Final = {GPIO_FACTORY_RESET: "factory reset button", GPIO_LED: "lamp"}


class GpioError(ZentriError):
    """A GPIO cannot be read, set or configured; the sentence says why."""

    reason = "gpio"


@dataclass(frozen=True)
class Pin:
    """One GPIO as it is now."""

    number: int
    direction: str
    """`in` or `out`."""
    high: bool | None
    """None: something else holds it, so it cannot be read."""
    holder: str = ""
    """What else holds it; empty: nothing does."""

    @property
    def level(self) -> str:
        """The level as it is shown."""
        return "-" if self.high is None else str(int(self.high))

    @property
    def function(self) -> str:
        """What it is for."""
        return _FUNCTIONS.get(self.number, self.holder or "-")


def pin_number(word: str) -> int:
    """Return the GPIO's number. Raises CommandError."""
    if not (word.isascii() and word.isdigit() and len(word) <= 4):
        raise CommandError(Code.BAD_ARGUMENT, f"'{word}' is no GPIO; give a number from 0 to {GPIO_LINES - 1}.")
    if int(word) >= GPIO_LINES:
        raise CommandError(Code.OUT_OF_BOUNDS, f"There is no GPIO {int(word)}; they are 0 to {GPIO_LINES - 1}.")
    return int(word)


def check_direction(pin: int, direction: str) -> str:
    """Return what a person must know about this configuration, or nothing. Raises CommandError: it cannot be."""
    if pin == GPIO_LED and direction in ("in", "none"):
        raise CommandError(Code.FAILED, "GPIO 1 is the lamp: it is an output, and shows that the button is held.")
    return BUTTON_NOTE if pin == GPIO_FACTORY_RESET else ""


def check_set(pin: int, direction: str) -> None:
    """Raise CommandError if this GPIO, which has this direction now, cannot be set."""
    if pin == GPIO_FACTORY_RESET:
        raise CommandError(Code.FAILED, BUTTON_NOTE)
    if direction != "out":
        raise CommandError(Code.FAILED, f"GPIO {pin} is an input; make it an output first: gpio_dir {pin} out")


def initial(values: Values) -> dict[int, str]:
    """Return what each GPIO is to begin as, without those that are left alone and without the button."""
    wanted = {pin: values.text(f"gpio.init.{pin}") for pin in range(GPIO_LINES)}
    return {pin: word for pin, word in wanted.items() if word != "none" and pin != GPIO_FACTORY_RESET}
