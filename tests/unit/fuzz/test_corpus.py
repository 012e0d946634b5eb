"""The fuzz targets without the fuzzer: every input that was ever worth keeping holds, and the seeds still reach the depths."""

import random
from pathlib import Path

import pytest

from tests.fuzz.mutators import MUTATORS
from tests.fuzz.seeds import CORPUS, dictionary, seeds
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_inputs_of_the_corpus(path: Path):
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_code_makes_is_accepted(target: str):
    made = seeds(target)
    assert made
    assert all(TARGETS[target](data) for data in made)
    assert (CORPUS / target).is_dir()
    dictionary(target)


@pytest.mark.parametrize("target", TARGETS)
def test_a_thousand_changes(target: str):
    dice = random.Random(target)
    mutator = MUTATORS.get(target)

    def change(part: bytes) -> bytes:
        data = bytearray(part or b"x")
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
            data = data or bytearray(b"x")
        return bytes(data)

    made = seeds(target)
    accepted = 0
    for number in range(150 if target == "signed_metadata" else 1000):
        seed = dice.choice(made)
        accepted += TARGETS[target](mutator(seed, change, dice) if mutator and number % 4 else change(seed))
    # Repaired inputs get through; where that says nothing, at least nothing broke.
    assert accepted or target in ("manifest", "patch", "bundle", "worker_line", "frames")
