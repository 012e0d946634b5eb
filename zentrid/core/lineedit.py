"""The line editor: a terminal's bytes in; echo and finished lines out. Pure, bounded, never an exception.

`feed` stops after each finished line: carrying it out may change how the bytes after it are to be taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final
from unicodedata import combining, east_asian_width

from zentrid.core.grammar import MAX_LINE_BYTES

MAX_HISTORY: Final = 32
MAX_CANDIDATES: Final = 64
_MAX_ESCAPE_BYTES: Final = 16
_BELL: Final = b"\a"

Complete = Callable[[str], Sequence[str]]
"""Given the text before the cursor: the words that could stand in place of its last one."""


class Event(Enum):
    """What the editor found in the bytes."""

    NONE = "none"
    LINE = "line"
    INTERRUPT = "interrupt"
    """Ctrl-C."""
    END = "end"
    """Ctrl-D on an empty line."""
    OVERFLOW = "overflow"
    """A line longer than `MAX_LINE_BYTES` has ended; only its beginning is known, and must not be carried out."""
    INVALID = "invalid"
    """A line with bytes that are not UTF-8 has ended; only the others are known, and must not be carried out."""


@dataclass(frozen=True)
class Step:
    """The outcome of one `feed`."""

    output: bytes
    """To be sent to the terminal."""
    event: Event
    line: str = ""
    rest: bytes = b""
    """Bytes after the event, not looked at yet."""


def _width(text: str) -> int:
    """Return how many columns a terminal needs for the text."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _common_start(words: Sequence[str]) -> str:
    """Return what all words begin with; `words` is not empty."""
    first, last = min(words), max(words)
    size = 0
    while size < len(first) and first[size] == last[size]:
        size += 1
    return first[:size]


