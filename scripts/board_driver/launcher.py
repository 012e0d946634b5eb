"""Starts one program so that it either dies with its parent or outlives it. A script; standard library alone.

`launcher.py bound PARENT_PID -- PROGRAM …` becomes PROGRAM; the kernel kills it when the thread that started it ends.
`launcher.py detached -- PROGRAM …` starts PROGRAM in a session of its own, prints its process number and ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def become_bound(parent_pid: int, command: list[str]) -> None:
    """Replace this process by `command`, bound to the parent. Does not return."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died before the call above: then nobody would ever send the signal.
    if os.getppid() != parent_pid:
        sys.exit("the parent has ended")
    os.execvp(command[0], command)  # noqa: S606 - a list, never a shell


def start_detached(command: list[str]) -> None:
    """Start `command` in its own session, as a child of init, and print its process number."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        # The caller waits for the end of standard output: the board must not keep it open.
        os.dup2(2, 1)
        os.execvp(command[0], command)  # noqa: S606 - a list, never a shell
    sys.stdout.write(f"{pid}\n")


def main(arguments: list[str]) -> None:
    """Read the arguments and start the program."""
    options, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    if options[0] == "detached":
        start_detached(command)
    else:
        become_bound(int(options[1]), command)


if __name__ == "__main__":
    main(sys.argv[1:])
