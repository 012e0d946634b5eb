"""Who may log in by SSH as `zentri`, whose login shell is the command language. Keys only; there are no passwords."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from zentrid.core.variables import Values

log = logging.getLogger(__name__)

END_SERVER: Final = ("/usr/bin/killall", "-q", "dropbear")
"""Ends the server and its sessions; init starts it again, and it looks whether it may serve."""
PROGRAM_TIMEOUT_S: Final = 5.0
_VARIABLES: Final = ("ssh.enabled", "ssh.authorized_keys")


def run_program(command: Sequence[str]) -> None:
    """Run a program that takes a moment. Raises OSError."""
    try:
        subprocess.run(command, capture_output=True, timeout=PROGRAM_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} does not end") from error


class SshAccess:
    """Keeps the SSH server's files in step with `ssh.enabled` and `ssh.authorized_keys`, as they are set, saved or not."""

    def __init__(self, folder: Path, identity: Path | None, run: Callable[[Sequence[str]], None] = run_program) -> None:
        """Take the server's folder on RAM, and the identity whose developer's key counts too (development builds only)."""
        self._folder = folder
        self._identity = identity
        self._run = run
        self._was_enabled: bool | None = None

    def follow(self, values: Values) -> None:
        """Apply the settings now and whenever one of them changes."""
        self.apply(values)
        values.subscribe(lambda name, _value: self.apply(values) if name in _VARIABLES else None)

    def apply(self, values: Values) -> None:
        """Write keys and switch; a problem is logged, because settings must stay changeable."""
        try:
            self._apply(values.flag("ssh.enabled"), values.text("ssh.authorized_keys").split(";"))
        except OSError as error:
            log.error("SSH access could not be changed: %s", error)

    def _apply(self, enabled: bool, keys: list[str]) -> None:
        home = self._folder / "zentri"
        home.mkdir(parents=True, exist_ok=True)
        lines = [key.strip() for key in keys if key.strip()]
        developer = None if self._identity is None else self._identity / "authorized_keys"
        if developer is not None and developer.is_file():
            lines += developer.read_text().splitlines()
        new = home / "authorized_keys.new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(home / "authorized_keys")
        switch = self._folder / "off"
        if enabled:
            switch.unlink(missing_ok=True)
        else:
            switch.touch()
        if self._was_enabled is not None and enabled != self._was_enabled:
            self._run(END_SERVER)
        self._was_enabled = enabled
