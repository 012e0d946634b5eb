"""The GPIOs of the board's one chip for commands and settings (libgpiod 2); button and lamp are held by the button's watch.

What is configured here stays held, so that nothing else takes it, until it is given back or the supervisor ends.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from zentrid.adapters.gpio import CONSUMER, ButtonWatch, Line
from zentrid.core.gpio import GpioError, Pin
from zentrid.core.names import GPIO_FACTORY_RESET, GPIO_LED, GPIO_LINES

log = logging.getLogger(__name__)

_OUTPUTS: Final = {"out": False, "low": False, "high": True}


class GpioLines:
    """Reads, sets and configures GPIOs. Everything may block briefly, and raises GpioError when the chip says no."""

    def __init__(self, chip: str, watch: ButtonWatch, *, gpiod: ModuleType | None = None) -> None:
        """`chip`: path of the GPIO chip. `gpiod`: the library; None: the board's own."""
        self._chip = chip
        self._watch = watch
        self._library = gpiod
        self._lines: dict[int, Line] = {}

    @property
    def _gpiod(self) -> Any:  # noqa: ANN401 - it has no types
        try:
            self._library = self._library or importlib.import_module("gpiod")
        except ImportError as error:
            raise GpioError("This board has no GPIOs.") from error
        return self._library

    def begin(self, wanted: Mapping[int, str]) -> None:
        """Configure what the settings say each GPIO begins as. One that cannot be had is logged: the device goes on."""
        for number, word in wanted.items():
            try:
                self.configure(number, word)
            except GpioError as error:
                log.error("%s", error)

    def pins(self) -> list[Pin]:
        """Return all GPIOs as they are now."""
        return [self.pin(number) for number in range(GPIO_LINES)]

    def pin(self, number: int) -> Pin:
        """Return one GPIO as it is now; reading changes neither its direction nor its level."""
        gpiod = self._gpiod
        with _errors(number), self._watch.lock:
            with gpiod.Chip(self._chip) as chip:
                info = chip.get_line_info(number)
            direction = "out" if info.direction == gpiod.line.Direction.OUTPUT else "in"
            line = self._watch.held.get(number) or self._lines.get(number)
            if line is None and info.used:
                return Pin(number, direction, None, str(info.consumer))
            return Pin(number, direction, self._level(number, line))

    def configure(self, number: int, word: str) -> None:
        """Make a GPIO what `word` (see `core.gpio.DIRECTIONS`) says and keep hold of it; `none` gives it back.

        The button keeps its function. The lamp is lit or dark as `word` says, whenever it has nothing else to show.
        """
        with _errors(number), self._watch.lock:
            if number == GPIO_FACTORY_RESET:
                return
            if number == GPIO_LED:
                self._light(lit=_OUTPUTS[word])
                return
            if (line := self._lines.pop(number, None)) is not None:
                line.release()
            if word != "none":
                self._lines[number] = self._request(number, word)

    def set(self, number: int, *, high: bool) -> None:
        """Drive an output, which has been configured as one."""
        gpiod = self._gpiod
        with _errors(number), self._watch.lock:
            if number == GPIO_LED:
                if GPIO_LED not in self._watch.held:
                    raise OSError(None, "nothing holds the lamp yet")
                self._light(lit=high)
                return
            line = self._lines.get(number)
            if line is None:  # an output since before: the boot script's, or a supervisor's that has ended
                self._lines[number] = self._request(number, "high" if high else "low")
            else:
                line.set_value(number, gpiod.line.Value.ACTIVE if high else gpiod.line.Value.INACTIVE)

    def _light(self, *, lit: bool) -> None:
        self._watch.rests_lit = lit
        # Not held yet, it shows that as soon as it is.
        if (lamp := self._watch.held.get(GPIO_LED)) is not None:
            value = self._gpiod.line.Value
            lamp.set_value(GPIO_LED, value.ACTIVE if lit else value.INACTIVE)

    def _level(self, number: int, line: Line | None) -> bool:
        gpiod = self._gpiod
        if line is not None:
            return bool(line.get_value(number) == gpiod.line.Value.ACTIVE)
        line = self._request(number, "as it is")
        try:
            return bool(line.get_value(number) == gpiod.line.Value.ACTIVE)
        finally:
            line.release()

    def _request(self, number: int, word: str) -> Line:
        kinds = self._gpiod.line
        if word in _OUTPUTS:
            value = kinds.Value.ACTIVE if _OUTPUTS[word] else kinds.Value.INACTIVE
            settings = self._gpiod.LineSettings(direction=kinds.Direction.OUTPUT, output_value=value)
        else:
            direction = kinds.Direction.INPUT if word == "in" else kinds.Direction.AS_IS
            settings = self._gpiod.LineSettings(direction=direction)
        line: Line = self._gpiod.request_lines(self._chip, consumer=CONSUMER, config={number: settings})
        return line


@contextmanager
def _errors(number: int) -> Iterator[None]:
    """Turn what the chip says into a sentence."""
    try:
        yield
    except OSError as error:
        raise GpioError(
            f"GPIO {number} cannot be used ({error.strerror or error}); 'gpios_get' shows what holds it."
        ) from error
