"""Runs on the board: carries out one command; tells how long it took, what it said when, and the peak memory of its processes.

`onboard.py REGEX TIMEOUT_S COMMAND…`: processes count whose command line matches REGEX, living before or not. Prints one
line of JSON. Standard library alone: it runs on whatever release the board has.

Peak: at each look, the kernel's own high-water marks (VmHWM) of the matching processes that live are added up; the largest
sum counts. A mark includes pages shared with other processes, so the sum is never too small.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

LOOK_S = 0.1
LOOKS_AT_STRANGERS = 4
"""A new process is looked at so often before it counts as a stranger: between fork and exec it has its parent's name."""
MAX_LINES = 2000


class Memory(threading.Thread):
    """Looks at the processes until it is told to stop."""

    def __init__(self, pattern: str) -> None:
        super().__init__(daemon=True)
        self._pattern = re.compile(pattern)
        self._strangers: dict[int, int] = {}
        self._stop_wanted = threading.Event()
        self.peak_bytes = 0
        self.processes: dict[int, list[str | int]] = {}
        """By number: command line and high-water mark (bytes)."""

    def run(self) -> None:
        """Look again and again."""
        while not self._stop_wanted.wait(LOOK_S):
            self.look()

    def stop(self) -> None:
        """Stop looking, after a last look."""
        self._stop_wanted.set()
        self.join()
        self.look()

    def look(self) -> None:
        """Look at every process once."""
        total = 0
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with suppress(OSError):  # it ended meanwhile
                    total += self._mark_of(int(folder.name))
        self.peak_bytes = max(self.peak_bytes, total)

    def _mark_of(self, pid: int) -> int:
        if self._strangers.get(pid, 0) >= LOOKS_AT_STRANGERS:
            return 0
        if pid not in self.processes:
            with Path(f"/proc/{pid}/cmdline").open("rb") as stream:
                words = stream.read(4096).replace(b"\0", b" ").decode(errors="replace").strip()
            if "onboard.py" in words or not self._pattern.search(words):
                self._strangers[pid] = self._strangers.get(pid, 0) + 1 if words else LOOKS_AT_STRANGERS
                return 0
            self.processes[pid] = [words, 0]
        with Path(f"/proc/{pid}/status").open() as stream:
            for line in stream:
                if line.startswith("VmHWM:"):
                    mark = int(line.split()[1]) * 1024
                    self.processes[pid][1] = mark
                    return mark
        return 0


def main() -> None:
    """Read the words of the command line and do it."""
    pattern, timeout_s, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    memory = Memory(pattern)
    memory.look()
    memory.start()
    lines: list[list[float | str]] = []
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    assert process.stdout is not None
    for raw in process.stdout:
        if len(lines) < MAX_LINES:
            lines.append([round(time.monotonic() - start, 3), raw.decode(errors="replace").rstrip()])
    code = process.wait()
    seconds = time.monotonic() - start
    timer.cancel()
    memory.stop()
    found = {
        "code": code, "seconds": round(seconds, 3), "peak_rss_bytes": memory.peak_bytes, "lines": lines,
        "processes": list(memory.processes.values()),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
