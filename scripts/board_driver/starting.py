"""Tells from the serial log whether the board is starting, or about to restart: then nobody should type.

The boot loader would take it for its own, and the console may go deaf from it, see `qtest.unstick_uart`.
"""

from __future__ import annotations

import re
import time
from enum import Enum
from pathlib import Path
from typing import Final

from scripts.board_driver.deadline import Deadline
from scripts.board_driver.serial import LogReader

BANNER: Final = re.compile(r"^\W*U-Boot 20\d\d\.\d\d", re.MULTILINE)
"""The first line that a starting board prints."""
QUIET_S: Final = 20.0
"""After so long without a word the board counts as started: its prompt may be switched off, or its restart came to nothing."""
_SIGN: Final = re.compile(
    rb"(?P<prompt>[\r\n](?:SAFEMODE)?> )"
    rb"|(?P<starts>U-Boot 20\d\d\.\d\d)"
    rb"|(?P<ends>[\r\n]Rebooting(?=[\r\n])|The system is going down|reboot: Restarting system)"
)
_OVERLAP_BYTES: Final = 64


class Phase(Enum):
    """Where the board is between two prompts."""

    ENDING = "ending"
    """It has said that it restarts; prompts do not count any more."""
    STARTING = "starting"
    STARTED = "started"
    """The prompt was there."""


def next_phase(phase: Phase, sign: str) -> Phase:
    """Return the phase after a sign on the console: `prompt`, `starts` or `ends`. Pure."""
    if sign == "starts":
        return Phase.STARTING
    if sign == "ends":
        return Phase.ENDING
    return phase if phase is Phase.ENDING else Phase.STARTED


class StartWatch:
    """Follows the serial log `log` from the last power-on or reset, which began at byte `offset` at `since_unix_s`."""

    def __init__(self, log: Path, offset: int, since_unix_s: float) -> None:
        self.offset = offset
        self._log = log
        self._since_unix_s = since_unix_s
        self._reader = LogReader(log, offset)
        self._tail = b"\n"
        self._phase = Phase.STARTING

    def starting(self) -> bool:
        """Read what is new; return whether the board is restarting or starting."""
        while data := self._reader.read():
            text = self._tail + data
            judged = 0
            for match in _SIGN.finditer(text):
                judged = match.end()
                self._phase = next_phase(self._phase, match.lastgroup or "")
            # What is judged must not be seen again; what may be the beginning of a sign must.
            self._tail = text[max(judged, len(text) - _OVERLAP_BYTES) :]
        return self._phase is not Phase.STARTED and time.time() - self._last_word_unix_s() < QUIET_S

    def _last_word_unix_s(self) -> float:
        try:
            return max(self._since_unix_s, self._log.stat().st_mtime)
        except FileNotFoundError:
            return self._since_unix_s

    def wait(self, deadline: Deadline) -> None:
        """Wait until the board has started. DeadlineError if it has not by then."""
        while self.starting():
            deadline.check("the board is still starting; see `scripts/board log`")
            time.sleep(deadline.slice_s(0.1))
