"""An application's output as lines for the log: cut, cleaned, and bounded in a flood. Pure."""

from __future__ import annotations

from typing import Final

from zentrid.core.text import printable

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
    return printable(text)


class OutputLines:
    """Turns what comes out of a pipe into whole lines, within the bound; one for each life of an application.

    Beyond the bound line ends are only counted: a flood must not cost what its lines would.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._window_since_s = 0.0
        self._kept_bytes = 0
        self._dropped_lines = 0
        self._dropped_bytes = 0
        self._last = b""

    @property
    def flooded(self) -> bool:
        """The window's bound is reached: what comes now is only counted."""
        return self._dropped_lines > 0

    @property
    def tail(self) -> str:
        """The last lines, at most TAIL_BYTES, those of a flood too."""
        data = self._last
        if len(data) > TAIL_BYTES:  # it may begin in the middle of a line
            data = data[data.find(b"\n", 0, MAX_LINE_BYTES) + 1 :]
        text = "\n".join(clean(piece) for line in data.removesuffix(b"\n").split(b"\n") for piece in _pieces(line))
        cut = text.encode()[-TAIL_BYTES - 1 :]  # clean text may be longer
        return text if len(cut) <= TAIL_BYTES else cut[max(cut.find(b"\n"), 0) + 1 :].decode("utf-8", "ignore")

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """Take what was read at `now_s`; return the lines to keep."""
        kept = self.settle(now_s)
        self._last = (self._last + data)[-TAIL_BYTES - 1 :]
        data, at, full = self._rest + data, 0, self.flooded
        while not full:
            end = data.find(b"\n", at, at + MAX_LINE_BYTES + 1)
            if end < 0 and len(data) - at <= MAX_LINE_BYTES:
                break
            line = data[at:end] if end >= 0 else data[at : at + MAX_LINE_BYTES]
            full = not self._keep(line, kept)
            if not full:
                at = end + 1 if end >= 0 else at + MAX_LINE_BYTES
        self._rest = data[at:]
        if full:
            self._drop()
        return kept

    def end(self, now_s: float) -> list[str]:
        """Return what is left at the end: a last line without its line feed, and how much a flood was cut by."""
        kept = self.settle(now_s)
        line, self._rest = self._rest, b""
        if line and (self.flooded or not self._keep(line, kept)):
            self._dropped_lines += 1
            self._dropped_bytes += len(line)
        return [*kept, *self._tell_dropped()]

    def settle(self, now_s: float) -> list[str]:
        """Begin a new window when the old one is over; return the line about what it dropped, if it did."""
        if now_s - self._window_since_s < WINDOW_S:
            return []
        self._window_since_s, self._kept_bytes = now_s, 0
        return self._tell_dropped()

    def _keep(self, line: bytes, kept: list[str]) -> bool:
        """Keep a line, if the bound has room for it."""
        text = clean(line)
        size = len(text.encode()) + LINE_BYTES
        if self._kept_bytes + size > WINDOW_BYTES:
            return False
        self._kept_bytes += size
        kept.append(text)
        return True

    def _drop(self) -> None:
        """Count what is whole of what waits; a line that is too long counts as so many as it would be cut into."""
        data = self._rest
        rest = data[data.rfind(b"\n") + 1 :]
        pieces = max(0, len(rest) - 1) // MAX_LINE_BYTES
        self._rest = rest[pieces * MAX_LINE_BYTES :]
        self._dropped_lines += data.count(b"\n") + pieces
        self._dropped_bytes += len(data) - len(self._rest)

    def _tell_dropped(self) -> list[str]:
        if not self._dropped_lines:
            return []
        told = f"[{self._dropped_lines} more lines, {self._dropped_bytes} bytes, were not kept]"
        self._dropped_lines = self._dropped_bytes = 0
        return [told]


def _pieces(line: bytes) -> list[bytes]:
    return [line[at : at + MAX_LINE_BYTES] for at in range(0, len(line), MAX_LINE_BYTES)] or [b""]
