"""The way to a release that needs others first: what a step may be."""

from __future__ import annotations

import pytest

from zentrid.core.chain import floor_of_step
from zentrid.core.version import parse_version


@pytest.mark.parametrize(
    ("floor", "firmware", "running", "expected"),
    [
        ("1.6.0", "1.0.0", "1.6.0", "1.0.0"),  # applications have raised it
        ("1.6.0", "1.0.0", "1.0.0", "1.6.0"),  # firmware that was healthy here once has
        ("1.6.0", "1.0.0", "1.5.0", "1.6.0"),  # nobody knows any more what has
        ("1.6.0", "1.6.0", "1.6.0", "1.6.0"),
        ("1.0.0", "1.6.0", "1.6.0", "1.0.0"),
    ],
)
def test_only_what_applications_have_raised_does_not_count(
    floor: str, firmware: str, running: str, expected: str
) -> None:
    found = floor_of_step(parse_version(floor), parse_version(firmware), parse_version(running))
    assert found == parse_version(expected)
