"""Limits for each source of requests: how many, and how many wrong passwords. Pure: the time is given."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_SOURCES: Final = 256
FREE_TRIES: Final = 5
"""So many wrong passwords cost nothing."""
FREE_WIDER: Final = 20
"""So many cost nothing in a network of IPv6 networks."""
FREE_OF_ALL: Final = 50.0
"""So many in a row from everywhere, then one a second: however many addresses somebody has."""
ALL_S: Final = 1.0
FIRST_LOCK_S: Final = 30.0
LONGEST_LOCK_S: Final = 900.0
FORGET_S: Final = 900.0
"""After so long without a wrong one, all is as at first."""
REQUESTS_S: Final = 100.0
"""More than a client that waits for each answer gets from the device; less than a flood."""
BURST: Final = 200.0


@dataclass(frozen=True)
class Guesser:
    """Who wrong passwords are counted for."""

    name: str
    wider: str = ""
    """A network of networks that is counted too; empty: none."""
    near: bool = False
    """In one of the device's own networks: guessers from afar cost those no time, nor they them."""


@dataclass
class _Source:
    tokens: float = BURST
    seen_s: float = 0.0
    wrong: int = 0
    wrong_s: float = 0.0
    locked_until_s: float = 0.0
    right: bool = False
    """The right password came from here: what others guess costs this one no time."""


@dataclass
class _Bucket:
    """Wrong passwords of all sources together."""

    left: float = FREE_OF_ALL
    seen_s: float = 0.0

    def at(self, now_s: float) -> float:
        """Return how many may come now."""
        self.left = min(FREE_OF_ALL, self.left + max(0.0, now_s - self.seen_s) * ALL_S)
        self.seen_s = now_s
        return self.left


class Limits:
    """What is known of the sources; of at most `MAX_SOURCES`, the ones that were silent for longest are forgotten."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._all = {near: _Bucket() for near in (False, True)}

    def _source(self, name: str, now_s: float) -> _Source:
        source = self._sources.pop(name, None) or _Source(seen_s=now_s)
        if source.wrong and now_s - max(source.wrong_s, source.locked_until_s) >= FORGET_S:
            source.wrong = 0
        self._sources[name] = source
        if len(self._sources) > MAX_SOURCES:
            # One that tried passwords is remembered before one that merely came, and one that knows it before both.
            spare = min((n for n in self._sources if n != name), key=lambda n: self._worth(self._sources[n]))
            del self._sources[spare]
        return source

    @staticmethod
    def _worth(source: _Source) -> tuple[bool, bool]:
        return source.right, source.wrong > 0

    def too_many(self, name: str, now_s: float) -> bool:
        """Count a request; True: there were too many."""
        source = self._source(name, now_s)
        source.tokens = min(BURST, source.tokens + max(0.0, now_s - source.seen_s) * REQUESTS_S)
        source.seen_s = now_s
        if source.tokens < 1:
            return True
        source.tokens -= 1
        return False

    def locked_s(self, who: Guesser, now_s: float) -> float:
        """Return for how long no password of this source is looked at; 0: one is."""
        source = self._source(who.name, now_s)
        until_s = source.locked_until_s
        if not source.right:
            left = self._all[who.near].at(now_s)
            if left < 1:
                until_s = max(until_s, now_s + (1 - left) / ALL_S)
            if who.wider:
                until_s = max(until_s, self._source(who.wider, now_s).locked_until_s)
        return max(0.0, until_s - now_s)

    def right(self, who: Guesser, now_s: float) -> None:
        """Note a right password. It forgives no wrong one: else who shares an address with the owner could guess for ever."""
        self._source(who.name, now_s).right = True

    def wrong(self, who: Guesser, now_s: float) -> None:
        """Note a wrong password."""
        bucket = self._all[who.near]
        bucket.left = max(0.0, bucket.at(now_s) - 1)
        self._wrong(who.name, now_s, FREE_TRIES)
        if who.wider:
            self._wrong(who.wider, now_s, FREE_WIDER)

    def _wrong(self, name: str, now_s: float, free: int) -> None:
        source = self._source(name, now_s)
        source.wrong += 1
        source.wrong_s = now_s
        over = source.wrong - free
        if over >= 0:
            source.locked_until_s = now_s + min(FIRST_LOCK_S * 2 ** min(over, 10), LONGEST_LOCK_S)

    def quiet(self, now_s: float) -> bool:
        """Tell whether nothing would be lost by forgetting everything."""
        if any(bucket.at(now_s) < FREE_OF_ALL for bucket in self._all.values()):
            return False
        return all(not s.wrong or now_s - max(s.wrong_s, s.locked_until_s) >= FORGET_S for s in self._sources.values())
