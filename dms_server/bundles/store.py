"""Payload files: patch streams named by the root hash of what they make, in folders of 256."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from dms_server.files import move_durably

ROOT_PATTERN = re.compile(r"[0-9a-f]{64}")


class PayloadStore:
    """A folder of payloads. A file that is there is whole and was checked; it never changes. Methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uploads = folder.parent / "uploads"

    def open(self) -> None:
        """Make the folders; drop what interrupted uploads left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(parents=True, exist_ok=True)
        for path in self._uploads.iterdir():
            path.unlink()

    def path(self, root_hash: str) -> Path:
        """Return where the full payload of a root hash (64 lower-case hex digits) is kept."""
        if not ROOT_PATTERN.fullmatch(root_hash):
            raise ValueError(f"{root_hash[:80]!r} is not a root hash")
        return self._folder / root_hash[:2] / f"{root_hash}.zps"

    def temporary(self) -> Path:
        """Return a new empty file for an upload or a payload on its way in, on the same file system."""
        descriptor, name = tempfile.mkstemp(dir=self._uploads)
        os.close(descriptor)
        return Path(name)

    def keep(self, temporary: Path, root_hash: str) -> None:
        """Flush a checked payload and move it to its place."""
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        move_durably(temporary, self.path(root_hash))
