"""The Web App's files: which request means which file, and the list by which damage is seen. Pure.

A Web App is a folder of files under the device's files. It may bring a list of itself, `webapp.json`:
`{"version": "1.0.0", "files": {"app.js": {"size": 1234, "sha256": "..."}}}`; what the list names must be there, and be right.
The image has a copy of the Zentri Web App with such a list, and a bundle may bring another one, or some files for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zentrid.errors import ZentriError

FOLDER: Final = "webapp"
"""Where the Zentri Web App lies, both among the device's files and among the files of bundles."""
FIRST_PAGE: Final = "index.html"
LIST_NAME: Final = "webapp.json"
MAX_LIST_BYTES: Final = 64 * 1024
MAX_FILES: Final = 256
MAX_APP_BYTES: Final = 32 * 1024 * 1024
_MAX_DEPTH: Final = 8
_MAX_NAME_CHARS: Final = 200
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_+@=~-][A-Za-z0-9._+@=~-]*", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_VERSION: Final = re.compile(r"[0-9A-Za-z.+_~-]{1,32}", re.ASCII)


class WebAppListError(ZentriError):
    """The list is not one."""

    reason = "webapp_list"


@dataclass(frozen=True)
class Listed:
    """What the list says of a file; an empty hash: it is not said."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class AppList:
    """What belongs to a Web App."""

    version: str
    """Of the release or image that it came with; empty: it is not said."""
    files: Mapping[str, Listed]

    def to_bytes(self) -> bytes:
        """Return the content of `webapp.json`; the same list gives the same bytes."""
        files = {name: {"size": entry.size_bytes, "sha256": entry.sha256} for name, entry in sorted(self.files.items())}
        return json.dumps({"version": self.version, "files": files}, indent=1).encode() + b"\n"

    @property
    def id(self) -> str:
        """Return what tells this list from every other one."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def list_of(version: str, contents: Mapping[str, bytes]) -> AppList:
    """Return the list of files with these contents. Raises WebAppListError for a name or a number that is not allowed."""
    files = {name: Listed(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    unusable = sorted(name for name in files if checked_name(name) is None or name == LIST_NAME)
    if unusable:
        raise WebAppListError(f"{unusable[0]} is no name for a file of the Web App")
    check_limits(files)
    return AppList(version, files)


def checked_name(text: str) -> str | None:
    """Return a file's name with folders, as it may be looked for below a folder; None if it must not be.

    No empty, hidden or relative parts, and nothing that a file system or a shell would take for more than a name.
    """
    parts = text.split("/")
    if len(text) > _MAX_NAME_CHARS or len(parts) > _MAX_DEPTH:
        return None
    return text if all(_SEGMENT.fullmatch(part) for part in parts) else None


def split_root(root_filename: str) -> tuple[str, str] | None:
    """Return the Web App's folder (may be empty) and its first page; None if there is no usable name."""
    name = checked_name(root_filename)
    if name is None:
        return None
    folder, _, page = name.rpartition("/")
    return folder, page


def parse_list(raw: bytes) -> AppList:
    """Return what `webapp.json` says. Raises WebAppListError."""
    try:
        value = json.loads(raw)
        files = value["files"]
        found = {name: _listed(name, entry) for name, entry in files.items()}
        version = value.get("version", "")
        if not isinstance(version, str) or (version and not _VERSION.fullmatch(version)):
            raise ValueError(version)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WebAppListError(f"{LIST_NAME} is damaged") from error
    check_limits(found)
    return AppList(version, found)


def check_limits(files: Mapping[str, Listed]) -> None:
    """Raise WebAppListError for more files, or more bytes, than a Web App may have."""
    if len(files) > MAX_FILES or sum(entry.size_bytes for entry in files.values()) > MAX_APP_BYTES:
        raise WebAppListError(f"{LIST_NAME} names more than {MAX_FILES} files, or more than {MAX_APP_BYTES} bytes")


def _listed(name: str, entry: dict[str, object]) -> Listed:
    size, digest = entry["size"], entry.get("sha256", "")
    if checked_name(name) is None or isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(name)
    if not isinstance(digest, str) or (digest and not _SHA256.fullmatch(digest)):
        raise ValueError(name)
    return Listed(size, digest)
