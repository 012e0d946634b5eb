"""What the HTTP door's process is told: one line of JSON at its start, and another whenever a setting changes. No I/O."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Final

from zentrid.core.account import Account
from zentrid.core.variables import Values

MAX_CONFIG_BYTES: Final = 16 * 1024
FILES: Final = "/data/zentri/files"
CONSOLE: Final = "/run/zentrid/console.sock"
USER: Final = "zentri-web"
REQUEST_S: Final = 15.0
"""A request's headers are there within this time, or its connection is closed."""
IDLE_S: Final = 60.0
"""So long without a connection, and the process ends; the next connection starts it again."""


def http_port(values: Values) -> int:
    """Return the web server's port: the one that was set, else the usual one."""
    return values.number("http.server.port") or (443 if values.flag("http.server.tls_enabled") else 80)


@dataclass(frozen=True)
class Config:
    """The door's settings; those that name sockets and certificates hold for the process's life."""

    http_fd: int = -1
    """The listening socket of the web server; -1: none."""
    terminal_fd: int = -1
    """The listening socket of the TCP terminal; -1: none."""
    certificate: str = ""
    """Paths, read before the rights are given up; empty: no TLS."""
    key: str = ""
    username: str = ""
    password: str = ""
    api_enabled: bool = True
    root_filename: str = ""
    inline_enabled: bool = False
    """Pages of the Web App may hold scripts and styles."""
    hostname: str = ""
    cors_origin: str = ""
    setup: bool = False
    """Set-up mode: the first page is the one for setting up."""
    setup_root: str = ""
    safe_mode: bool = False
    files: str = FILES
    console: str = CONSOLE
    user: str = USER
    idle_s: float = IDLE_S
    request_s: float = REQUEST_S

    @property
    def account(self) -> Account:
        """The account."""
        return Account(self.username, self.password)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the device is reached by, besides its addresses."""
        return tuple(self.hostname.split())

    @property
    def origins(self) -> tuple[str, ...]:
        """The other sites whose pages may use the interface."""
        return tuple(self.cors_origin.split())

    def to_line(self) -> bytes:
        """Return it as the process reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


def config_from_line(line: bytes) -> Config:
    """Return what a line says. Raises ValueError or TypeError: the supervisor's own mistake."""
    value = json.loads(line)
    known = {field.name for field in fields(Config)}
    if not isinstance(value, dict) or not value.keys() <= known:
        raise ValueError("these are no settings of the HTTP door")
    return Config(**value)
