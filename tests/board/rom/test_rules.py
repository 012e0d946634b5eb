"""The boot script in the real ROM does what its model says, case by case."""

from __future__ import annotations

import os
from functools import cache

import pytest

from scripts.board_driver.errors import MachineError
from tests.board.rom import cases
from tests.board.rom.machine import RomMachine
from tests.board.rom.rules import Contents, check
from zentrid.core.bootmodel import Before

pytestmark = [pytest.mark.board, pytest.mark.timeout(3600)]

WHOLE = os.environ.get("ZENTRI_ROM_CASES") == "all"
"""Without it: every pair of things that a case can show; with it every distinct outcome, and many more mixed inputs."""
PARTS = 6
MOST_WRONG = 3


@cache
def _representatives() -> list[Before]:
    return cases.representatives(whole=WHOLE)


@pytest.mark.parametrize("part", range(PARTS))
def test_the_rom_does_what_the_model_says(machine: RomMachine, contents: Contents, part: int):
    every = list(enumerate(_representatives()))[part::PARTS]
    wrong = []
    for number, before in every:
        try:
            check(machine, contents, before, number)
        except (AssertionError, ValueError, MachineError) as error:
            wrong.append(f"{number}: {error}")
            if len(wrong) == MOST_WRONG:
                break
    assert not wrong, f"wrong in {len(wrong)} of {len(every)} cases (or more)\n" + "\n\n".join(wrong)
