"""Tells a story step by step, with the time each step took, and stops at the first one that did not hold."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO


class StepFailedError(AssertionError):
    """A step of a story did not hold."""


@dataclass
class Narrator:
    """Writes numbered steps to a stream; remembers how long each took."""

    stream: TextIO = sys.stdout
    steps: list[tuple[str, float]] = field(default_factory=list)
    _start_s: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, sentence: str) -> Iterator[None]:
        """Tell a step and, when it is over, its time. An exception inside is told as the step that did not hold."""
        self._write(f"\n{len(self.steps) + 1:2}. {sentence}\n")
        begin_s = time.monotonic()
        try:
            yield
        except BaseException as error:
            self._write(f"    did not hold after {time.monotonic() - begin_s:.1f} s: {error}\n")
            raise
        took_s = time.monotonic() - begin_s
        self.steps.append((sentence, took_s))
        self._write(f"    done in {took_s:.1f} s\n")

    def note(self, text: str) -> None:
        """Tell something that was seen, indented under its step."""
        for line in text.strip().splitlines():
            self._write(f"    | {line}\n")

    def end(self) -> None:
        """Tell how long the whole story took."""
        self._write(f"\nAll {len(self.steps)} steps held, in {time.monotonic() - self._start_s:.0f} s.\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def hold(condition: object, sentence: str) -> None:
    """Raise StepFailedError with `sentence` unless the condition is true."""
    if not condition:
        raise StepFailedError(sentence)
