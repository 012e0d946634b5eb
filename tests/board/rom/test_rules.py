"""The boot script in the real ROM does what its model says, case by case."""

from __future__ import annotations

import os

import pytest

from tests.board.rom import cases
from tests.board.rom.machine import RomMachine
from tests.board.rom.rules import Contents, check
from zentrid.core.bootrules import Before

pytestmark = [pytest.mark.board, pytest.mark.timeout(1200)]

WHOLE = os.environ.get("ZENTRI_ROM_CASES") == "all"
"""Without it: every pair of things that a case can show; with it every distinct outcome, and many more mixed inputs."""
CHUNK = 50


def _chunks() -> list[list[tuple[int, Before]]]:
    found = [
        (number, cases.placed(case.before, cases.PLACEMENTS[number % len(cases.PLACEMENTS)]))
        for number, case in enumerate(cases.representatives(whole=WHOLE))
    ]
    return [found[start : start + CHUNK] for start in range(0, len(found), CHUNK)]


@pytest.mark.parametrize("chunk", _chunks(), ids=lambda chunk: f"{chunk[0][0]}-{chunk[-1][0]}")
def test_the_rom_does_what_the_model_says(machine: RomMachine, contents: Contents, chunk: list[tuple[int, Before]]):
    wrong = []
    for number, before in chunk:
        try:
            check(machine, contents, before, number)
        except AssertionError as error:
            wrong.append(f"{number}: {error}")
    assert not wrong, f"{len(wrong)} of {len(chunk)} cases\n" + "\n\n".join(wrong[:3])
