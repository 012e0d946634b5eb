"""Small files that survive a power cut: afterwards either the old content is there or the new one, never a mixture."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Hook = Callable[[str], None]
"""Called with a word before each durable step; a test's hook cuts the power by raising."""


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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


def remove_tree(folder: Path) -> None:
    """Remove a folder and all below it, however deep: whoever filled it may have meant harm. Follows no link. Raises OSError."""
    top = os.open(folder, _FOLDER)
    try:
        # What lies deeper comes up a step each time, under names that nobody can have foreseen.
        prefix, number = os.urandom(16).hex(), 0
        while names := _without_files(top):
            for name in names:
                below = os.open(name, _FOLDER, dir_fd=top)
                try:
                    for deeper in _without_files(below):
                        os.rename(deeper, f"{prefix}-{number}", src_dir_fd=below, dst_dir_fd=top)
                        number += 1
                finally:
                    os.close(below)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _without_files(folder: int) -> list[str]:
    """Remove everything in an open folder but its folders; return their names."""
    names = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return names


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
