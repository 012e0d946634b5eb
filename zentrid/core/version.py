"""Release versions: `MAJOR.MINOR.PATCH`, their order, and the one 32-bit number that the boot script can compare."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from zentrid.errors import ZentriError

MAX_MAJOR: Final = 255
MAX_MINOR: Final = 255
MAX_PATCH: Final = 65535
MAX_VERSION_CHARS: Final = len(f"{MAX_MAJOR}.{MAX_MINOR}.{MAX_PATCH}")

_NUMBER = r"(0|[1-9][0-9]{0,4})"
_PATTERN = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}", re.ASCII)


class BadVersionError(ZentriError, ValueError):
    """A text or number that is no version; `value` is what was given."""

    reason = "bad_version"

    def __init__(self, value: object) -> None:
        self.value = value
        shown = repr(value)
        shown = shown if len(shown) <= 64 else f"{shown[:61]}..."
        super().__init__(
            f"{shown} is not a version: write MAJOR.MINOR.PATCH, at most {MAX_MAJOR}.{MAX_MINOR}.{MAX_PATCH}, "
            "without leading zeros or suffix"
        )


class Version(NamedTuple):
    """A release version; versions compare by major, then minor, then patch."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def _checked(version: Version, given: object) -> Version:
    in_range = 0 <= version.major <= MAX_MAJOR and 0 <= version.minor <= MAX_MINOR and 0 <= version.patch <= MAX_PATCH
    if not in_range:
        raise BadVersionError(given)
    return version


def parse_version(text: str) -> Version:
    """Return the version that `text` writes, as in `1.12.0`; raise BadVersionError for everything else."""
    match = _PATTERN.fullmatch(text) if len(text) <= MAX_VERSION_CHARS else None
    if match is None:
        raise BadVersionError(text)
    major, minor, patch = (int(number) for number in match.groups())
    return _checked(Version(major, minor, patch), text)


def encode_version(version: Version) -> int:
    """Return the version as one number of 32 bits that keeps the order: major, minor (8 bits each), patch (16 bits).

    Raises BadVersionError if a part is out of range.
    """
    _checked(version, version)
    return version.major << 24 | version.minor << 16 | version.patch


def decode_version(number: int) -> Version:
    """Return the version that `encode_version` made `number` from; raise BadVersionError outside 0 to 2^32-1."""
    if not 0 <= number <= 0xFFFFFFFF:
        raise BadVersionError(number)
    return Version(number >> 24, number >> 16 & 0xFF, number & 0xFFFF)


def version_or_zero(text: str) -> Version:
    """Return the version that a text names; one that names none is the oldest there can be, 0.0.0."""
    try:
        return parse_version(text)
    except BadVersionError:
        return Version(0, 0, 0)
