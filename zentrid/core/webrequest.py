"""What the supervisor and the process that asks a web server say to each other: one JSON line in, one JSON line out. Pure.

After its line the process sends the answer's bytes as they are. The supervisor passes them on and never parses them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from zentrid.core.text import printable

MAX_REQUEST_LINE_BYTES: Final = 16 * 1024
MAX_HEAD_LINE_BYTES: Final = 4 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
"""What a request may bring along."""
HEAD_S: Final = 60.0
"""So long an answer may take to begin, the process's own start included."""
SILENCE_S: Final = 60.0
MAX_S: Final = 3600.0
_MAX_LENGTH: Final = 1 << 48


@dataclass(frozen=True)
class WebRequest:
    """One request."""

    url: str
    """May hold a password."""
    method: str = "GET"
    content_type: str = ""
    body_bytes: int = 0
    """So many bytes follow the line."""
    identity_dir: str = ""
    ca_file: str = ""
    """Certificates of authorities that the owner believes; may be missing."""
    user_agent: str = "zentrid"
    user: str = "nobody"
    """The user to become when started as root."""

    def to_line(self) -> bytes:
        """Return it as the process reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True)
class Head:
    """How an answer begins, or why there is none."""

    status: int = 0
    """The server's; 0: there is no answer."""
    length_bytes: int | None = None
    """How long the answer is, if the server says so."""
    error: str = ""

    def to_line(self) -> bytes:
        """Return it as the supervisor reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


def parse_head(line: bytes) -> Head:
    """Return what the process said; it has no rights and is not believed more than it must. Raises ValueError."""
    try:
        value: dict[str, Any] = json.loads(line)
        status, length, error = int(value["status"]), value["length_bytes"], str(value["error"])
        length_bytes = None if length is None else int(length)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as problem:
        raise ValueError("the process that asks web servers said something that makes no sense") from problem
    if not (status or error) or not 0 <= status < 1000 or not 0 <= (length_bytes or 0) < _MAX_LENGTH:
        raise ValueError("the process that asks web servers said something that makes no sense")
    return Head(status, length_bytes, printable(error[:400]))
