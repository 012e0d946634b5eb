"""Connecting to a socket of QEMU, which serves one client at a time and lets one or two wait."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Final

_AGAIN_S: Final = 0.01


def connect(connection: socket.socket, path: Path, timeout_s: float) -> None:
    """Connect to the local socket `path`; while the queue before it is full, wait for a turn. Raises OSError."""
    give_up_s = time.monotonic() + timeout_s
    while True:
        try:
            connection.connect(str(path))
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                raise
            time.sleep(_AGAIN_S)
        else:
            return
