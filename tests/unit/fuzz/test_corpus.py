"""The fuzz targets without the fuzzer: every input that was ever worth keeping holds, and the seeds still reach the depths."""

import random
from pathlib import Path

import pytest
import zstandard

from tests.fuzz.mutators import MUTATORS, unpacked
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


def test_a_frame_that_claims_more_than_there_is_memory_is_left_as_it_is():
    """The mutators read what the fuzzer has changed before: such a frame once ended a run with a MemoryError."""
    claims = bytes.fromhex("28b52ffde0") + (1 << 62).to_bytes(8, "little") + b"\1\0\0"
    with pytest.raises(zstandard.ZstdError):
        unpacked(claims, 1 << 20)
    assert unpacked(zstandard.ZstdCompressor().compress(b"abc"), 3) == b"abc"
