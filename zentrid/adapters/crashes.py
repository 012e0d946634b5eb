"""Takes what `zentrid.crash` has left of a program that crashed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from zentrid.ports import Frame

FOLDER: Final = Path("/run/zentrid/crash")
MAX_RESULT_BYTES: Final = 16 * 1024
MAX_FRAMES: Final = 32
MAX_MODULE_CHARS: Final = 200
MAX_SIGNAL: Final = 64
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){0,32}")
_MAX_ADDRESS: Final = 1 << 64


def take_crash(pid: int, folder: Path = FOLDER) -> tuple[int, tuple[Frame, ...]] | None:
    """Return signal and frames (innermost first) of a process that has crashed, None if nothing is known of it.

    The file is removed. Call it once the process has been waited for: the kernel lets it end only when the file is
    written. What a file says that is malformed counts as not said.
    """
    path = folder / f"{pid}.json"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            data = stream.read(MAX_RESULT_BYTES + 1)
        path.unlink(missing_ok=True)
        return None if len(data) > MAX_RESULT_BYTES else _parsed(json.loads(data))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _parsed(values: dict[str, Any]) -> tuple[int, tuple[Frame, ...]]:
    number, frames = values["signal"], values["frames"]
    if type(number) is not int or not 0 < number <= MAX_SIGNAL or not isinstance(frames, list):
        raise ValueError("malformed")
    return number, tuple(_frame(entry) for entry in frames[:MAX_FRAMES])


def _frame(entry: dict[str, Any]) -> Frame:
    module, build_id, address = entry["module"], entry["build_id"], entry["address"]
    if not isinstance(module, str) or len(module) > MAX_MODULE_CHARS or not module.isprintable():
        raise ValueError("malformed")
    if type(address) is not int or not 0 <= address < _MAX_ADDRESS:
        raise ValueError("malformed")
    if not isinstance(build_id, str) or not _BUILD_ID.fullmatch(build_id):
        raise ValueError("malformed")
    return Frame(module, build_id, address)
