"""GPIOs for commands and settings: the library's requests, and what the button's watch holds."""

from __future__ import annotations

import errno
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from zentrid.adapters.gpio import ButtonWatch
from zentrid.adapters.gpiolines import GpioLines
from zentrid.core.gpio import GpioError, Pin


class Value(Enum):
    """Levels."""

    INACTIVE = 0
    ACTIVE = 1


class Request:
    """A line that was taken."""

    def __init__(self, chip: Chip, number: int) -> None:
        self.chip, self.number, self.fd = chip, number, -1

    def get_value(self, number: int) -> Value:
        assert self.chip.takers.get(number) is self, "a line that was given back is not touched"
        return self.chip.levels[number]

    def set_value(self, number: int, value: Value) -> None:
        assert self.chip.directions[number] == "out"
        self.chip.levels[number] = value

    def release(self) -> None:
        del self.chip.takers[self.number]


class Chip:
    """What is used of libgpiod, and a chip with eight lines behind it."""

    line = SimpleNamespace(Direction=SimpleNamespace(INPUT="in", OUTPUT="out", AS_IS="as is"), Value=Value)
    LineSettings = SimpleNamespace

    def __init__(self) -> None:
        self.directions = ["in"] * 8
        self.levels = [Value.INACTIVE] * 8
        self.takers: dict[int, object] = {}

    def Chip(self, path: str) -> Any:  # noqa: N802 - the library's name
        chip = self

        class Opened:
            def __enter__(self) -> Opened:
                return self

            def __exit__(self, *_: object) -> None:
                return

            def get_line_info(self, number: int) -> SimpleNamespace:
                used = number in chip.takers
                return SimpleNamespace(direction=chip.directions[number], used=used, consumer="fan" if used else "")

        return Opened()

    def request_lines(self, path: str, *, consumer: str, config: dict[int, Any]) -> Request:
        [(number, settings)] = config.items()
        if number in self.takers:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if settings.direction != "as is":
            self.directions[number] = settings.direction
        if settings.direction == "out":
            self.levels[number] = settings.output_value
        self.takers[number] = request = Request(self, number)
        return request


class Bench:
    """A chip whose button and lamp are held by the watch."""

    def __init__(self) -> None:
        self.chip = Chip()
        self.watch = ButtonWatch("/dev/gpiochip0", self._never)
        self.lines = GpioLines("/dev/gpiochip0", self.watch, gpiod=cast(ModuleType, self.chip))

    async def _never(self) -> None:
        raise AssertionError

    def hold(self) -> None:
        """Let the watch take its lines."""
        self.chip.directions[1] = "out"
        for number in (0, 1):
            self.chip.takers[number] = self.watch.held[number] = Request(self.chip, number)  # type: ignore[assignment]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.hold()
    return made


def test_reading_changes_nothing(bench: Bench) -> None:
    bench.chip.levels[4], bench.chip.directions[4] = Value.ACTIVE, "out"
    assert bench.lines.pin(4) == Pin(4, "out", True)
    assert bench.lines.pin(5) == Pin(5, "in", False)
    assert set(bench.chip.takers) == {0, 1}, "a line that is read is given back"
    assert bench.chip.directions[4] == "out"


def test_an_output_is_held_until_it_is_given_back(bench: Bench) -> None:
    bench.lines.configure(3, "high")
    assert bench.lines.pin(3) == Pin(3, "out", True)
    bench.lines.set(3, high=False)
    assert bench.lines.pin(3) == Pin(3, "out", False)
    assert 3 in bench.chip.takers
    bench.lines.configure(3, "in")
    assert bench.lines.pin(3) == Pin(3, "in", False)
    bench.lines.configure(3, "none")
    bench.lines.configure(3, "none")
    assert 3 not in bench.chip.takers


@pytest.mark.parametrize(("word", "high"), [("out", False), ("low", False), ("high", True)])
def test_what_an_output_begins_as(bench: Bench, word: str, high: bool) -> None:
    bench.lines.configure(6, word)
    assert bench.lines.pin(6) == Pin(6, "out", high)


def test_an_output_of_before_is_driven(bench: Bench) -> None:
    bench.chip.directions[5] = "out"
    bench.lines.set(5, high=True)
    assert bench.lines.pin(5) == Pin(5, "out", True)


def test_the_button_stays_with_its_watch(bench: Bench) -> None:
    for word in ("in", "out", "high", "none"):
        bench.lines.configure(0, word)
    assert (bench.chip.directions[0], bench.chip.levels[0]) == ("in", Value.INACTIVE)
    assert bench.chip.takers[0] is bench.watch.held[0]
    bench.chip.levels[0] = Value.ACTIVE
    assert bench.lines.pin(0) == Pin(0, "in", True)


def test_the_lamp_rests_as_it_is_told(bench: Bench) -> None:
    bench.lines.set(1, high=True)
    assert (bench.lines.pin(1), bench.watch.rests_lit) == (Pin(1, "out", True), True)
    bench.lines.configure(1, "low")
    assert (bench.lines.pin(1), bench.watch.rests_lit) == (Pin(1, "out", False), False)


def test_before_the_watch_has_its_lines() -> None:
    bench = Bench()
    bench.lines.begin({1: "high", 3: "high", 4: "in"})
    assert bench.watch.rests_lit, "it is lit when it can be"
    assert bench.lines.pin(3).high
    with pytest.raises(GpioError, match="lamp"):
        bench.lines.set(1, high=True)


def test_what_another_holds(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.chip.takers[6] = object()
    assert bench.lines.pin(6) == Pin(6, "in", None, "fan")
    with pytest.raises(GpioError, match=r"GPIO 6 cannot be used \(Device or resource busy\)"):
        bench.lines.configure(6, "out")
    bench.lines.begin({6: "out", 7: "high"})
    assert "GPIO 6" in caplog.text
    assert bench.lines.pin(7).high, "one that cannot be had does not keep the others away"
    assert len(bench.lines.pins()) == 8


def test_a_board_without_the_library(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    lines = GpioLines("/dev/none", ButtonWatch("/dev/none", Bench()._never))
    lines.begin({3: "out"})
    assert "no GPIOs" in caplog.text
    with pytest.raises(GpioError, match="no GPIOs"):
        lines.pin(3)
