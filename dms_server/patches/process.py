"""The server's side of making a patch: starts the process, bounds it from outside too, believes nothing but its outcome."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from zentrid.core.text import printable

log = structlog.get_logger()

TOP = Path(__file__).resolve().parents[2]
NICENESS = 19
LINE_MAX_BYTES = 4096
COMPLAINT_MAX_CHARS = 2000
PROBLEM_MAX_CHARS = 200


@dataclass(frozen=True)
class Outcome:
    """How a try ended: a verified patch with size and SHA-256; one that is no smaller than the full payload; or a problem."""

    size_bytes: int | None = None
    sha256: str | None = None
    problem: str = ""
    final: bool = False
    """No other try can end better."""

    @property
    def made(self) -> bool:
        """Whether there is a patch to keep."""
        return self.sha256 is not None


@dataclass(frozen=True)
class Limits:
    """What one process may use."""

    memory_bytes: int
    time_s: int
    temporary_bytes: int


class PatchProcess:
    """One process for one job; `kill` may be called from anywhere at any time."""

    def __init__(self, job: dict[str, Any], limits: Limits, tell: Callable[[int], None]) -> None:
        self._job = {**job, "limits": vars(limits)}
        self._limits = limits
        self._tell = tell
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._late = False

    def kill(self) -> None:
        """End the process, or keep it from starting; returns at once."""
        with self._turn:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def run(self) -> Outcome:
        """Run it to its end; blocks. A problem is an outcome too."""
        try:
            with tempfile.TemporaryFile() as complaints:
                return self._run(complaints.fileno())
        except OSError as error:
            return Outcome(problem=f"the process that makes it could not be started ({error.strerror})")

    def _run(self, complaints: int) -> Outcome:
        command = [sys.executable, "-E", "-s", "-m", "dms_server.patches.child"]
        environment = {"LANG": "C.UTF-8", "PATH": os.defpath}
        with self._turn:
            if self._killed:
                return Outcome(problem="it was stopped")
            self._process = subprocess.Popen(
                command, cwd=TOP, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
            # At once: what it does before it is ready should not be in the way either.
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)
        with self._process as process:
            timer = threading.Timer(self._limits.time_s, self._too_late)
            timer.start()
            try:
                outcome = self._read(process)
            finally:
                timer.cancel()
                with self._turn:
                    process.kill()
        return outcome if outcome is not None else self._ended(process.returncode, complaints)

    def _too_late(self) -> None:
        self._late = True
        self.kill()

    def _read(self, process: subprocess.Popen[bytes]) -> Outcome | None:
        """Send the job, follow its lines; return the outcome, or None when the process ended without one."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(self._job).encode() + b"\n")
            process.stdin.flush()  # it stays open: the process ends when we do
        except BrokenPipeError:
            return None
        while line := process.stdout.readline(LINE_MAX_BYTES):
            try:
                outcome = self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                return Outcome(problem="the process that makes it said nonsense")
            if outcome is not None:
                return outcome
        process.wait()
        return None

    def _take(self, said: dict[str, Any]) -> Outcome | None:
        if "percent" in said:
            self._tell(min(100, max(0, int(said["percent"]))))
            return None
        if "made" in said:
            return Outcome(size_bytes=int(said["made"]), sha256=str(said["sha256"]))
        if "larger" in said:
            return Outcome(size_bytes=int(said["larger"]))
        return Outcome(problem=printable(str(said["problem"]))[:PROBLEM_MAX_CHARS], final=bool(said.get("final")))

    def _ended(self, status: int, complaints: int) -> Outcome:
        """Say why the process ended without an outcome."""
        if self._late or status == -signal.SIGXCPU:
            return Outcome(problem=f"it took more than {self._limits.time_s} s; raise patch_time_max_s")
        if self._killed:
            return Outcome(problem="it was stopped")
        text = os.pread(complaints, 1 << 20, 0).decode("utf-8", "replace")[-COMPLAINT_MAX_CHARS:]
        log.warning("patch_process_ended", status=status, complaint=printable(text, keep="\n"))
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        return Outcome(problem=f"the process that makes it ended too early ({how})")
