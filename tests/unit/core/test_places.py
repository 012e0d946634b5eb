"""Who leaves for a newcomer when all places are taken."""

from __future__ import annotations

import random

import pytest

from zentrid.core.places import MAX_OF_ONE, MAX_PLACES, FullError, Place, who_leaves


def places(*groups: tuple[str, int] | tuple[str, int, str]) -> list[Place]:
    """Return connections: source, how many, and of what kind (`p` proven, `b` busy). The later ones were used later."""
    kinds = [(group[0], group[2] if len(group) > 2 else "") for group in groups for _ in range(group[1])]
    return [Place(source, float(n), "p" in kind, "b" in kind) for n, (source, kind) in enumerate(kinds)]


@pytest.mark.parametrize(
    ("held", "source", "leaves"),
    [
        ([], "a", None),
        (places(("a", 15), ("b", 16)), "a", None),
        (places(("a", 15), ("b", 16)), "b", 15),  # all of its places: one of its own
        (places(("b", 16, "p")), "b", 0),
        (places(("b", 2, "p"), ("b", 13, "pb"), ("b", 1)), "b", 15),
        (places(("b", 16, "pb")), "b", "full"),
        (places(("b", 13, "b"), ("b", 2, ""), ("b", 1, "b")), "b", 13),  # what it is waiting for is not cut off
        (places(("b", 16, "b"), ("a", 16, "b")), "b", "full"),
        (places(("b", 16, "b"), ("a", 16, "b")), "c", 0),
        (places(("a", 16), ("b", 16)), "owner", 0),  # the source with most gives the oldest
        (places(("a", 15), ("b", 16), ("c", 1)), "owner", 15),
        (places(("a", 10, "b"), ("a", 2), ("b", 10), ("c", 10)), "owner", 0),  # who has proven nothing, at work or not
        ([place for n in range(32) for place in places((f"{n}", 1))], "owner", 0),  # a neighbour with many addresses
        ([place for n in range(32) for place in places((f"{n}", 1))], "5", "full"),  # and no gain for any of them
        (places(("a", 12), ("b", 12), ("c", 8)), "c", 0),
        (places(("a", 12), ("b", 12), ("c", 8)), "a", "full"),
        (places(("owner", 10, "p"), ("owner", 6, "pb"), ("a", 8), ("b", 8)), "c", 16),  # never who has proven it
        (places(("owner", 15, "p"), ("other", 15, "pb"), ("a", 2)), "b", 30),
        (places(("owner", 16, "p"), ("other", 16, "p")), "a", 0),  # but idle ones, which browsers open again
        (places(("owner", 16, "pb"), ("other", 16, "pb")), "a", "full"),
        (places(("owner", 16, "pb"), ("other", 15, "pb"), ("other", 1, "p")), "a", 31),
    ],
)
def test_who_leaves(held: list[Place], source: str, leaves: int | str | None) -> None:
    if leaves == "full":
        with pytest.raises(FullError):
            who_leaves(held, source)
    else:
        assert who_leaves(held, source) is (held[leaves] if isinstance(leaves, int) else None)


def open_one(held: list[Place], place: Place) -> bool:
    """Be the listener."""
    try:
        leaves = who_leaves(held, place.source)
    except FullError:
        return False
    if leaves is not None:
        held.remove(leaves)
    held.append(place)
    return True


@pytest.mark.parametrize("neighbours", [1, 2, 3, 31, 32, 33, 250])
def test_whatever_neighbours_do_an_owner_gets_in_and_stays(neighbours: int) -> None:
    dice = random.Random(neighbours)
    for kind in ("", "b"):
        held: list[Place] = []
        for now in range(1000):
            open_one(held, Place(f"n{dice.randrange(neighbours)}", now, busy="b" in kind))
        owner = Place("owner", 1000.0)
        assert open_one(held, owner)
        for now in range(1001, 1001 + MAX_PLACES // 2):
            open_one(held, Place(f"n{dice.randrange(neighbours)}", now))
        assert owner in held, "it has time for its password"
        owner.proven = True
        for now in range(1100, 3000):
            open_one(held, Place(f"n{dice.randrange(neighbours)}", now, busy=dice.random() < 0.5))
            assert len(held) <= MAX_PLACES
            assert sum(place.source == "n0" for place in held) <= MAX_OF_ONE
        assert owner in held
        assert open_one(held, Place("owner", 3000.0))
