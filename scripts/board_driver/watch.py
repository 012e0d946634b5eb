"""Watches the console of a board under test: nothing bad may appear there unasked, whatever the test does."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from scripts.board_driver import starting
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import BadConsoleError
from scripts.board_driver.serial import LogReader

POLL_S: Final = 0.05
MAX_TEXT_CHARS: Final = 4 * 1024 * 1024
MAX_HITS: Final = 1000

BANNER: Final = "reset"
BAD_PATTERNS: Final[dict[str, re.Pattern[str]]] = {
    "panic": re.compile(r"Kernel panic"),
    "oops": re.compile(r"Internal error: Oops"),
    "call-trace": re.compile(r"Call trace"),
    "traceback": re.compile(r"Traceback \(most recent call last\)"),
    "state-lost": re.compile(r"zentri: boot state lost"),
    # U-Boot's first line: the board starts. Once for each time that the test switched it on; once more is a reset.
    BANNER: starting.BANNER,
}


class Hit(NamedTuple):
    """A line of the console that shows something bad."""

    pattern: str
    line: str


class ConsoleWatch:
    """Reads a serial log from `offset` on in a thread of its own, until stop()."""

    def __init__(self, log: Path, offset: int = 0) -> None:
        self._reader = LogReader(log, offset)
        self._lock = threading.RLock()
        self._text = ""
        self._dropped = 0
        self._scanned = 0
        self._cursor = 0
        self._banners_allowed = 0
        self._muted: list[tuple[frozenset[str], list[Hit]]] = []
        self._bad: list[Hit] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-watch", daemon=True)
        self._failure: Exception | None = None
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(POLL_S):
                self.catch_up()
        except Exception as error:
            self._failure = error

    def stop(self) -> None:
        """End the thread, after reading everything."""
        self._stop.set()
        self._thread.join()
        with self._lock:
            self.catch_up()
            self._scan_lines(self._text[self._scanned - self._dropped :])
            self._scanned = self._dropped + len(self._text)

    def catch_up(self) -> None:
        """Read and judge everything that the log holds now."""
        with self._lock:
            while data := self._reader.read():
                self._text += data.decode("utf-8", errors="replace")
                end = self._text.rfind("\n") + 1 + self._dropped
                if end > self._scanned:
                    self._scan_lines(self._text[self._scanned - self._dropped : end - self._dropped])
                    self._scanned = end
                excess = min(len(self._text) - MAX_TEXT_CHARS, self._scanned - self._dropped)
                if excess > 0:
                    self._text = self._text[excess:]
                    self._dropped += excess

    def _scan_lines(self, text: str) -> None:
        for raw in text.splitlines():
            line = raw.strip()
            for name, pattern in BAD_PATTERNS.items():
                if pattern.search(line):
                    self._judge(Hit(name, line[:300]))

    def _judge(self, hit: Hit) -> None:
        if hit.pattern == BANNER and self._banners_allowed > 0:
            self._banners_allowed -= 1
            return
        for names, seen in reversed(self._muted):
            if hit.pattern in names:
                seen.append(hit)
                return
        if len(self._bad) < MAX_HITS:
            self._bad.append(hit)

    def allow_start(self, *, cold: bool) -> None:
        """Take one more banner as in order: the test itself is about to switch the board on or reset it.

        `cold`: at a power-on, where no banner of a start before this one can still come.
        """
        with self._lock:
            self.catch_up()
            self._banners_allowed = 1 if cold else self._banners_allowed + 1

    @contextmanager
    def expecting(self, *names: str) -> Iterator[list[Hit]]:
        """Inside, the bad patterns called `names` are in order; gives the list that they are put in as they come."""
        if unknown := set(names) - set(BAD_PATTERNS):
            raise ValueError(
                f"there is no bad pattern called {', '.join(unknown)}; there are {', '.join(BAD_PATTERNS)}"
            )
        seen: list[Hit] = []
        entry = (frozenset(names), seen)
        with self._lock:
            self.catch_up()
            self._muted.append(entry)
        try:
            yield seen
        finally:
            with self._lock:
                self.catch_up()
                self._muted = [other for other in self._muted if other is not entry]

    def check(self) -> None:
        """Raise BadConsoleError for the first bad thing that the console has shown."""
        with self._lock:
            self.catch_up()
            if self._failure is not None:
                raise self._failure
            if self._bad:
                raise BadConsoleError(*self._bad[0])

    @property
    def text(self) -> str:
        """What the console has printed, the last MAX_TEXT_CHARS of it."""
        with self._lock:
            self.catch_up()
            return self._text

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Look for `pattern` in what came after the last match; the next search begins after this one."""
        with self._lock:
            self.catch_up()
            match = pattern.search(self._text, max(0, self._cursor - self._dropped))
            if match is not None:
                self._cursor = self._dropped + match.end()
            return match

    def skip(self) -> None:
        """Let the next search begin at what comes from now on."""
        with self._lock:
            self.catch_up()
            self._cursor = self._dropped + len(self._text)

    def wait_for(self, pattern: str, deadline: Deadline) -> re.Match[str]:
        """Wait until `pattern` (a regular expression, several lines) appears after the last match.

        DeadlineError if it does not; BadConsoleError as soon as something bad appears.
        """
        compiled = re.compile(pattern, re.MULTILINE)
        while True:
            match = self.find(compiled)
            self.check()
            if match is not None:
                return match
            if deadline.expired:
                raise deadline.error(f"the console said last: {self.text[-300:].strip()!r}")
            self._stop.wait(deadline.slice_s(POLL_S))
