"""The benchmark's chart: bytes on the wire for each pair and engine, as SVG. Pure, written by hand: no library needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from scripts.bench.rows import Row, column, engines_of, pairs_of

COLOURS: Final = (
    "#0b5fa5", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6b6b6b", "#8c564b", "#b8a800", "#222222",
)  # fmt: skip
"""Distinguishable also with a colour-vision deficiency (after Okabe and Ito), this engine's first."""
BAR_PX: Final = 11
GROUP_GAP_PX: Final = 26
LEFT_PX: Final = 70
TOP_PX: Final = 70
HEIGHT_PX: Final = 320
BOTTOM_PX: Final = 90
MIN_WIDTH_PX: Final = 720


def chart(rows: Sequence[Row]) -> str:
    """Return the chart as an SVG document. The axis is logarithmic, in MB; a missing bar is a figure that was not measured."""
    engines, pairs = engines_of(rows), pairs_of(rows)
    values = [row.wire_bytes / 1e6 for row in rows if row.wire_bytes]
    low, high = _decades(values)
    group_px = BAR_PX * len(engines)
    width = max(MIN_WIDTH_PX, LEFT_PX + len(pairs) * (group_px + GROUP_GAP_PX) + 20)
    height = TOP_PX + HEIGHT_PX + BOTTOM_PX

    def y_of(megabytes: float) -> float:
        share = (math.log10(megabytes) - low) / (high - low)
        return TOP_PX + HEIGHT_PX * (1 - min(max(share, 0.0), 1.0))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        "<title>Bytes on the wire of one update, by pair of releases and engine</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="22" font-size="15" font-weight="bold">Bytes on the wire of one update (less is better)</text>',
        *_legend(engines, width),
        *_axis(low, high, width, y_of),
    ]
    for number, pair in enumerate(pairs):
        x = LEFT_PX + GROUP_GAP_PX / 2 + number * (group_px + GROUP_GAP_PX)
        for place, engine in enumerate(engines):
            value = column(rows, engine, "wire_bytes").get(pair)
            if value:
                top = y_of(value / 1e6)
                parts.append(
                    f'<rect x="{x + place * BAR_PX:.1f}" y="{top:.1f}" width="{BAR_PX - 1}" '
                    f'height="{TOP_PX + HEIGHT_PX - top:.1f}" fill="{_colour(place)}">'
                    f"<title>{escape(pair)}, {escape(engine)}: {value / 1e6:.3f} MB</title></rect>"
                )
        middle, bottom = x + group_px / 2, TOP_PX + HEIGHT_PX + 16
        parts.append(
            f'<text x="{middle:.1f}" y="{bottom}" text-anchor="end" transform="rotate(-25 {middle:.1f} {bottom})">'
            f"{escape(pair)}</text>"
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten below and above all values."""
    if not values:
        return 0, 1
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _legend(engines: Sequence[str], width: int) -> list[str]:
    parts, x, y = [], 12, 36
    for place, engine in enumerate(engines):
        needed = 26 + 7 * len(engine)
        if x + needed > width - 10:
            x, y = 12, y + 16
        parts.append(f'<rect x="{x}" y="{y}" width="11" height="11" fill="{_colour(place)}"/>')
        parts.append(f'<text x="{x + 15}" y="{y + 10}">{escape(engine)}</text>')
        x += needed
    return parts


def _axis(low: int, high: int, width: int, y_of: object) -> list[str]:
    assert callable(y_of)
    parts = []
    for power in range(low, high + 1):
        y = y_of(10.0**power)
        parts.append(f'<line x1="{LEFT_PX}" y1="{y:.1f}" x2="{width - 10}" y2="{y:.1f}" stroke="#c8c8c8"/>')
        parts.append(f'<text x="{LEFT_PX - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    middle = TOP_PX + HEIGHT_PX / 2
    parts.append(
        f'<text x="18" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 18 {middle:.0f})">MB (logarithmic)</text>'
    )
    return parts
