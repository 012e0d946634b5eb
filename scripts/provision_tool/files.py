"""Writing keys and public files."""

from __future__ import annotations

import os
from pathlib import Path

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644


def write_new(path: Path, data: bytes, *, secret: bool) -> None:
    """Write a file that is not there yet; a secret one is never readable by others, not even for a moment.

    Raises FileExistsError: a key is never written over.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if secret else 0o755)
    mode = SECRET_MODE if secret else PUBLIC_MODE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())


def replace(path: Path, data: bytes) -> None:
    """Replace a public file in one step."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    write_new(aside, data, secret=False)
    aside.replace(path)
