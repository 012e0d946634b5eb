"""What the network probe, a process without rights, tells of its work: one line for each piece of news. Pure.

It meets whatever answers on the network, so its lines are read as strictly as if a stranger had written them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from zentrid.core.network import to_number
from zentrid.core.text import printable
from zentrid.errors import ZentriError

MAX_LINE_BYTES: Final = 1000
_SENTENCE_CHARS: Final = 240
"""Fits into a line whatever its characters are."""
MAX_COUNT: Final = 20
"""Most packets of one `ping`."""
MAX_ADDRESSES: Final = 16
"""Most addresses of one name that are told."""
PING_WAIT_S: Final = 2.0
"""So long a reply is waited for."""
PING_EVERY_S: Final = 0.5
HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?"
_MAX_MS: Final = 100_000.0
_ADDRESS6: Final = re.compile(r"[0-9a-f:.]{2,45}(%[0-9a-z]{1,15})?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?", re.ASCII)


class ProbeError(ZentriError):
    """What was looked for could not be found out, or the answer is no."""

    reason = "probe"


@dataclass(frozen=True)
class Found:
    """An address that belongs to the name."""

    address: str


@dataclass(frozen=True)
class Reply:
    """The answer to one packet."""

    ms: float
    """Milliseconds from sending to receiving."""


@dataclass(frozen=True)
class Lost:
    """One packet was not answered in time."""


@dataclass(frozen=True)
class Failed:
    """The probe cannot go on; a sentence."""

    sentence: str


News = Found | Reply | Lost | Failed


def to_line(news: News) -> bytes:
    """Return the line that tells the news."""
    match news:
        case Found(address):
            text = f"found {address}"
        case Reply(ms):
            text = f"reply {ms:.3f}"
        case Lost():
            text = "lost"
        case Failed(sentence):
            text = f"failed {printable(sentence[:_SENTENCE_CHARS])}"
    return text.encode() + b"\n"


def parse_news(line: bytes) -> News:
    """Return the news of a line. Raises ProbeError for any line that `to_line` does not make."""
    word, _, rest = line.decode("utf-8", "replace").removesuffix("\n").partition(" ")
    if word == "found" and (to_number(rest) is not None or (":" in rest and _ADDRESS6.fullmatch(rest))):
        return Found(rest)
    if word == "reply" and _NUMBER.fullmatch(rest) and float(rest) <= _MAX_MS:
        return Reply(float(rest))
    if word == "lost" and not rest:
        return Lost()
    if word == "failed" and rest:
        return Failed(printable(rest))
    raise ProbeError("The network probe failed inside the device; try again.")


def summary(host: str, news: list[Reply | Lost]) -> str:
    """Return the answer of `ping`. Raises ProbeError if nothing came back."""
    times = [one.ms for one in news if isinstance(one, Reply)]
    if not times:
        waited_s = PING_WAIT_S * len(news)
        raise ProbeError(f"{host} does not answer (waited {waited_s:g} s); it may be off, or may not answer pings.")
    if len(news) == 1:
        return f"Ping reply in {times[0]:.1f} ms"
    least, mean, most = min(times), sum(times) / len(times), max(times)
    return f"{len(times)} of {len(news)} answered; {least:.1f}/{mean:.1f}/{most:.1f} ms (least, mean, most)"
