"""Packages for tests of the boot application, and a cage for machines whose control groups are not ours."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from zentrid.core.apps import AppLimits


def make_package(
    top: Path, name: str, source: str, *, arguments: tuple[str, ...] = (), program: str = "main.py"
) -> Path:
    """Make a package whose program is Python source; return its folder."""
    folder = top / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / program).write_text(f"#!{sys.executable} -ISu\n{source}\n")
    (folder / program).chmod(0o755)
    description = {"name": name, "version": "1.0.0", "command": [program, *arguments], "description": "a test's own"}
    (folder / "app.json").write_text(json.dumps(description))
    return folder


class MarkedCage:
    """Knows an application's processes by the home folder in their environment, which children inherit."""

    def __init__(self, home: Path) -> None:
        self._mark = f"HOME={home}".encode()
        self.limits: list[AppLimits] = []
        self.out_of_memory = False
        self.broken: OSError | None = None

    join_path = None

    def pids(self) -> Iterator[int]:
        """Give the numbers of the processes in it."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if self._mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
            except OSError:
                continue

    def prepare(self, limits: AppLimits) -> None:
        """Note the limits."""
        if self.broken is not None:
            raise self.broken
        self.kill()
        self.limits.append(limits)

    def occupied(self) -> bool:
        """Tell whether a process is in it."""
        return any(True for _ in self.pids())

    def terminate(self) -> None:
        """Send SIGTERM to all."""
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self) -> bool:
        """End all."""
        give_up_s = time.monotonic() + 5
        while self.occupied():
            if time.monotonic() > give_up_s:
                return False
            self._send(signal.SIGKILL)
            time.sleep(0.01)
        return True

    def ran_out_of_memory(self) -> bool:
        """Return what the test says."""
        return self.out_of_memory
