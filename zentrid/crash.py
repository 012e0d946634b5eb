"""What the kernel starts when a program crashes: `python3 -I -m zentrid.crash <pid> <signal> <executable> < core`.

It keeps the program counters and lets the rest go; a core never reaches the disk. The kernel keeps the dying process
until this one has ended (`core_pipe_limit`), so whoever waits for that process finds `/run/zentrid/crash/<pid>.json`.

A core is hostile input. The result file is opened first, with no frames in it yet; then this becomes user `nobody`
with limits on memory, processor time and file size. Two clocks: at the first, what was found until then is written;
the second is the kernel's and ends this process whatever it does.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import select
import signal
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from zentrid.debug.backtrace import backtrace, clean
from zentrid.debug.corefile import read_core
from zentrid.errors import ZentriError
from zentrid.ports import Frame

FOLDER: Final = Path("/run/zentrid/crash")
USER: Final = "nobody"
MAX_RESULT_BYTES: Final = 16 * 1024
MAX_RESULTS: Final = 16
MAX_EXECUTABLE_CHARS: Final = 200
MAX_PROBLEM_CHARS: Final = 160
READ_LIMIT_S: Final = 10.0
"""After this long the core counts as ended."""
HARD_LIMIT_S: Final = 15
"""After this long this process ends. Together with Python's start it stays below the 20 s that a dying process may wait."""
CPU_LIMIT_S: Final = 10
MAX_ADDRESS_SPACE_BYTES: Final = 192 * 1024 * 1024
MAX_OPEN_FILES: Final = 16
NICENESS: Final = 10
OOM_SCORE: Final = 500
"""When the board is short of memory, this process goes long before the supervisor."""


class _Pipe:
    """The core from the kernel; its end comes at the latest at the deadline."""

    def __init__(self, fd: int, deadline_s: float) -> None:
        self._fd = fd
        self._deadline_s = deadline_s

    def read(self, size: int, /) -> bytes:
        """Return what is there, at most `size` bytes; nothing at the end or after the deadline."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([self._fd], [], [], left_s)[0]:
            return b""
        return os.read(self._fd, size)


def result(number: int, executable: str, frames: Sequence[Frame], problem: str = "") -> bytes:
    """Return the JSON of one crash, at most MAX_RESULT_BYTES; the outermost frames are left out where it gets too long."""
    values: dict[str, object] = {"signal": number, "executable": executable}
    if problem:
        values["problem"] = clean(problem, MAX_PROBLEM_CHARS)
    kept = [{"module": frame.module, "build_id": frame.build_id, "address": frame.address} for frame in frames]
    while True:
        data = json.dumps({**values, "frames": kept}, ensure_ascii=False).encode() + b"\n"
        if len(data) <= MAX_RESULT_BYTES or not kept:
            return data
        kept.pop()


def open_result(folder: Path, pid: int) -> int:
    """Make the result file of a process and return its descriptor; the oldest results give way."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / f"{pid}.json").unlink(missing_ok=True)
    there = sorted(folder.glob("*.json"), key=_age)
    for path in there[: max(0, len(there) - MAX_RESULTS + 1)]:
        path.unlink(missing_ok=True)
    return os.open(folder / f"{pid}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _age(path: Path) -> int:
    """Return when a result was written; what another reader has just removed comes first."""
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0


def give_way() -> None:
    """Let everything else go first: a program may crash as often and as many times at once as it likes."""
    with suppress(OSError):
        os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def confine() -> None:
    """Give away all rights, and limit what a hostile core could make of this process."""
    for what, limit in (
        (resource.RLIMIT_AS, MAX_ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_CPU, CPU_LIMIT_S),
        (resource.RLIMIT_FSIZE, MAX_RESULT_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        resource.setrlimit(what, (limit, limit))
    if os.geteuid() == 0:
        user = pwd.getpwnam(USER)
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    # No process can be started any more; root would not be held by this.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def open_module(path: str) -> BinaryIO | None:
    """Open a program or library to look things up in it; nothing that could block or is no regular file."""
    with suppress(OSError, ValueError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return os.fdopen(fd, "rb", buffering=0)
        os.close(fd)
    return None


def frames_of(fd: int, limit_s: float = READ_LIMIT_S) -> tuple[tuple[Frame, ...], str]:
    """Return the frames in the core that comes from `fd`, and what went wrong, if anything did."""
    try:
        core = read_core(_Pipe(fd, time.monotonic() + limit_s))
        return backtrace(core, open_module), "" if core.whole else "the core was cut off"
    except ZentriError as error:
        return (), str(error)
    except Exception as error:  # the process that waits must get an answer, whatever a core can do to its reader
        return (), f"the core could not be read ({type(error).__name__})"


def main(words: Sequence[str], folder: Path = FOLDER) -> int:
    """Write the result of one crash. The core is standard input, which stays open until the result is written."""
    give_way()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(HARD_LIMIT_S)
    # The kernel gives no other descriptors: without these the result file would get the number of standard error.
    while os.open("/dev/null", os.O_RDWR) <= 2:
        pass
    pid, number, executable = int(words[0]), int(words[1]), clean(words[2].replace("!", "/"), MAX_EXECUTABLE_CHARS)
    target = open_result(folder, pid)
    os.write(target, result(number, executable, ()))
    confine()
    frames, problem = frames_of(0)
    data = result(number, executable, frames, problem)
    os.pwrite(target, data, 0)
    os.ftruncate(target, len(data))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
