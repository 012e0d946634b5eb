"""The rules of the upload door: who may come in, what may be sent, when it is full, when it closes. Pure.

A person opens the door for some minutes (`ota upload`); the console shows a token, and one bundle may come in with it.
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass
from typing import Any, Final

OPEN_S: Final = 600.0
"""So long nobody needs to come."""
MOST_S: Final = 3600.0
"""So long everything together may take, installing included."""
IDLE_S: Final = 20.0
"""A sender that is silent for so long has gone."""
MAX_BUNDLE_BYTES: Final = 2 * 1024 * 1024 * 1024
RESERVE_BYTES: Final = 16 * 1024 * 1024
"""Stays free on the data partition whatever is sent."""
MAX_WRONG_TOKENS: Final = 5
MAX_LINE_BYTES: Final = 16 * 1024
TOKEN_BYTES: Final = 10
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})", re.ASCII)


class UploadRefusedError(Exception):
    """A request that is not carried out; `status` is HTTP's."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        self.sentence = sentence
        super().__init__(sentence)


@dataclass(frozen=True)
class Part:
    """Which bytes of the bundle a request brings."""

    start: int
    end: int
    total_bytes: int


@dataclass
class Received:
    """What is there."""

    bytes: int = 0
    total_bytes: int | None = None
    """As the first part said."""

    @property
    def complete(self) -> bool:
        """Whether the bundle is there as a whole."""
        return self.total_bytes is not None and self.bytes == self.total_bytes

    def accept(self, content_range: str | None, length: int | None, free_bytes: int) -> Part:
        """Return what a request may bring; without a range it starts anew. Raises UploadRefusedError.

        `free_bytes`: what the file system has left for the file, apart from what the file has already.
        """
        part = parse_part(content_range, length)
        if not 0 < part.total_bytes <= MAX_BUNDLE_BYTES:
            raise UploadRefusedError(413, f"a bundle has 1 to {MAX_BUNDLE_BYTES} bytes; send a smaller one")
        if part.start and (part.start, part.total_bytes) != (self.bytes, self.total_bytes):
            raise UploadRefusedError(409, f"go on at byte {self.bytes}, or begin anew without Content-Range")
        room = free_bytes + (0 if part.start else self.bytes) - RESERVE_BYTES
        if part.total_bytes - part.start > room:
            raise UploadRefusedError(
                507, f"the data partition has room for {max(room, 0)} bytes; delete something, or use: ota -u <address>"
            )
        if not part.start:
            self.bytes = 0
        self.total_bytes = part.total_bytes
        return part


def parse_part(content_range: str | None, length: int | None) -> Part:
    """Return what a request says that it brings. Raises UploadRefusedError."""
    if length is None:
        raise UploadRefusedError(411, "say how long the bundle is (Content-Length)")
    if content_range is None:
        return Part(0, length, length)
    match = _RANGE.fullmatch(content_range)
    start, last, total = (int(number) for number in match.groups()) if match else (0, -1, 0)
    if not start <= last < total or last + 1 - start != length:
        raise UploadRefusedError(400, "Content-Range must be: bytes first-last/total, and fit Content-Length")
    return Part(start, last + 1, total)


def is_token(header: str, token: str) -> bool:
    """Tell whether an Authorization header has the token; takes the same time for every wrong one."""
    given = header.removeprefix("Bearer ").strip()
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


@dataclass(frozen=True)
class DoorNews:
    """What the door's process says."""

    kind: str
    """`receiving`, `refused`, `received` or `closed`."""
    received_bytes: int = 0
    total_bytes: int = 0
    sentence: str = ""

    def to_line(self) -> bytes:
        """Return it as the supervisor reads it."""
        return json.dumps(self.__dict__).encode() + b"\n"


def parse_news(line: bytes) -> DoorNews:
    """Return what the process said; it has no rights and is not believed more than it must. Raises ValueError."""
    try:
        value: dict[str, Any] = json.loads(line)
        kind, sentence = str(value["kind"]), str(value["sentence"])
        received, total = int(value["received_bytes"]), int(value["total_bytes"])
    except (KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError("the upload door said something that makes no sense") from error
    if kind not in ("receiving", "refused", "received", "closed") or not 0 <= received <= total <= MAX_BUNDLE_BYTES:
        raise ValueError("the upload door said something that makes no sense")
    return DoorNews(kind, received, total, sentence[:300])
