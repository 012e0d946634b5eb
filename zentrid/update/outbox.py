"""Reports that wait for the server: one file each, kept until it has them. The server drops what it has by its id."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any, Final

from zentrid.update.durable import Hook, no_hook, remove_durable, write_durable

MAX_REPORTS: Final = 64
MAX_REPORT_BYTES: Final = 64 * 1024
"""A fault with all its frames and 4 KiB of text, every character of it escaped."""
_NAME = re.compile(r"([0-9]{10})-([0-9a-f-]{36})\.json")


class Outbox:
    """The queue of reports in a folder, oldest first; when it is full the oldest one gives way."""

    def __init__(self, folder: Path, hook: Hook = no_hook) -> None:
        self._folder = folder
        self._hook = hook

    def put(self, report: dict[str, Any]) -> None:
        """Queue `report` (its `id` is a UUID), durably; one that is queued already is left as it is.

        Raises OSError, also for one that is too large.
        """
        data = json.dumps(report).encode()
        if len(data) > MAX_REPORT_BYTES:
            raise OSError(errno.EMSGSIZE, f"a report has at most {MAX_REPORT_BYTES} bytes, this one {len(data)}")
        waiting = self._names()
        if any(_id_of(name) == report["id"] for name in waiting):
            return
        for name in waiting[: max(0, len(waiting) - MAX_REPORTS + 1)]:
            remove_durable(self._folder / name, self._hook)
        number = int(waiting[-1].split("-")[0]) + 1 if waiting else 1
        write_durable(self._folder / f"{number:010d}-{report['id']}.json", data, self._hook)

    def reports(self) -> list[dict[str, Any]]:
        """Return what waits, oldest first. A damaged file is passed over and removed."""
        found = []
        for name in self._names():
            path = self._folder / name
            try:
                with path.open("rb") as file:
                    report = json.loads(file.read(MAX_REPORT_BYTES + 1))
            except (OSError, ValueError, RecursionError):
                report = None
            if isinstance(report, dict) and report.get("id") == _id_of(name):
                found.append(report)
            else:
                remove_durable(path, self._hook)
        return found

    def remove(self, report_id: str) -> None:
        """Forget a report that the server has."""
        for name in self._names():
            if _id_of(name) == report_id:
                remove_durable(self._folder / name, self._hook)

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))


def _id_of(name: str) -> str:
    match = _NAME.fullmatch(name)
    return match[2] if match else ""
