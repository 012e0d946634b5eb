"""How answers look on the wire: codes, their texts, and the headers of machine mode.

A header is `R` (`S` in safe mode, `L` for log text), one digit code, five digits length, CRLF; then exactly that many
bytes, the last two of which are CRLF. Length 0 means: no body. Pure: text in, bytes out.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

CRLF: Final = b"\r\n"
HEADER_BYTES: Final = 9
"""`R000009` and CRLF."""
MAX_BODY_BYTES: Final = 99_999
"""Five digits of length."""
MAX_DATA_BYTES: Final = MAX_BODY_BYTES - 2
"""Most raw bytes in one answer: CRLF follows them."""
MAX_LOG_BYTES: Final = 4096
"""Longest log block; a longer text goes out as several blocks."""
_KINDS: Final = b"RSL"


class Code(IntEnum):
    """What became of a command: the one digit of a header, and the exit status of `zentrid.shell -c`."""

    SUCCESS = 0
    FAILED = 1
    PARSE_ERROR = 2
    UNKNOWN_COMMAND = 3
    TOO_FEW_ARGUMENTS = 4
    TOO_MANY_ARGUMENTS = 5
    UNKNOWN_OPTION = 6
    BAD_ARGUMENT = 7
    BUFFER_OVERFLOW = 8
    OUT_OF_BOUNDS = 9


TEXTS: Final[dict[Code, str]] = {
    Code.SUCCESS: "Success",
    Code.FAILED: "Command failed",
    Code.PARSE_ERROR: "Parse error",
    Code.UNKNOWN_COMMAND: "Unknown command",
    Code.TOO_FEW_ARGUMENTS: "Too few arguments",
    Code.TOO_MANY_ARGUMENTS: "Too many arguments",
    Code.UNKNOWN_OPTION: "Unknown option",
    Code.BAD_ARGUMENT: "Bad argument",
    Code.BUFFER_OVERFLOW: "Buffer overflow",
    Code.OUT_OF_BOUNDS: "Out of bounds",
}


class Frame(NamedTuple):
    """One decoded block of machine mode."""

    kind: str
    """`R` an answer, `S` an answer in safe mode, `L` log text."""
    code: int
    body: bytes


class FrameError(ValueError):
    """Bytes that are no header of machine mode."""


def clean(text: str) -> str:
    """Return `text` without anything that a terminal would obey: control characters become `?`, lines end with LF.

    Texts from servers and files pass here before they reach a person's terminal.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ").split("\n")
    return "\n".join("".join(c if _harmless(c) else "?" for c in line) for line in lines)


def _harmless(char: str) -> bool:
    """Tell whether a terminal merely shows this character: C0, DEL and C1 are obeyed; surrogates cannot be sent."""
    point = ord(char)
    return 0x20 <= point < 0x7F or (point > 0x9F and not 0xD800 <= point <= 0xDFFF)


def body_bytes(text: str) -> bytes:
    """Return `text` as it goes out: UTF-8, every line ended by CRLF; nothing for an empty text."""
    if not text:
        return b""
    tidy = clean(text)
    if not tidy.endswith("\n"):
        tidy += "\n"
    return tidy.replace("\n", "\r\n").encode("utf-8")


def encode_answer(code: Code, text: str, *, safe_mode: bool) -> bytes:
    """Return a whole answer of machine mode; one that is too long for the header becomes a buffer overflow answer."""
    body = body_bytes(text)
    if len(body) > MAX_BODY_BYTES:
        code, body = Code.BUFFER_OVERFLOW, body_bytes(TEXTS[Code.BUFFER_OVERFLOW])
    return _block("S" if safe_mode else "R", code, body)


def encode_data(data: bytes, *, safe_mode: bool) -> bytes:
    """Return a successful answer whose body is `data` as it is, and CRLF; no body for no data. ValueError: too long."""
    if len(data) > MAX_DATA_BYTES:
        raise ValueError(f"{len(data)} bytes do not fit into one answer")
    return _block("S" if safe_mode else "R", Code.SUCCESS, data + CRLF if data else b"")


def encode_log(text: str) -> bytes:
    """Return log text as one or more `L` blocks, each within `MAX_LOG_BYTES` and ending with a whole line."""
    blocks = []
    for line in clean(text).removesuffix("\n").split("\n") if text else ():
        raw = line.encode("utf-8")
        limit = MAX_LOG_BYTES - len(CRLF)
        while len(raw) > limit:
            cut = limit
            while cut > limit - 4 and raw[cut] & 0xC0 == 0x80:  # never inside a character
                cut -= 1
            blocks.append(_block("L", Code.SUCCESS, raw[:cut] + CRLF))
            raw = raw[cut:]
        blocks.append(_block("L", Code.SUCCESS, raw + CRLF))
    return b"".join(blocks)


def _block(kind: str, code: Code, body: bytes) -> bytes:
    return f"{kind}{code:d}{len(body):05d}".encode("ascii") + CRLF + body


class FrameReader:
    """Takes a machine-mode byte stream apart, in pieces of any size. Holds at most one block."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes; return the blocks that are complete now. Raises FrameError at bytes that are no header."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._buffer) < HEADER_BYTES:
            return None
        header = bytes(self._buffer[:HEADER_BYTES])
        if header[0] not in _KINDS or not header[1:7].isdigit() or header[7:] != CRLF:
            raise FrameError(f"expected a header such as R000009, found {header!r}")
        size = int(header[2:7])
        if len(self._buffer) < HEADER_BYTES + size:
            return None
        body = bytes(self._buffer[HEADER_BYTES : HEADER_BYTES + size])
        del self._buffer[: HEADER_BYTES + size]
        return Frame(chr(header[0]), header[1] - ord("0"), body)
