"""`python3 -m zentrid.dbus <process number of who starts it>`: the D-Bus service, as a user without rights."""

from __future__ import annotations

import logging
import os
import resource
import sys
from pathlib import Path
from typing import Final

from zentrid.adapters.rights import user_to_become
from zentrid.appchild import become

USER: Final = "zentri-dbus"
"""Its group is the one that may use the command line."""
MAX_OPEN_FILES: Final = 64
MAX_ADDRESS_SPACE_BYTES: Final = 512 * 1024 * 1024
NICE: Final = 5


def give_up_rights(parent: int) -> None:
    """Become the user for good, and end with the process `parent`. Raises OSError."""
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, MAX_ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    user = user_to_become(USER)
    ids = (user.pw_uid, user.pw_gid) if user is not None else (None, None)
    become({"uid": ids[0], "gid": ids[1], "parent": parent, "directory": "/"})


def main() -> None:
    """Serve until the bus is gone."""
    give_up_rights(int(sys.argv[1]))
    for name in ("ssl", "_hashlib"):  # as in the supervisor: 4 MiB less, and nothing here speaks TLS
        sys.modules[name] = None  # type: ignore[assignment]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Only now: what is large and reads what others send.
    from zentrid.consoleclient import SOCKET
    from zentrid.dbus.bus import serve
    from zentrid.dbus.console import Console
    from zentrid.dbus.service import Service

    path = os.environ.get("ZENTRI_CONSOLE_SOCKET", SOCKET)
    serve(lambda listener: Service(Console(Path(path)), listener))


if __name__ == "__main__":
    main()
