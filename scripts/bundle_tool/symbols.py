"""Sending a release's symbol files to a DMS, so that it can make backtraces readable."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.bundle_tool.publish import Api, PublishError, Told, require_ok

BUILD_ID_FOLDER: Final = ".build-id"
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
"""What the server takes of one file, unless its operator says otherwise."""
MAX_FILES: Final = 20_000
_BUILD_ID: Final = re.compile(r"[0-9a-f]{8,64}")

Progress = Callable[[int, int], object]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True)
class SymbolsSent:
    """What became of the symbol files."""

    sent: int
    there: int
    """The server had these already."""
    too_large: tuple[Path, ...]
    """Left out: larger than the server takes."""


def beside(bundle: Path) -> Path | None:
    """Return the folder `symbols` beside a bundle, None if there is none."""
    folder = bundle.parent / "symbols"
    return folder if (folder / BUILD_ID_FOLDER).is_dir() else None


def find_symbols(folder: Path) -> dict[str, Path]:
    """Return the files `.build-id/ab/cdef….debug` below `folder` by build-id; other names are passed over.

    Raises PublishError when there is no such folder, or far too many files.
    """
    if not (folder / BUILD_ID_FOLDER).is_dir():
        raise PublishError(f"--symbols {folder}: has no folder {BUILD_ID_FOLDER}; give the one that has")
    found: dict[str, Path] = {}
    for path in sorted((folder / BUILD_ID_FOLDER).glob("*/*.debug")):
        build_id = path.parent.name + path.stem
        if _BUILD_ID.fullmatch(build_id) and path.is_file():
            found[build_id] = path
            if len(found) > MAX_FILES:
                raise PublishError(f"--symbols {folder}: has more than {MAX_FILES} symbol files")
    return found


def publish_symbols(
    folder: Path, server: str, token: str, *, ca: Path | None = None, progress: Progress | None = None
) -> SymbolsSent:
    """Send the symbol files below `folder` that the server does not have. Repeating it does no harm.

    Raises PublishError or OSError; what was sent until then is kept there.
    """
    files = find_symbols(folder)
    sizes = {build_id: path.stat().st_size for build_id, path in files.items()}
    too_large = tuple(files[build_id] for build_id, size_bytes in sizes.items() if size_bytes > MAX_FILE_BYTES)
    wanted = [build_id for build_id, size_bytes in sizes.items() if size_bytes <= MAX_FILE_BYTES]
    total_bytes = sum(sizes[build_id] for build_id in wanted)
    api = Api(server, token, ca)
    sent = done_bytes = 0
    try:
        for build_id in wanted:
            if not _has(api, build_id):
                _send(api, build_id, files[build_id], sizes[build_id])
                sent += 1
            done_bytes += sizes[build_id]
            if progress is not None:
                progress(done_bytes, total_bytes)
    finally:
        api.close()
    return SymbolsSent(sent, len(wanted) - sent, too_large)


def _has(api: Api, build_id: str) -> bool:
    status, answer = api.ask("HEAD", f"/api/v1/symbols/{build_id}")
    if status == 404:
        return False
    require_ok(status, answer, "question for symbol files")
    return True


def _send(api: Api, build_id: str, path: Path, size_bytes: int) -> None:
    with path.open("rb") as stream:
        status, answer = api.ask(
            "PUT",
            f"/api/v1/symbols/{build_id}",
            Told(stream, size_bytes, None),  # type: ignore[arg-type]  # only read() is used
            Content_Type="application/octet-stream",
            Content_Length=str(size_bytes),
        )
    require_ok(status, answer, f"symbol file {path.name}")
