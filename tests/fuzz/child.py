"""The process that fuzzes one target: `python -m tests.fuzz.child <target> <libFuzzer arguments>`. See `run`."""

from __future__ import annotations

import importlib
import random
import sys
from typing import Any


def main(name: str, arguments: list[str]) -> None:
    """Fuzz one target; does not return."""
    atheris: Any = importlib.import_module("atheris")  # not there after the ordinary set-up
    # Only what is imported in here is watched for code that was not reached before.
    with atheris.instrument_imports(include=["zentrid", "tuf", "securesystemslib"]):
        from tests.fuzz.mutators import MUTATORS
        from tests.fuzz.targets import TARGETS

    target, mutator = TARGETS[name], MUTATORS.get(name)

    def one_input(data: bytes) -> None:
        target(data)

    options: dict[str, Any] = {}
    if mutator is not None:

        def mutate(data: bytes, max_size: int, seed: int) -> bytes:
            dice = random.Random(seed)
            if dice.random() < 0.3:
                return bytes(atheris.Mutate(data, max_size))
            return mutator(data, lambda part: bytes(atheris.Mutate(part, len(part) + 200)), dice)[:max_size]

        options["custom_mutator"] = mutate
    atheris.Setup([sys.argv[0], *arguments], one_input, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
