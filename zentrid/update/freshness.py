"""Whether the server still proves that it holds no updates back: a sentence that stays until it does so again.

An expired timestamp means that the server is broken, or that somebody keeps the device on an old release. It may last for months
without anybody asking for an update, so it survives restarts and is shown by `dms status`.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from zentrid.update.durable import Hook, no_hook, remove_durable, write_durable
from zentrid.update.errors import printable

log = logging.getLogger(__name__)

STALE_REASONS: Final = ("expired", "replayed")
"""The worker's reasons that mean: what the server shows is not the newest there is."""
_MAX_BYTES: Final = 2048
_MAX_CHARS: Final = 600


class Freshness:
    """The alert, in one small file. A lost or damaged one is no alert: the next check raises it again."""

    def __init__(self, path: Path, hook: Hook = no_hook) -> None:
        self._path = path
        self._hook = hook
        self.alert = self._load()
        """A sentence with the time since when; empty: all is well as far as is known."""

    def failed(self, reason: str, sentence: str, moment: datetime) -> None:
        """Raise the alert if a check failed for such a reason; one that stands already keeps its time."""
        if reason not in STALE_REASONS or self.alert:
            return
        self.alert = printable(f"since {moment:%Y-%m-%dT%H:%M:%SZ}: {sentence}", _MAX_CHARS)
        log.error("update: ALERT: %s", self.alert)
        try:
            write_durable(self._path, json.dumps({"alert": self.alert}).encode(), self._hook)
        except OSError as error:
            log.error("update: the alert cannot be kept over a restart (%s)", error.strerror)

    def passed(self) -> None:
        """Take the alert back: fresh signed metadata was seen."""
        if not self.alert:
            return
        self.alert = ""
        log.warning("update: the server shows fresh signed metadata again")
        with suppress(OSError):
            remove_durable(self._path, self._hook)

    def _load(self) -> str:
        try:
            with self._path.open("rb") as stream:
                return printable(str(json.loads(stream.read(_MAX_BYTES))["alert"]), _MAX_CHARS)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""
