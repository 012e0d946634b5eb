"""`gpio_dir`, `gpio_get`, `gpio_set`, `gpios_get`, `gpio.*`."""

from __future__ import annotations

import pytest

from tests.support.console import Caller
from zentrid.core.framing import Code


async def test_an_output(call: Caller) -> None:
    assert await call.body("gpio_dir 4 high") == "Set OK"
    assert await call.body("gpio_get 4") == "1"
    assert await call.body("gse 4 0") == "Set OK"
    assert await call.body("gge 4") == "0"
    assert call.device.gpios.did == [(4, "high")]


async def test_the_button_can_be_read_and_configured_but_not_driven(call: Caller) -> None:
    assert await call.body("gpio_get 0") == "0"
    assert await call.body("gpio_dir 0 in") == "Set OK"
    assert ["factory reset button" in line for line in call.out.lines] == [True]
    answer = await call("gpio_set 0 1")
    assert answer.code == Code.FAILED
    assert "factory reset button" in answer.reason
    assert call.device.gpios.levels[0] is False


async def test_an_input_is_not_driven(call: Caller) -> None:
    answer = await call("gpio_set 5 1")
    assert (answer.code, call.device.gpios.levels[5]) == (Code.FAILED, False)
    assert "gpio_dir 5 out" in answer.reason


async def test_what_another_holds(call: Caller) -> None:
    assert (await call("gpio_dir 7 in")).code == Code.FAILED
    assert await call.body("gpio_get 7") == "-"


async def test_all(call: Caller) -> None:
    call.device.gpios.levels[3] = True
    lines = (await call.body("gpios_get")).split("\n")
    assert lines == (await call.body("gges")).split("\n")
    assert [line.split(maxsplit=3) for line in lines[1:5]] == [
        ["0", "in", "0", "factory reset button"],
        ["1", "out", "0", "lamp"],
        ["2", "in", "0", "-"],
        ["3", "out", "1", "-"],
    ]
    assert lines[8].split(maxsplit=3) == ["7", "in", "-", "another driver"]
    assert await call.body("get gpio.state") == "0:0 1:0 2:0 3:1 4:0 5:0 6:0 7:-"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("gpio_get", Code.TOO_FEW_ARGUMENTS),
        ("gpio_get 8", Code.OUT_OF_BOUNDS),
        ("gpio_get x", Code.BAD_ARGUMENT),
        ("gpio_dir 3 sideways", Code.BAD_ARGUMENT),
        ("gpio_set 3 2", Code.BAD_ARGUMENT),
        ("gpios_get 1", Code.TOO_MANY_ARGUMENTS),
        ("set gpio.init 3 sideways", Code.BAD_ARGUMENT),
        ("set gpio.init.1 in", Code.BAD_ARGUMENT),
        ("set gpio.init 8 in", Code.BAD_ARGUMENT),
    ],
)
async def test_codes(call: Caller, line: str, code: Code) -> None:
    assert (await call(line)).code == code
    assert call.device.gpios.did == []


async def test_what_it_begins_as(call: Caller) -> None:
    assert await call.body("set gpio.init 3 high") == "Set OK"
    assert await call.body("get gpio.init.3") == "high"
    assert await call.body("get gp i 3") == "high"
    assert call.device.gpios.did == [], "it is what it begins as, at the next start"


async def test_not_in_safe_mode(safe_call: Caller) -> None:
    for line in ("gpio_dir 3 out", "gge 0", "gpio_set 1 1", "gges"):
        answer = await safe_call(line)
        assert answer.code == Code.UNKNOWN_COMMAND
        assert "safe mode" in answer.reason
    assert (await safe_call("get gpio.state")).code == Code.BAD_ARGUMENT
