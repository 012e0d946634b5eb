"""What was measured and what it comes to: rows, ratios, geometric means, targets. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

OURS: Final = "zentri"
"""This project's engine on the board: everything that went over the wire counts, TLS and signed metadata included."""
OUR_PATCH: Final = "zentri-patch"
"""This project's patches alone, as files, for comparing with tools that make nothing but such a file."""
ON_THE_BOARD: Final = ("rauc", "rauc-adaptive", "swupdate", "swupdate-delta")
"""Engines that install on the board, as this one does."""

MIB: Final = 1024 * 1024
WIRE_TARGETS: Final[Mapping[str, float]] = {"xdelta3": 0.70, "bsdiff": 0.80, "rauc-adaptive": 0.20, "zchunk": 0.20}
"""At most this, as geometric mean of bytes over the pairs, of the other's bytes."""
SPEED_TARGET: Final = 1.5
"""At least this many times as fast as each engine on the board, as geometric mean over the pairs."""
MEMORY_TARGET_BYTES: Final = 64 * MIB
MAX_ROWS: Final = 10_000


@dataclass(frozen=True)
class Row:
    """One engine on one pair. None: the engine has no such figure."""

    pair: str
    engine: str
    wire_bytes: int | None
    """From the server to the device, TCP payload."""
    install_s: float | None
    """From the command to its answer that everything is installed and verified."""
    peak_rss_bytes: int | None
    """The largest sum of the peak resident sizes of the engine's living processes."""
    fill_s: float | None = None
    """Of `install_s`, the part from the first block on: without asking the server and checking its metadata."""


@dataclass(frozen=True)
class Verdict:
    """A target and how it was met."""

    target: str
    measured: str
    passed: bool


def rows_to_json(rows: Iterable[Row]) -> str:
    """Return the rows as a JSON list, one row a line; `fill_s` only where there is one."""
    lines = []
    for row in rows:
        values = asdict(row)
        if row.fill_s is None:
            del values["fill_s"]
        lines.append(" " + json.dumps(values))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def rows_from_json(text: str) -> list[Row]:
    """Return the rows of `rows_to_json`. Raises ValueError for anything else."""
    found: Any = json.loads(text)
    if not isinstance(found, list) or len(found) > MAX_ROWS:
        raise ValueError("the results are no list of rows; run `make bench-update` again")
    known = {field.name for field in fields(Row)}
    rows = []
    for entry in found:
        if not isinstance(entry, dict) or not set(entry) <= known:
            raise ValueError("the results have a row of another form; run `make bench-update` again")
        try:
            rows.append(Row(**entry))
        except TypeError as error:
            raise ValueError(f"the results have a row that lacks something ({error})") from error
    return rows


def geometric_mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean of positive values; None for none."""
    if not values:
        return None
    return math.exp(sum(math.log(value) for value in values) / len(values))


def engines_of(rows: Iterable[Row]) -> list[str]:
    """Return the engines in the order of their first row, this project's own first."""
    names = list(dict.fromkeys(row.engine for row in rows))
    return sorted(names, key=lambda name: (name != OURS, name != OUR_PATCH))


def pairs_of(rows: Iterable[Row]) -> list[str]:
    """Return the pairs in the order of their first row."""
    return list(dict.fromkeys(row.pair for row in rows))


def column(rows: Iterable[Row], engine: str, figure: str) -> dict[str, float]:
    """Return a figure (the name of a Row's field) of an engine by pair, without those that have none."""
    found = {row.pair: getattr(row, figure) for row in rows if row.engine == engine}
    return {pair: float(value) for pair, value in found.items() if value is not None}


def ratios(rows: Sequence[Row], other: str, figure: str) -> dict[str, float]:
    """Return this engine's figure divided by the other's, for each pair that both have. Zero counts as one byte or 1 ms.

    Like with like: another engine's whole transfer with this one's, a tool's patch file with this one's patches.
    """
    smallest = 1.0 if figure.endswith("bytes") else 0.001
    ours = OURS if other in (OURS, *ON_THE_BOARD) else OUR_PATCH
    mine, theirs = column(rows, ours, figure), column(rows, other, figure)
    both = [pair for pair in pairs_of(rows) if pair in mine and pair in theirs]
    return {pair: max(mine[pair], smallest) / max(theirs[pair], smallest) for pair in both}


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return every target with what was measured. A target that nothing was measured for is not passed."""
    return [*_wire_verdicts(rows), *_speed_verdicts(rows), _memory_verdict(rows)]


def _wire_verdicts(rows: Sequence[Row]) -> list[Verdict]:
    found = []
    for other, limit in WIRE_TARGETS.items():
        by_pair = ratios(rows, other, "wire_bytes")
        mean = geometric_mean(list(by_pair.values()))
        found.append(
            Verdict(
                f"bytes on the wire: geometric mean at most {limit:.2f} × {other}",
                "not measured" if mean is None else f"{mean:.3f} × over {len(by_pair)} pairs",
                mean is not None and mean <= limit,
            )
        )
    worst, where = 0.0, "not measured"
    for other in engines_of(rows):
        for pair, ratio in ratios(rows, other, "wire_bytes").items() if other not in (OURS, OUR_PATCH) else ():
            if ratio > worst:
                worst, where = ratio, f"at most {ratio:.3f} × ({other}, {pair})"
    found.append(Verdict("bytes on the wire: never more than any other on any pair", where, 0 < worst <= 1))
    return found


def _speed_verdicts(rows: Sequence[Row]) -> list[Verdict]:
    found = []
    for other in ON_THE_BOARD:
        by_pair = ratios(rows, other, "install_s")
        mean = geometric_mean(list(by_pair.values()))
        found.append(
            Verdict(
                f"install time: at least {SPEED_TARGET} × as fast as {other}",
                "not measured" if mean is None else f"{1 / mean:.2f} × over {len(by_pair)} pairs",
                mean is not None and 1 / mean >= SPEED_TARGET,
            )
        )
    return found


def _memory_verdict(rows: Sequence[Row]) -> Verdict:
    peaks = column(rows, OURS, "peak_rss_bytes")
    most = max(peaks.values(), default=None)
    return Verdict(
        f"peak memory of supervisor and worker together: at most {MEMORY_TARGET_BYTES // MIB} MiB",
        "not measured" if most is None else f"{most / MIB:.1f} MiB",
        most is not None and most <= MEMORY_TARGET_BYTES,
    )
