"""Writing files: a new one that nothing is lost by, or a whole one in place of the old."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644


def write_new(path: Path, data: bytes, *, secret: bool) -> None:
    """Write a file that is not there yet; a secret one is never readable by others, not even for a moment.

    Raises FileExistsError (a key is never written over) or another OSError; no half-written file is left.
    """
    mode = SECRET_MODE if secret else PUBLIC_MODE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, mode)  # whatever the umask took away
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[BinaryIO]:
    """Open a file beside `out` for writing that takes its name only when everything went well. Public; makes the folder."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as stream:
        aside = Path(stream.name)
        try:
            yield cast("BinaryIO", stream)
            stream.flush()
            os.fsync(stream.fileno())
            aside.chmod(PUBLIC_MODE)
            aside.replace(out)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
