"""Decides on each connection and request whether it may do anything; keeps what is known of who came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from zentrid.core.account import basic_credentials
from zentrid.core.httpaccess import (
    Address,
    Network,
    Page,
    connected_networks,
    guesser_of,
    is_itself,
    is_near,
    is_own_name,
    own_addresses,
    page_of,
    refused_page,
    source_of,
)
from zentrid.core.lockout import FIRST_LOCK_S, Guesser, Limits
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
        # The page first: a password that it makes a browser send is nobody's guess.
        why = refused_page(headers, secure=self.secure, origins=self.config.origins) if acts else None
        return await self._judge_person(peer, local, headers) if why is None else Refused(403, why)

    async def _judge_person(self, peer: str, local: str, headers: Mapping[str, str]) -> Refused | None:
        if not self.config.account.complete:
            if await self.near(peer, local):
                return None
            return Refused(
                403,
                "until http.server.username and http.server.password are set, the device answers to its own network only, "
                "and not to itself",
            )
        await self.near(peer, local)  # whose guess it is depends on the networks
        page = page_of(headers, secure=self.secure, origins=self.config.origins)
        wait_s = self.locked_s(peer, page)
        if wait_s:
            seconds = str(int(wait_s) + 1)
            return Refused(429, f"too many wrong passwords; wait {seconds} s", {"Retry-After": seconds})
        given = basic_credentials(headers.get("Authorization", ""))
        if given is not None and self.admits(peer, *given, page):
            return None
        challenge = {"WWW-Authenticate": 'Basic realm="Zentri", charset="UTF-8"'}
        return Refused(401, "user name and password are needed", challenge)

    def _guesser(self, peer: str, page: Page) -> Guesser:
        """What a page makes a browser guess is counted apart: it must not lock out whose browser that is."""
        who = guesser_of(peer, self.networks)
        return replace(who, name=who.name + page.value)

    def locked_s(self, peer: str, page: Page = Page.OWN) -> float:
        """Return for how long no password from this address is looked at; 0: one is."""
        return self.limits.locked_s(self._guesser(peer, page), time.monotonic())

    def admits(self, peer: str, username: str, password: str, page: Page = Page.OWN) -> bool:
        """Tell whether these are right; a wrong password is counted."""
        who, now_s = self._guesser(peer, page), time.monotonic()
        if self.limits.locked_s(who, now_s):
            return False
        if self.config.account.admits(username, password):
            self.limits.right(who, now_s)
            return True
        self.limits.wrong(who, now_s)
        locked_s = self.limits.locked_s(who, now_s)
        if locked_s >= FIRST_LOCK_S:
            self.tell(f"wrong passwords from {who.name}: not listened to for {locked_s:.0f} s")
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
