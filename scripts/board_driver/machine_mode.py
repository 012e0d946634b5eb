"""The command language's machine mode, seen from outside: cuts answers out of a byte stream. Pure.

An answer is a header, `R` (`S` in safe mode) or `L` (log text before the answer), one digit code, five digits length,
CRLF, and then that many bytes. On a serial line anything else may stand between answers (echo, prompts, kernel
messages): noise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from scripts.board_driver.errors import BoardAssertionError

MAX_NOISE_BYTES: Final = 256 * 1024
_HEADER: Final = re.compile(rb"([RSL])(\d)(\d{5})\r\n")
_HEADER_BYTES: Final = 9

CODES: Final = {
    0: "success", 1: "failed", 2: "parse error", 3: "unknown command", 4: "too few arguments", 5: "too many arguments",
    6: "unknown option", 7: "bad argument", 8: "buffer overflow", 9: "out of bounds",
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One header with its bytes."""

    kind: Literal["R", "S", "L"]
    code: int
    body: bytes

    @property
    def is_answer(self) -> bool:
        """False: log text."""
        return self.kind != "L"


@dataclass(frozen=True)
class Answer:
    """What the board said to one command line."""

    code: int
    """0 success … 9, see CODES."""
    body: str
    """Without the final CRLF; lines inside end with LF."""
    log: tuple[str, ...] = ()
    """Log text that came before the answer, for instance why a command failed."""
    safe_mode: bool = False

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return self.code == 0

    def expect_ok(self) -> str:
        """Return the body; BoardAssertionError if the command did not succeed."""
        if not self.ok:
            why = "; ".join((self.body, *self.log))
            raise BoardAssertionError(f"the board answered code {self.code} ({CODES.get(self.code, '?')}): {why}")
        return self.body


class SafeModeError(BoardAssertionError):
    """The board is in safe mode, where it never becomes healthy."""

    def __init__(self, version: Answer) -> None:
        self.version = version
        """What it answered to `version`."""
        super().__init__("the board is in safe mode; see `faults_print`, then `faults_reset` and `reboot`")


class MachineParser:
    """Takes bytes as they come, gives whole frames. Keeps the last of the noise for messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._noise = bytearray()

    @property
    def noise(self) -> bytes:
        """What was no part of any frame, at most MAX_NOISE_BYTES of it, with what is not decided yet."""
        return bytes(self._noise + self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes."""
        self._buffer += data
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        match = _HEADER.search(self._buffer)
        if match is None:
            # The beginning of a header may be at the end.
            self._skip(max(0, len(self._buffer) - (_HEADER_BYTES - 1)))
            return None
        # Before skipping: a match looks into the buffer itself.
        kind, code, size = (bytes(group).decode() for group in match.groups())
        self._skip(match.start())
        end = _HEADER_BYTES + int(size)
        if len(self._buffer) < end:
            return None
        frame = Frame(kind, int(code), bytes(self._buffer[_HEADER_BYTES:end]))  # type: ignore[arg-type]
        del self._buffer[:end]
        return frame

    def _skip(self, count: int) -> None:
        self._noise += self._buffer[:count]
        del self._noise[:-MAX_NOISE_BYTES]
        del self._buffer[:count]


def text_of(body: bytes) -> str:
    """Return a body as text: without its final line end, LF between lines."""
    return body.decode("utf-8", errors="replace").replace("\r\n", "\n").removesuffix("\n")


def answer_of(frames: list[Frame]) -> Answer:
    """Return the answer that ends `frames`. ValueError if the last one is no answer."""
    if not frames or not frames[-1].is_answer:
        raise ValueError("there is no answer among the frames")
    last = frames[-1]
    log = tuple(text_of(frame.body) for frame in frames if not frame.is_answer)
    return Answer(last.code, text_of(last.body), log, safe_mode=last.kind == "S")


def check_line(line: str) -> bytes:
    """Return a command line as the bytes to type. ValueError if it is empty, too long or not one line of plain text."""
    if not line.strip() or len(line.encode()) > 2000 or not line.isprintable():
        raise ValueError("a command is one line of printable text, at most 2000 bytes")
    return line.encode() + b"\r\n"
