"""The code that `dataclasses` writes for each class, compiled when the image is built instead of at every start.

`dataclasses` gives a class its methods by writing them as text and compiling the text, which was 40 % of the time that
importing the supervisor took on the board. Here the compiled code is looked up by that text. A text that is not in the file is
compiled as ever, so nothing depends on the file being there, or on this being how `dataclasses` works in the next Python.

`scripts/image/dataclasscode.py` writes the file.
"""

from __future__ import annotations

import builtins
import marshal
from collections.abc import Callable, Mapping
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from types import CodeType
from typing import Final

FILE: Final = Path(__file__).with_name("dataclasses.code")
"""Python's magic number for compiled code, then a marshalled dictionary: hash of a text → its marshalled code."""

_used: set[Path] = set()


def encode(table: Mapping[bytes, bytes]) -> bytes:
    """Return the content of the file for this Python."""
    return MAGIC_NUMBER + marshal.dumps(dict(sorted(table.items())))


def decode(data: bytes) -> dict[bytes, bytes]:
    """Return the file's table; an empty one when another Python wrote it, or when it is no such file.

    Only for a file of the verified root file system: `marshal` does not guard against malicious data.
    """
    if not data.startswith(MAGIC_NUMBER):
        return {}
    try:
        table = marshal.loads(data[len(MAGIC_NUMBER) :])  # noqa: S302
    except (EOFError, TypeError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def looking_up(table: Mapping[bytes, bytes]) -> Callable[..., None]:
    """Return what `dataclasses` shall call for `exec`: like the builtin, but a text that the table knows is not compiled."""

    def execute(source: str | CodeType, *scopes: dict[str, object]) -> None:
        known = table.get(source_hash(source.encode())) if isinstance(source, str) else None
        # What dataclasses itself would execute, compiled: no other text, and none from outside.
        builtins.exec(source if known is None else marshal.loads(known), *scopes)  # noqa: S102, S302

    return execute


def replace_exec(execute: Callable[..., None]) -> None:
    """Let `dataclasses` call this instead of the builtin `exec`."""
    import dataclasses  # not for programs that have no dataclasses and no file

    vars(dataclasses)["exec"] = execute


def use(file: Path = FILE) -> None:
    """Let `dataclasses` take compiled code from the file, if there is one for this Python. Once for a process is enough."""
    if file in _used:
        return
    _used.add(file)
    try:
        table = decode(file.read_bytes())
    except OSError:
        return
    if table:
        replace_exec(looking_up(table))
