"""Small files that survive a power cut: afterwards either the old content is there or the new one, never a mixture."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Hook = Callable[[str], None]
"""Called with a word before each durable step; a test's hook cuts the power by raising."""


def no_hook(_step: str) -> None:
    """Do nothing: the hook of every run that is not a test of power cuts."""


def write_durable(path: Path, data: bytes, hook: Hook = no_hook) -> None:
    """Replace the file at `path` by one with `data`: written beside it, flushed, renamed, the folder flushed.

    Makes missing folders. Raises OSError; the old file is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    hook(f"write {path.name}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        hook(f"flush {path.name}")
        os.fsync(fd)
    finally:
        os.close(fd)
    hook(f"rename {path.name}")
    beside.replace(path)
    hook(f"flush folder of {path.name}")
    flush_folder(path.parent)


def remove_durable(path: Path, hook: Hook = no_hook) -> None:
    """Remove the file at `path`, if there is one, for good."""
    hook(f"remove {path.name}")
    with suppress(FileNotFoundError):
        path.unlink()
        flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
