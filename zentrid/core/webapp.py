"""The Web App's files: which request means which file, and the list by which damage is seen. Pure.

A Web App is a folder of files under the device's files. It may bring a list of itself, `webapp.json`:
`{"files": {"app.js": {"size": 1234, "sha256": "..."}}}`; what the list names must be there, and be right.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from zentrid.errors import ZentriError

LIST_NAME: Final = "webapp.json"
MAX_LIST_BYTES: Final = 64 * 1024
MAX_FILES: Final = 256
MAX_APP_BYTES: Final = 32 * 1024 * 1024
_MAX_DEPTH: Final = 8
_MAX_NAME_CHARS: Final = 200
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_+@=~-][A-Za-z0-9._+@=~-]*", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class WebAppListError(ZentriError):
    """The list is not one."""

    reason = "webapp_list"


@dataclass(frozen=True)
class Listed:
    """What the list says of a file; an empty hash: it is not said."""

    size_bytes: int
    sha256: str


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


def parse_list(raw: bytes) -> dict[str, Listed]:
    """Return what the list names. Raises WebAppListError."""
    try:
        value = json.loads(raw)
        files = value["files"]
        found = {name: _listed(name, entry) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WebAppListError(f"{LIST_NAME} is damaged") from error
    if len(found) > MAX_FILES or sum(entry.size_bytes for entry in found.values()) > MAX_APP_BYTES:
        raise WebAppListError(f"{LIST_NAME} names more than {MAX_FILES} files, or more than {MAX_APP_BYTES} bytes")
    return found


def _listed(name: str, entry: dict[str, object]) -> Listed:
    size, digest = entry["size"], entry.get("sha256", "")
    if checked_name(name) is None or isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(name)
    if not isinstance(digest, str) or (digest and not _SHA256.fullmatch(digest)):
        raise ValueError(name)
    return Listed(size, digest)
