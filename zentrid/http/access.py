"""Decides on each connection and request whether it may do anything; keeps what is known of who came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from zentrid.core.account import basic_credentials
from zentrid.core.httpaccess import (
    Address,
    Network,
    connected_networks,
    is_itself,
    is_near,
    is_own_name,
    own_addresses,
    refused_page,
    source_of,
)
from zentrid.core.lockout import Limits
from zentrid.http.config import Config

NETWORKS_S: Final = 10.0
ROUTES: Final = Path("/proc/net/route")
ADDRESSES6: Final = Path("/proc/net/if_inet6")
TRIE: Final = Path("/proc/net/fib_trie")


@dataclass(frozen=True)
class Refused:
    """An HTTP status, a sentence, and headers that go with it."""

    status: int
    sentence: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Access:
    """The door's rules, as the settings are now."""

    config: Config
    secure: bool = False
    limits: Limits = field(default_factory=Limits)
    networks: tuple[Network, ...] = ()
    own: frozenset[Address] = frozenset()
    tell: Callable[[str], None] = lambda _sentence: None
    """Hears what the device's log should know."""
    _networks_s: float = float("-inf")

    async def judge(self, peer: str, headers: Mapping[str, str], *, local: str, acts: bool) -> Refused | None:
        """Return why a request is refused; None: it may go on.

        `peer` and `local` are the connection's two ends; `acts`: it is more than looking at a page.
        """
        now_s = time.monotonic()
        if self.limits.too_many(source_of(peer), now_s):
            return Refused(429, "too many requests; wait a moment", {"Retry-After": "1"})
        if not is_own_name(headers.get("Host", ""), self.config.names):
            return Refused(
                421, "the device does not know this name; use its address, or add the name to http.server.hostname"
            )
        refusal = await self._judge_person(peer, local, headers)
        if refusal is None and acts:
            why = refused_page(headers, secure=self.secure, origins=self.config.origins)
            refusal = None if why is None else Refused(403, why)
        return refusal

    async def _judge_person(self, peer: str, local: str, headers: Mapping[str, str]) -> Refused | None:
        if not self.config.account.complete:
            if await self.near(peer, local):
                return None
            return Refused(
                403,
                "until http.server.username and http.server.password are set, the device answers to its own network only, "
                "and not to itself",
            )
        wait_s = self.locked_s(peer)
        if wait_s:
            seconds = str(int(wait_s) + 1)
            return Refused(429, f"too many wrong passwords; wait {seconds} s", {"Retry-After": seconds})
        given = basic_credentials(headers.get("Authorization", ""))
        if given is not None and self.admits(peer, *given):
            return None
        challenge = {"WWW-Authenticate": 'Basic realm="Zentri", charset="UTF-8"'}
        return Refused(401, "user name and password are needed", challenge)

    def locked_s(self, peer: str) -> float:
        """Return for how long no password from this address is looked at; 0: one is."""
        return self.limits.locked_s(source_of(peer), time.monotonic())

    def admits(self, peer: str, username: str, password: str) -> bool:
        """Tell whether these are right; a wrong password is counted."""
        now_s = time.monotonic()
        if self.locked_s(peer):
            return False
        if self.config.account.admits(username, password):
            return True
        self.limits.wrong(source_of(peer), now_s)
        if self.locked_s(peer):
            self.tell(f"wrong passwords from {source_of(peer)}: not listened to for {self.locked_s(peer):.0f} s")
        return False

    async def near(self, peer: str, local: str) -> bool:
        """Tell whether a connection comes from another machine in one of the device's own networks."""
        now_s = time.monotonic()
        if now_s - self._networks_s >= NETWORKS_S:
            self.networks, self.own = await asyncio.to_thread(_read_networks)
            self._networks_s = now_s
        return is_near(peer, self.networks) and not is_itself(peer, local, self.own)

    def quiet(self) -> bool:
        """Tell whether nothing would be lost if the process ended."""
        return self.limits.quiet(time.monotonic())


def _read_networks() -> tuple[tuple[Network, ...], frozenset[Address]]:
    texts = []
    for path in (ROUTES, ADDRESSES6, TRIE):
        try:
            texts.append(path.read_text("ascii", "replace"))
        except OSError:  # no such protocol here
            texts.append("")
    return connected_networks(texts[0], texts[1]), own_addresses(texts[2], texts[1])
