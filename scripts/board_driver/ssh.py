"""SSH into the board: a root shell on development builds, and the command language for the user `zentri`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from scripts.board_driver.errors import MachineError

CONNECT_TIMEOUT_S: Final = 15
NO_CONNECTION: Final = 255
"""ssh's own exit status when it could not get to the board at all."""
SHELL_USER: Final = "root"
COMMAND_USER: Final = "zentri"


def ssh_command(port: int, key: Path, user: str, words: list[str], *, interactive: bool = False) -> list[str]:
    """Return the ssh command line. Pure.

    The host key is not checked: the connection never leaves this machine, and every fresh board has a new one. No
    configuration and no agent of the person who runs it takes part, so it behaves the same for everybody.
    """
    options = [
        "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null", "LogLevel=ERROR",
        "IdentitiesOnly=yes", "IdentityAgent=none", "PasswordAuthentication=no", f"ConnectTimeout={CONNECT_TIMEOUT_S}",
        "ServerAliveInterval=5", "ServerAliveCountMax=3",
    ]  # fmt: skip
    if not interactive:
        options.append("BatchMode=yes")
    flags = [flag for option in options for flag in ("-o", option)]
    return ["ssh", "-F", "/dev/null", *flags, "-i", str(key), "-p", str(port), f"{user}@127.0.0.1", *words]


def check_key(key: Path) -> Path:
    """Return `key`; MachineError if there is no such file."""
    if not key.is_file():
        raise MachineError(f"there is no SSH key at {key}; `make run` makes one, or pass --key FILE")
    return key


def run_ssh(port: int, key: Path, user: str, line: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run one command line on the board; return exit status and output.

    MachineError if it takes longer than `timeout_s` seconds.
    """
    command = ssh_command(port, check_key(key), user, ["--", line])
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise MachineError("ssh is not installed; install the package openssh-client") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{line!r} over SSH did not finish in {timeout_s:.3g} s") from error
