"""The Web App's files on the disk: found, and looked after for damage."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final

from zentrid.core.webapp import LIST_NAME, MAX_LIST_BYTES, WebAppListError, checked_name, parse_list, split_root

LOOK_AGAIN_S: Final = 10.0
MAX_PROBLEMS: Final = 20


class WebApp:
    """The folder of the Web App, named by its first page. All of it blocks for a moment."""

    def __init__(self, files: Path, root_filename: str) -> None:
        """Take the device's files, and the first page's name in them."""
        found = split_root(root_filename)
        self._files = files
        self._root_filename = root_filename
        self._folder = None if found is None else files / found[0]
        self._page = "" if found is None else found[1]
        self._problems: tuple[str, ...] = ()
        self._looked_s: float | None = None

    def find(self, path: str) -> Path | None:
        """Return the file that a request's path means (empty: the first page); None if there is none to be given."""
        name = checked_name(path) if path else self._page
        if self._folder is None or not name:
            return None
        wanted = self._folder / name
        try:
            inside = wanted.resolve(strict=True).is_relative_to(self._files.resolve(strict=True))
        except (OSError, RuntimeError):
            return None
        return wanted if inside and wanted.is_file() else None

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, a sentence each; nothing: the Web App is whole. Looked at again after a while."""
        now_s = time.monotonic()
        if self._looked_s is None or now_s - self._looked_s >= LOOK_AGAIN_S:
            self._problems = tuple(self._look()[:MAX_PROBLEMS])
            self._looked_s = now_s
        return self._problems

    def _look(self) -> list[str]:
        if not self._root_filename:
            return ["No first page is set (http.server.root_filename)."]
        if self.find("") is None:
            return [f"The first page {self._root_filename} is not there, or is no usable name."]
        found = self.find(LIST_NAME)
        if found is None:
            return []
        try:
            with found.open("rb") as stream:
                raw = stream.read(MAX_LIST_BYTES + 1)
            if len(raw) > MAX_LIST_BYTES:
                return [f"{LIST_NAME} is larger than {MAX_LIST_BYTES} bytes."]
            listed = parse_list(raw)
        except (OSError, WebAppListError) as error:
            return [f"{error}."]
        return [
            problem
            for name, entry in sorted(listed.items())
            if (problem := self._problem(name, entry.size_bytes, entry.sha256))
        ]

    def _problem(self, name: str, size_bytes: int, digest: str) -> str:
        path = self.find(name)
        if path is None:
            return f"{name} is missing."
        try:
            if path.stat().st_size != size_bytes:
                return f"{name} has {path.stat().st_size} bytes instead of {size_bytes}."
            with path.open("rb") as stream:
                if digest and hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    return f"{name} is damaged."
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})."
        return ""
