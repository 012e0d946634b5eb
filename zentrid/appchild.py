"""Becomes the application: takes the limits upon itself, gives its rights away, and executes the program.

Run as `python3 -I -S appchild.py <JSON>`, by the supervisor only; a program of its own, because nothing of the supervisor may
be left in the process. Members of the JSON: `argv` (list), `directory`, `files` (limit of open files), `parent` (the
supervisor's process number), `status_fd`; `join` (a `cgroup.procs` file) and `uid`, `gid`, null to leave them alone.

Nothing on the status pipe and its end: the program runs. Else `[exit code, reason]` as JSON, and this process ends.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
NICE = 5
OOM_SCORE = 500  # when the whole board is short of memory the application goes first


def main() -> None:
    """Become the application; return only if that failed, after telling why."""
    wanted = json.loads(sys.argv[1])
    status_fd = int(wanted["status_fd"])
    os.set_inheritable(status_fd, False)
    try:
        confine(wanted)
        become(wanted)
        os.execve(wanted["argv"][0], wanted["argv"], dict(os.environ))  # noqa: S606
    except OSError as error:
        code, reason = explain(error, wanted["argv"][0])
        os.write(status_fd, json.dumps([code, reason]).encode())
        os._exit(code)


def confine(wanted: dict[str, Any]) -> None:
    """Set what needs the rights that are given away next."""
    if wanted["join"] is not None:
        write(wanted["join"], "0")
        write("/proc/self/oom_score_adj", str(OOM_SCORE))
    os.nice(NICE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted["files"], wanted["files"]))
    except ValueError as error:
        raise OSError(errno.EPERM, "the limit of open files") from error
    # No core file, wherever the pattern points; a core that goes into a pipe does not ask for this limit.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def become(wanted: dict[str, Any]) -> None:
    """Become the user, without a way back."""
    if wanted["uid"] is not None:
        os.setgroups([])
        os.setresgid(wanted["gid"], wanted["gid"], wanted["gid"])
        os.setresuid(wanted["uid"], wanted["uid"], wanted["uid"])
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
    if os.getppid() != wanted["parent"]:
        os._exit(1)  # the supervisor ended before its end could be noticed
    os.umask(0o022)
    os.chdir(wanted["directory"])
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that would be inherited
        signal.signal(number, signal.SIG_DFL)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process that Python has no call for. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), "prctl")


def write(path: str, text: str) -> None:
    """Write to a file of the kernel."""
    with open(path, "w") as file:  # noqa: PTH123 - pathlib takes its time to load
        file.write(text)


def explain(error: OSError, program: str) -> tuple[int, str]:
    """Return exit code and reason of a start that failed."""
    if error.filename != program:
        return (
            126,
            f"{program} cannot be confined ({error.filename or error.strerror}: {os.strerror(error.errno or 0)})",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.exists(program):  # noqa: PTH110
            return 127, f"the interpreter or loader that {program} asks for is not there"
        return 127, f"{program} is not there"
    if error.errno == errno.ENOEXEC:
        return 126, f"{program} is no program for this processor, or a script without '#!' in its first line"
    if error.errno == errno.EACCES:
        return 126, f"{program} is not executable, or the user zentri-app may not read its folder"
    return 126, f"{program} cannot be started ({error.strerror})"


if __name__ == "__main__":
    main()
