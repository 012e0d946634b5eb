"""The control group that holds the boot application and everything that it started: limits, and an end that nothing escapes."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from zentrid.core.apps import AppLimits

APP_CGROUP: Final = Path("/sys/fs/cgroup/zentri-app")
MAX_PROCESSES: Final = 64
EMPTY_TIMEOUT_S: Final = 5.0
_STEP_S: Final = 0.02
_MIB: Final = 1024 * 1024


class Cage(Protocol):
    """What holds an application's processes together. Methods may block for a moment."""

    @property
    def join_path(self) -> Path | None:
        """The file into which a process writes `0` to be in it; None: children are in it by themselves."""

    def prepare(self, limits: AppLimits) -> None:
        """Make it anew, empty, with these limits; what was left in it is ended. Raises OSError."""

    def occupied(self) -> bool:
        """Tell whether a process is in it."""

    def terminate(self) -> None:
        """Ask every process in it to end (SIGTERM)."""

    def kill(self) -> bool:
        """End every process in it; False if one is still there after 5 s."""

    def ran_out_of_memory(self) -> bool:
        """Tell whether the kernel ended something in it since `prepare`, because of its memory limit."""


class Cgroup:
    """A cgroup v2 folder below the root of its hierarchy."""

    def __init__(self, folder: Path = APP_CGROUP) -> None:
        self._folder = folder

    @property
    def join_path(self) -> Path | None:
        """Where a process writes itself in."""
        return self._folder / "cgroup.procs"

    def prepare(self, limits: AppLimits) -> None:
        """Make the group anew. Its counters begin at zero then."""
        if not self.kill():
            raise OSError(errno.EBUSY, "processes of the application before it do not end")
        if self._folder.exists():
            self._folder.rmdir()
        (self._folder.parent / "cgroup.subtree_control").write_text("+memory +pids")
        self._folder.mkdir()
        self._write("memory.max", str(limits.memory_mib * _MIB))
        if (self._folder / "memory.swap.max").exists():
            self._write("memory.swap.max", "0")
        self._write("memory.oom.group", "1")
        self._write("pids.max", str(MAX_PROCESSES))

    def _write(self, name: str, text: str) -> None:
        # Never made: on anything but a control group the missing file is the error.
        fd = os.open(self._folder / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def occupied(self) -> bool:
        """Tell whether a process is in it; one that has ended and waits for its parent does not count."""
        return self._event("cgroup.events", "populated") > 0

    def terminate(self) -> None:
        """Send SIGTERM to every process in it."""
        with suppress(OSError):
            for number in (self._folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGTERM)

    def kill(self) -> bool:
        """End every process in it, those that are being forked too."""
        if not self.occupied():
            return True
        deadline_s = time.monotonic() + EMPTY_TIMEOUT_S
        with suppress(OSError):  # whoever asks learns it from what is left
            self._write("cgroup.kill", "1")
        while self.occupied():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_STEP_S)
        return True

    def ran_out_of_memory(self) -> bool:
        """Tell whether the kernel ended something in it because of its memory limit."""
        return self._event("memory.events", "oom_kill") > 0

    def _event(self, name: str, key: str) -> int:
        try:
            lines = (self._folder / name).read_text().splitlines()
        except OSError:
            return 0
        counts = dict(line.split(maxsplit=1) for line in lines if " " in line)
        return int(counts.get(key, "0"))
