"""Processes: starting QEMU bound to this process or detached, and ending exactly that one."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.board_driver.errors import MachineError

_LAUNCHER: Final = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py"))]

# The kernel's parent-death signal is tied to the *thread* that started the child. A board started from a short-lived
# thread of a test would die with that thread. So every bound child is started from this one thread, which lives as long
# as the process does.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="board-spawner")


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for another one which got the same number later."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/<pid>/stat: when it started, in clock ticks since the host's boot."""

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of the live process `pid`; None if there is none (a zombie is dead)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessId.of(self.pid) == self

    def kill(self, timeout_s: float = 10) -> None:
        """End this process with SIGKILL and wait until it is gone; nothing happens if it is gone already."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # The descriptor names one process for ever; only now is it certain that it is the right one.
            if self.alive:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
        self.wait(timeout_s)

    def wait(self, timeout_s: float) -> None:
        """Wait until this process has ended. MachineError if it still runs after `timeout_s`."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive and not select.select([descriptor], [], [], timeout_s)[0]:
                raise MachineError(
                    f"process {self.pid} did not end in {timeout_s:g} s; end it with `kill -9 {self.pid}`"
                )
        finally:
            os.close(descriptor)


def start_bound(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `command` so that it dies with this process, however that ends. Output goes to `log`."""
    _check_program(command[0])
    return _spawner.submit(_start_bound, command, log).result()


def _start_bound(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [*_LAUNCHER, "bound", str(os.getpid()), "--", *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def start_detached(command: list[str], log: Path) -> int:
    """Start `command` so that it outlives this process; return its process number. Output goes to `log`."""
    _check_program(command[0])
    with log.open("ab") as output:
        done = subprocess.run(
            [*_LAUNCHER, "detached", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, check=True, timeout=30,
        )  # fmt: skip
    return int(done.stdout)


def _check_program(program: str) -> None:
    if shutil.which(program) is None:
        raise MachineError(
            f"{program} is not installed; run `make host-packages`, or install the package qemu-system-arm"
        )
