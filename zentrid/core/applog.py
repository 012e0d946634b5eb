"""An application's output as lines for the log: cut, cleaned, and bounded in a flood. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_LINE_BYTES: Final = 1000
"""A longer line is cut into several."""
WINDOW_S: Final = 10.0
WINDOW_BYTES: Final = 64 * 1024
"""So much of the output is kept in each window; the rest is counted."""
LINE_BYTES: Final = 32
"""What a line costs besides its text: time stamp and source. Else a flood of empty lines would cost nothing."""
TAIL_BYTES: Final = 4096
"""So much of the last output goes into a fault report."""


def clean(line: bytes) -> str:
    """Return a line as text that a terminal shows and does not obey."""
    text = line.decode("utf-8", "replace").rstrip("\r").replace("\t", "    ")
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


class OutputLines:
    """Turns what comes out of a pipe into whole lines, within the bound; one for each life of an application."""

    def __init__(self) -> None:
        self._rest = b""
        self._window_since_s = 0.0
        self._kept_bytes = 0
        self._dropped_lines = 0
        self._dropped_bytes = 0
        self._tail: deque[str] = deque()
        self._tail_bytes = 0

    @property
    def flooded(self) -> bool:
        """The window's bound is reached: what comes now is only counted."""
        return self._dropped_lines > 0

    @property
    def tail(self) -> str:
        """The last lines, at most TAIL_BYTES, those of a flood too."""
        return "\n".join(self._tail)

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """Take what was read at `now_s`; return the lines to keep."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        return self._keep(lines, now_s)

    def end(self, now_s: float) -> list[str]:
        """Return what is left at the end: a last line without its line feed, and how much a flood was cut by."""
        lines, self._rest = ([self._rest] if self._rest else []), b""
        return [*self._keep(lines, now_s), *self._tell_dropped()]

    def settle(self, now_s: float) -> list[str]:
        """Begin a new window when the old one is over; return the line about what it dropped, if it did."""
        if now_s - self._window_since_s < WINDOW_S:
            return []
        self._window_since_s, self._kept_bytes = now_s, 0
        return self._tell_dropped()

    def _keep(self, lines: list[bytes], now_s: float) -> list[str]:
        kept = self.settle(now_s)
        for whole in lines:
            for line in _pieces(whole):
                text = clean(line)
                self._remember(text)
                size = len(text.encode()) + LINE_BYTES
                if self._kept_bytes + size > WINDOW_BYTES or self._dropped_lines:
                    self._dropped_lines += 1
                    self._dropped_bytes += len(line) + 1
                    continue
                self._kept_bytes += size
                kept.append(text)
        return kept

    def _remember(self, text: str) -> None:
        self._tail.append(text)
        self._tail_bytes += len(text.encode()) + 1
        while self._tail_bytes > TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft().encode()) + 1

    def _tell_dropped(self) -> list[str]:
        if not self._dropped_lines:
            return []
        told = f"[{self._dropped_lines} more lines, {self._dropped_bytes} bytes, were not kept]"
        self._dropped_lines = self._dropped_bytes = 0
        return [told]


def _pieces(line: bytes) -> list[bytes]:
    return [line[at : at + MAX_LINE_BYTES] for at in range(0, len(line), MAX_LINE_BYTES)] or [b""]
