"""Limits for each source of requests: how many, and how many wrong passwords. Pure: the time is given."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_SOURCES: Final = 256
FREE_TRIES: Final = 5
"""So many wrong passwords cost nothing."""
FIRST_LOCK_S: Final = 30.0
LONGEST_LOCK_S: Final = 900.0
FORGET_S: Final = 900.0
"""After so long without a wrong one, all is as at first."""
REQUESTS_S: Final = 100.0
"""More than a client that waits for each answer gets from the device; less than a flood."""
BURST: Final = 200.0


@dataclass
class _Source:
    tokens: float = BURST
    seen_s: float = 0.0
    wrong: int = 0
    wrong_s: float = 0.0
    locked_until_s: float = 0.0


class Limits:
    """What is known of the sources; of at most `MAX_SOURCES`, the ones that were silent for longest are forgotten."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    def _source(self, name: str, now_s: float) -> _Source:
        source = self._sources.pop(name, None) or _Source(seen_s=now_s)
        if source.wrong and now_s - max(source.wrong_s, source.locked_until_s) >= FORGET_S:
            source.wrong = 0
        self._sources[name] = source
        if len(self._sources) > MAX_SOURCES:
            # One that tried passwords is remembered before one that merely came.
            spare = next((n for n, s in self._sources.items() if not s.wrong and n != name), next(iter(self._sources)))
            del self._sources[spare]
        return source

    def too_many(self, name: str, now_s: float) -> bool:
        """Count a request; True: there were too many."""
        source = self._source(name, now_s)
        source.tokens = min(BURST, source.tokens + max(0.0, now_s - source.seen_s) * REQUESTS_S)
        source.seen_s = now_s
        if source.tokens < 1:
            return True
        source.tokens -= 1
        return False

    def locked_s(self, name: str, now_s: float) -> float:
        """Return for how long no password of this source is looked at; 0: one is."""
        return max(0.0, self._source(name, now_s).locked_until_s - now_s)

    def wrong(self, name: str, now_s: float) -> None:
        """Note a wrong password. A right one forgives none: else who shares an address with the owner could guess for ever."""
        source = self._source(name, now_s)
        source.wrong += 1
        source.wrong_s = now_s
        over = source.wrong - FREE_TRIES
        if over >= 0:
            source.locked_until_s = now_s + min(FIRST_LOCK_S * 2 ** min(over, 10), LONGEST_LOCK_S)

    def quiet(self, now_s: float) -> bool:
        """Tell whether nothing would be lost by forgetting everything."""
        return all(not s.wrong or now_s - max(s.wrong_s, s.locked_until_s) >= FORGET_S for s in self._sources.values())
