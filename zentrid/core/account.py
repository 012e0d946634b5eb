"""The account that the doors on the network ask for: one user name, one password. Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from typing import Final

MAX_CREDENTIALS_CHARS: Final = 512


@dataclass(frozen=True)
class Account:
    """The one account there is; complete only when both are set."""

    username: str = ""
    password: str = ""

    @property
    def complete(self) -> bool:
        """Tell whether a password is asked for."""
        return bool(self.username and self.password)

    def admits(self, username: str, password: str) -> bool:
        """Tell whether these are the right ones; takes the same time for every wrong one."""
        name = hmac.compare_digest(username.encode("utf-8", "replace"), self.username.encode())
        word = hmac.compare_digest(password.encode("utf-8", "replace"), self.password.encode())
        return self.complete and name and word


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Return user name and password of an Authorization header; None if it holds none."""
    scheme, _, coded = header.strip().partition(" ")
    if scheme.lower() != "basic" or len(coded) > MAX_CREDENTIALS_CHARS:
        return None
    try:
        text = base64.b64decode(coded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    username, colon, password = text.partition(":")
    return (username, password) if colon else None
