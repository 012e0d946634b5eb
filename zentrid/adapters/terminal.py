"""How a session looks on its terminal: prompt, answers, log text and the progress bar, in human or machine form."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from zentrid.adapters.console import Door
from zentrid.commands.call import BUFFERED, HEADER, PROMPT, Answer, SessionState
from zentrid.core.framing import body_bytes, clean, encode_answer, encode_data, encode_log

BAR_CHARS: Final = 24
LINE_CHARS: Final = 78
REDRAW_S: Final = 0.2
"""The bar is drawn at most five times a second."""
MACHINE_STEP_PERCENT: Final = 10
MAX_BUFFERED_LINES: Final = 500
_ERASE_LINE: Final = b"\r\x1b[K"


def bar(percent: int, text: str) -> str:
    """Return one line of progress that fits any terminal."""
    percent = max(0, min(100, percent))
    done = BAR_CHARS * percent // 100
    line = f"[{'#' * done}{'-' * (BAR_CHARS - done)}] {percent:3d}% {clean(text).replace(chr(10), ' ')}"
    return line[:LINE_CHARS]


class Terminal:
    """Writes a session's output to its door; implements the `Output` of commands."""

    def __init__(
        self, door: Door, state: SessionState, *, safe_mode: bool, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._door = door
        self._state = state
        self._safe_mode = safe_mode
        self._now_s = now_s
        self._buffer: list[str] = []
        self._bar: str | None = None
        self._bar_shown = ""
        self._bar_drawn_s = 0.0
        self._told: tuple[str, int] | None = None
        self._echoed = False
        """The cursor stands behind bytes that were echoed."""

    @property
    def prompt(self) -> str:
        """The prompt, or nothing where there is none."""
        if not self._state.flag(PROMPT):
            return ""
        return "SAFEMODE> " if self._safe_mode else "> "

    def log(self, text: str, level: str = "all") -> None:
        """Show lines before the answer, unless the print level says no."""
        if not self._state.shows(level):
            return
        if self._state.flag(BUFFERED):
            if len(self._buffer) < MAX_BUFFERED_LINES:
                self._buffer.append(text)
        else:
            self._write_log(text)

    def progress(self, percent: int, text: str) -> None:
        """Show progress: a bar for people, a block of log text now and then for programs."""
        if self._state.flag(HEADER):
            self._tell(percent, text)
            return
        self._bar = bar(percent, text)
        now_s = self._now_s()
        if not self._bar_shown or now_s - self._bar_drawn_s >= REDRAW_S:
            self._bar_drawn_s = now_s
            self._draw_bar()

    def _tell(self, percent: int, text: str) -> None:
        """Log progress when the state changes, and every ten percent."""
        mark = (text.partition(":")[0], percent // MACHINE_STEP_PERCENT)
        if mark != self._told:
            self._told = mark
            self.log(f"{percent}% {text}")

    def _draw_bar(self) -> None:
        if self._bar is not None and self._bar != self._bar_shown:
            self._door.write(_ERASE_LINE + self._bar.encode("utf-8"))
            self._bar_shown = self._bar

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._draw_bar()
            self._door.write(b"\r\n")
        self._bar, self._bar_shown = None, ""

    def _write_log(self, text: str) -> None:
        if self._state.flag(HEADER):
            self._door.write(encode_log(text))
        else:
            self._end_bar()
            self._door.write(body_bytes(text))

    def echo(self, data: bytes) -> None:
        """Show bytes that were typed and are no command: those that a terminal would obey as dots."""
        shown = bytes(byte if byte in b"\r\n" or 0x20 <= byte < 0x7F else ord(".") for byte in data)
        self._door.write(b"\r\n".join(shown.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")))
        self._echoed = not shown.endswith((b"\r", b"\n"))

    def answer(self, answer: Answer) -> None:
        """Send an answer: log text that was held back, the reason of a failure, then code and body."""
        self._end_bar()
        if self._echoed:
            self._door.write(b"\r\n")
        self._echoed = False
        self._told = None
        held, self._buffer = self._buffer, []
        for text in held:
            self._write_log(text)
        if answer.reason and self._state.shows("error"):
            self._write_log(answer.reason)
        self._door.write(self._encoded(answer))

    def _encoded(self, answer: Answer) -> bytes:
        if self._state.flag(HEADER):
            if answer.data is not None:
                return encode_data(answer.data, safe_mode=self._safe_mode)
            return encode_answer(answer.code, answer.body, safe_mode=self._safe_mode)
        # A person's terminal is shown bytes as text: it must not obey them.
        return body_bytes(answer.body if answer.data is None else answer.data.decode("utf-8", "replace"))

    def announce(self, text: str, redraw: bytes) -> None:
        """Show lines that no command asked for, and the line being typed again below them."""
        if self._state.flag(HEADER):
            self._door.write(encode_log(text))
        else:
            self._door.write(_ERASE_LINE + body_bytes(text) + redraw)