class LineEditor:
    """One line being typed, with history and completion.

    With `echo` off nothing is sent back. With `editing` off (machine mode) only backspace, Ctrl-C and line ends count.
    """

    def __init__(self, complete: Complete = lambda _before: ()) -> None:
        self.echo = True
        self.editing = True
        self.prompt = ""
        """What stands before the line on the screen, for drawing it again."""
        self._complete = complete
        self._history: deque[str] = deque(maxlen=MAX_HISTORY)
        self._after_cr = False
        self._escape = bytearray()
        self._start()

    def _start(self) -> None:
        self._text: list[str] = []
        self._at = 0
        self._size_bytes = 0
        self._partial = bytearray()
        self._invalid = False
        self._overflow = False
        self._browsing = 0
        self._draft = ""

    @property
    def text(self) -> str:
        """The line so far."""
        return "".join(self._text)

    def remember(self, line: str) -> None:
        """Put a line into the history; the caller leaves out the ones with secrets."""
        if line.strip() and (not self._history or self._history[-1] != line):
            self._history.append(line)

    def redraw(self) -> bytes:
        """Return what draws prompt and line again, on a new line of the screen."""
        if not self.echo:
            return b""
        back = _width("".join(self._text[self._at :]))
        return (self.prompt + self.text).encode() + (b"\x1b[%dD" % back if back else b"")

    def without_line_feed(self, data: bytes) -> bytes:
        """Return what follows the line that has just ended without the LF that belongs to its CR."""
        after_cr, self._after_cr = self._after_cr, False
        return data[1:] if after_cr and data[:1] == b"\n" else data

    def feed(self, data: bytes) -> Step:
        """Take bytes up to the first event."""
        output = bytearray()
        for index, byte in enumerate(data):
            event, line = self._byte(byte, output)
            if event is not Event.NONE:
                return Step(bytes(output) if self.echo else b"", event, line, data[index + 1 :])
        return Step(bytes(output) if self.echo else b"", Event.NONE)

    def _byte(self, byte: int, output: bytearray) -> tuple[Event, str]:
        after_cr, self._after_cr = self._after_cr, byte == 0x0D
        if byte == 0x0A and after_cr:
            return Event.NONE, ""
        if byte in (0x0D, 0x0A):
            self._escape.clear()
            return self._finish(output)
        if byte == 0x03:
            self._escape.clear()
            self._start()
            output += b"^C\r\n"
            return Event.INTERRUPT, ""
        if self._escape:
            self._escape_byte(byte, output)
        elif byte >= 0x80:
            self._multibyte(byte, output)
        else:
            self._flush_partial()
            if byte == 0x04 and self.editing:
                if not self._text and not self._overflow:
                    return Event.END, ""
                self._delete(self._at, self._at + 1, output)
            elif byte >= 0x20 and byte != 0x7F:
                self._insert(chr(byte), output)
            else:
                self._control(byte, output)
        return Event.NONE, ""

    def _finish(self, output: bytearray) -> tuple[Event, str]:
        self._flush_partial()
        if self._overflow:
            event, line = Event.OVERFLOW, self.text
        elif self._invalid:
            event, line = Event.INVALID, self.text
        else:
            event, line = Event.LINE, self.text
        self._start()
        output += b"\r\n"
        return event, line

    # --- text -----------------------------------------------------------------------------------------------------
    def _multibyte(self, byte: int, output: bytearray) -> None:
        """Collect the bytes of one character; bytes that can be none spoil the line."""
        if byte & 0xC0 != 0x80:
            self._flush_partial()
        self._partial.append(byte)
        lead = self._partial[0]
        need = 2 if 0xC2 <= lead <= 0xDF else 3 if 0xE0 <= lead <= 0xEF else 4 if 0xF0 <= lead <= 0xF4 else 1
        if len(self._partial) < need:
            return
        try:
            char = self._partial.decode("utf-8")
        except UnicodeDecodeError:
            self._invalid = True
        else:
            if char.isprintable():
                self._insert(char, output)
            else:
                self._invalid = True
        self._partial.clear()

    def _flush_partial(self) -> None:
        if self._partial:
            self._invalid = True
            self._partial.clear()

    def _insert(self, text: str, output: bytearray) -> None:
        size_bytes = len(text.encode("utf-8"))
        if self._overflow or self._size_bytes + size_bytes > MAX_LINE_BYTES:
            self._overflow = True
            output += _BELL
            return
        self._size_bytes += size_bytes
        self._text[self._at : self._at] = list(text)
        self._at += len(text)
        tail = "".join(self._text[self._at :])
        output += (text + tail).encode("utf-8") + b"\b" * _width(tail)

    def _delete(self, start: int, end: int, output: bytearray) -> None:
        """Take out the characters from `start` to `end`; the cursor ends up at `start`."""
        removed = "".join(self._text[start:end])
        if not removed:
            return
        output += b"\b" * _width("".join(self._text[start : self._at]))
        del self._text[start:end]
        self._size_bytes -= len(removed.encode("utf-8"))
        self._at = start
        tail = "".join(self._text[start:])
        blank = _width(removed)
        output += tail.encode("utf-8") + b" " * blank + b"\b" * (blank + _width(tail))

    def _replace(self, text: str, output: bytearray) -> None:
        """Put `text` in place of the whole line."""
        self._move(len(self._text), output)
        self._delete(0, len(self._text), output)
        self._insert(text, output)

    def _move(self, target: int, output: bytearray) -> None:
        target = max(0, min(target, len(self._text)))
        if target < self._at:
            output += b"\b" * _width("".join(self._text[target : self._at]))
        else:
            output += "".join(self._text[self._at : target]).encode("utf-8")
        self._at = target

    # --- keys -----------------------------------------------------------------------------------------------------
    def _control(self, byte: int, output: bytearray) -> None:
        if byte in (0x08, 0x7F):
            if self._at > 0:
                self._delete(self._at - 1, self._at, output)
            return
        if not self.editing:
            if byte == 0x09:
                self._insert(" ", output)
            return
        if byte == 0x1B:
            self._escape.append(byte)
        elif byte == 0x09:
            self._tab(output)
        elif byte == 0x01:
            self._move(0, output)
        elif byte == 0x05:
            self._move(len(self._text), output)
        elif byte == 0x0B:
            self._delete(self._at, len(self._text), output)
        elif byte == 0x15:
            self._delete(0, self._at, output)
            if not self._text:
                self._overflow = self._invalid = False
        elif byte == 0x17:
            self._delete(self._word_start(), self._at, output)
        elif byte == 0x10:
            self._browse(1, output)
        elif byte == 0x0E:
            self._browse(-1, output)
        elif byte == 0x0C:
            output += b"\x1b[H\x1b[2J" + self.redraw()

    def _word_start(self) -> int:
        at = self._at
        while at > 0 and self._text[at - 1] == " ":
            at -= 1
        while at > 0 and self._text[at - 1] != " ":
            at -= 1
        return at

    def _escape_byte(self, byte: int, output: bytearray) -> None:
        """Take the next byte of an escape sequence; unknown sequences do nothing, endless ones are given up."""
        self._escape.append(byte)
        sequence = bytes(self._escape)
        if len(sequence) == 2 and byte in b"[O":
            return
        if len(sequence) > 2 and 0x20 <= byte <= 0x3F and len(sequence) < _MAX_ESCAPE_BYTES:
            return
        self._escape.clear()
        final = sequence[2:] if len(sequence) > 2 else b""
        if final == b"A":
            self._browse(1, output)
        elif final == b"B":
            self._browse(-1, output)
        elif final == b"C":
            self._move(self._at + 1, output)
        elif final == b"D":
            self._move(self._at - 1, output)
        elif final in (b"H", b"1~", b"7~"):
            self._move(0, output)
        elif final in (b"F", b"4~", b"8~"):
            self._move(len(self._text), output)
        elif final == b"3~":
            self._delete(self._at, self._at + 1, output)

    def _browse(self, step: int, output: bytearray) -> None:
        """Show an older (1) or newer (-1) line of the history; what was being typed comes back at the end."""
        target = self._browsing + step
        if not 0 <= target <= len(self._history):
            output += _BELL
            return
        if self._browsing == 0:
            self._draft = self.text
        self._browsing = target
        self._replace(self._history[-target] if target else self._draft, output)

    def _tab(self, output: bytearray) -> None:
        """Complete the word before the cursor as far as it is clear; show the candidates when it is not."""
        before = "".join(self._text[: self._at])
        word = before[before.rfind(" ") + 1 :]
        candidates = [c for c in self._complete(before) if c.startswith(word)][:MAX_CANDIDATES]
        if not candidates:
            output += _BELL
            return
        more = _common_start(candidates)[len(word) :]
        if len(candidates) == 1:
            self._insert(more + " ", output)
        elif more:
            self._insert(more, output)
        else:
            output += b"\r\n" + "  ".join(candidates).encode("utf-8") + b"\r\n" + self.redraw()
