"""Free ports on the host's loopback."""

from __future__ import annotations

import socket

from scripts.board_driver.errors import MachineError


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now. Somebody else may take it before QEMU does: then start again."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(port: int) -> int:
    """Return `port`; MachineError if it cannot be had."""
    if not 1 <= port <= 65535:
        raise MachineError(f"{port} is no port; use one from 1 to 65535")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise MachineError(f"port {port} of 127.0.0.1 is not free ({error.strerror}); choose another") from error
    return port
