"""`python3 -m zentrid.dbus.launch <process number of who starts it> <configuration>`: becomes the bus.

The listening socket is standard input; `dbus-daemon` gets it as systemd would give it one. It is a user without rights from its
first instruction on, and ends with the process that started it.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Final

from zentrid.adapters.rights import user_to_become
from zentrid.appchild import become

PROGRAM: Final = "/usr/bin/dbus-daemon"
USER: Final = "messagebus"
FIRST_FD: Final = 3
"""Where a program that is given sockets expects the first of them."""
MAX_OPEN_FILES: Final = 128
MAX_ADDRESS_SPACE_BYTES: Final = 128 * 1024 * 1024
NICE: Final = 5
OOM_SCORE: Final = 300
"""When memory is short it goes before the supervisor, and after the application."""


def main() -> None:
    """Become the bus. Raises OSError."""
    parent, configuration = int(sys.argv[1]), sys.argv[2]
    os.dup2(0, FIRST_FD)
    os.set_inheritable(FIRST_FD, True)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, MAX_ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    user = user_to_become(USER)
    if user is not None:
        Path("/proc/self/oom_score_adj").write_text(f"{OOM_SCORE}")
    ids = (user.pw_uid, user.pw_gid) if user is not None else (None, None)
    become({"uid": ids[0], "gid": ids[1], "parent": parent, "directory": "/"})
    environment = {"PATH": "/usr/bin:/bin", "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    argv = [PROGRAM, f"--config-file={configuration}", "--nofork", "--nopidfile", "--nosyslog"]
    os.execve(PROGRAM, argv, environment)  # noqa: S606


if __name__ == "__main__":
    main()
