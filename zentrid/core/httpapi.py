"""Command lines and their answers as they travel by HTTP. Pure: bytes and text in, values out.

Flags, as the clients of this language know them: 1 the command is base64, 2 the response is to be base64, 4 the data is
base64. An answer's flags tell how its response is coded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from zentrid.core.framing import Code
from zentrid.core.grammar import MAX_LINE_BYTES, CommandError
from zentrid.errors import ZentriError

MAX_REQUEST_BYTES: Final = 64 * 1024
"""A request with all its headers; a larger one is refused before anything is done."""
MAX_LOG_BYTES: Final = 32 * 1024
"""Log text kept beside one response: the last of it, because the reason of a failure comes last."""
COMMAND_BASE64: Final = 1
RESPONSE_BASE64: Final = 2
DATA_BASE64: Final = 4
_ALL_FLAGS: Final = COMMAND_BASE64 | RESPONSE_BASE64 | DATA_BASE64


class BadRequestError(ZentriError):
    """A request that is no command at all; the sentence says what is wrong with it."""

    reason = "bad_request"


@dataclass(frozen=True)
class CommandRequest:
    """One command line, and the bytes that follow it."""

    line: bytes
    flags: int = 0
    data: bytes = b""

    def check(self) -> None:
        """Raise CommandError if this is not exactly one line that the command language could read."""
        if len(self.line) > MAX_LINE_BYTES:
            raise CommandError(
                Code.BUFFER_OVERFLOW, f"The line is longer than {MAX_LINE_BYTES} bytes; nothing was done."
            )
        try:
            text = self.line.decode("utf-8")
        except UnicodeDecodeError:
            raise CommandError(Code.PARSE_ERROR, "The line is not valid UTF-8; nothing was done.") from None
        # A line end would make two commands of it; other control characters would be obeyed by the line editor.
        if any((char < " " and char != "\t") or char == "\x7f" for char in text):
            raise CommandError(Code.PARSE_ERROR, "The line has control characters; send one line, without its end.")
        if not text.strip():
            raise CommandError(Code.PARSE_ERROR, "The line is empty; 'help commands' lists the commands there are.")


def request_from_target(target: str) -> CommandRequest:
    """Return the request that a GET for `target` makes: everything after `/command/`, a `?` and what follows included."""
    return CommandRequest(unquote_to_bytes(target.removeprefix("/command/")))


def request_from_body(body: bytes) -> CommandRequest:
    """Return the request in the JSON body of a POST. Raises BadRequestError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError('the body is no JSON; send {"command": "version", "flags": 0}') from None
    if not isinstance(value, dict):
        raise BadRequestError('the body is no JSON object; send {"command": "version", "flags": 0}')
    flags = value.get("flags", 0)
    if isinstance(flags, bool) or not isinstance(flags, int) or flags & ~_ALL_FLAGS:
        raise BadRequestError("flags must be a number from 0 to 7")
    if value.get("command") is None:
        raise BadRequestError("there is no command in the body")
    line = _field(value, "command", coded=bool(flags & COMMAND_BASE64))
    return CommandRequest(line.rstrip(b"\r\n"), flags, _field(value, "data", coded=bool(flags & DATA_BASE64)))


def _field(value: dict[str, Any], name: str, *, coded: bool) -> bytes:
    found = value.get(name)
    if found is None:
        return b""
    if not isinstance(found, str):
        raise BadRequestError(f"{name} must be a string")
    if not coded:
        return found.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode("".join(found.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError(f"{name} is no base64, but flags say so") from None


def last_lines(lines: Iterable[str], most_bytes: int = MAX_LOG_BYTES) -> list[str]:
    """Return the last lines that fit."""
    kept: deque[str] = deque()
    room = most_bytes
    for line in reversed(list(lines)):
        room -= len(line.encode("utf-8", "replace")) + 1
        if room < 0:
            break
        kept.appendleft(line)
    return list(kept)


def answer_json(number: int, code: int, flags: int, response: bytes, log: Iterable[str] = ()) -> dict[str, Any]:
    """Return the answer as the clients read it; `log` (text that came before the answer) only where there is some.

    Bytes that are no text come as base64 even if nobody asked for it, and the flags say so.
    """
    text = ""
    coded = bool(flags & RESPONSE_BASE64)
    if not coded:
        try:
            text = response.decode("utf-8")
        except UnicodeDecodeError:
            coded, flags = True, flags | RESPONSE_BASE64
    if coded:
        text = base64.b64encode(response).decode("ascii")
    answer: dict[str, Any] = {"id": number, "code": code, "flags": flags, "response": text}
    lines = last_lines(log)
    return answer | {"log": lines} if lines else answer
