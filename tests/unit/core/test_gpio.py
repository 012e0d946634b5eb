"""What may be done with which GPIO."""

from __future__ import annotations

import pytest

from zentrid.core.framing import Code
from zentrid.core.gpio import DIRECTIONS, Pin, check_direction, check_set, initial, pin_number
from zentrid.core.grammar import CommandError
from zentrid.core.names import GPIO_FACTORY_RESET, GPIO_LED, GPIO_LINES
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import Values


def test_numbers() -> None:
    assert [pin_number(word) for word in ("0", "7", "03")] == [0, 7, 3]
    for word, code in (
        ("8", Code.OUT_OF_BOUNDS),
        ("x", Code.BAD_ARGUMENT),
        ("-1", Code.BAD_ARGUMENT),
        ("", 7),
        ("²", 7),
    ):
        with pytest.raises(CommandError) as caught:
            pin_number(word)
        assert caught.value.code == code


def test_the_button_may_be_configured_and_is_never_driven() -> None:
    for word in DIRECTIONS:
        assert "factory reset button" in check_direction(GPIO_FACTORY_RESET, word)
    for direction in ("in", "out"):
        with pytest.raises(CommandError, match="factory reset button"):
            check_set(GPIO_FACTORY_RESET, direction)


def test_the_lamp_stays_an_output() -> None:
    for word in ("out", "low", "high"):
        assert check_direction(GPIO_LED, word) == ""
    for word in ("in", "none"):
        with pytest.raises(CommandError, match="lamp"):
            check_direction(GPIO_LED, word)
    check_set(GPIO_LED, "out")


def test_an_input_is_not_driven() -> None:
    with pytest.raises(CommandError, match="gpio_dir 5 out"):
        check_set(5, "in")
    check_set(5, "out")


def test_what_each_begins_as() -> None:
    values = Values(VARIABLES)
    assert initial(values) == {}
    for pin, word in ((0, "high"), (1, "high"), (3, "in"), (7, "low")):
        values.set(f"gpio.init.{pin}", word)
    assert initial(values) == {1: "high", 3: "in", 7: "low"}, "never the button"
    assert not VARIABLES[f"gpio.init.{GPIO_LED}"].kind.check("in")
    assert VARIABLES.find(["gpio.init", "2", "in"]) == (VARIABLES["gpio.init.2"], ("in",))
    assert len(VARIABLES.group(["gpio.init"])) == GPIO_LINES


def test_how_it_is_shown() -> None:
    assert [Pin(2, "in", high).level for high in (True, False, None)] == ["1", "0", "-"]
    assert [Pin(n, "in", True, "fan").function for n in (0, 1, 2)] == ["factory reset button", "lamp", "fan"]
