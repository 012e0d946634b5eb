"""Who has a place among the connections from outside, and who leaves when there is none for a newcomer. Pure.

Whoever is near can open connections until all places are taken, from as many addresses as it likes, and must not keep the
owner out by that. So a newcomer gets in, and a connection that nobody has proven to be the owner's leaves for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

MAX_PLACES: Final = 32
MAX_OF_ONE: Final = 16
"""Places of one source."""


@dataclass(eq=False)
class Place:
    """A connection."""

    source: str
    """Who counts as one; see `httpaccess.source_of`."""
    used_s: float
    """When it was opened, or got what it asked for last. What is merely sent or refused does not count: it costs a stranger
    nothing."""
    proven: bool = False
    """It has shown the account's password."""
    busy: bool = False
    """A request is being handled, or a terminal is open."""


class FullError(Exception):
    """There is no place, and nobody leaves."""


def who_leaves(held: Collection[Place], source: str) -> Place | None:
    """Return who leaves for a newcomer from `source`; None: there is room. Raises FullError.

    A source with all of its places gives one of its own that is idle. Otherwise the source with the most unproven
    connections gives one, at work or not, but not to a source that has as many. The one that is unused for the longest
    goes, so that a newcomer has the time to show its password. Proven ones leave for others only if all are proven.
    """
    own = [place for place in held if place.source == source]
    if len(own) >= MAX_OF_ONE:
        return _least([place for place in own if not place.busy])
    if len(held) < MAX_PLACES:
        return None
    unproven = [place for place in held if not place.proven]
    if unproven:
        return _least(_of_the_greediest(unproven, source))
    return _least([place for place in _of_the_greediest(held, source) if not place.busy])


def _of_the_greediest(places: Collection[Place], source: str) -> list[Place]:
    """Return the places of the sources that have the most. Raises FullError if `source` is one of these."""
    counts = Counter(place.source for place in places)
    most = max(counts.values())
    if most <= counts[source]:
        raise FullError
    return [place for place in places if counts[place.source] == most]


def _least(places: Collection[Place]) -> Place:
    """Return the one that is missed least. Raises FullError if there is none."""
    if not places:
        raise FullError
    return min(places, key=lambda place: (place.proven, place.used_s))
