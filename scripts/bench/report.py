"""The benchmark's table and list of targets, as text and as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scripts.bench.rows import MIB, OURS, Row, Verdict, column, engines_of, geometric_mean, pairs_of, ratios, verdicts

NONE: Final = "–"


def _number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def wire_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return bytes on the wire in MB by pair and engine; below them the geometric mean of this engine's share of each."""
    engines = engines_of(rows)
    table = [["MB on the wire", *engines]]
    for pair in pairs_of(rows):
        cells = (column(rows, engine, "wire_bytes").get(pair) for engine in engines)
        table.append([pair, *(_number(None if cell is None else cell / 1e6, 3) for cell in cells)])
    means = (geometric_mean(list(ratios(rows, engine, "wire_bytes").values())) for engine in engines)
    table.append([f"{OURS} is … of it", *(_number(mean, 3) for mean in means)])
    return table


def board_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return install time and peak memory of the engines that were measured on the board."""
    engines = [engine for engine in engines_of(rows) if column(rows, engine, "install_s")]
    table = [["on the board", *engines]]
    for pair in pairs_of(rows):
        cells = []
        for engine in engines:
            seconds = column(rows, engine, "install_s").get(pair)
            peak = column(rows, engine, "peak_rss_bytes").get(pair)
            fill = column(rows, engine, "fill_s").get(pair)
            text = f"{_number(seconds, 1)} s" + (f" (blocks {fill:.1f})" if fill is not None else "")
            cells.append(f"{text}, {_number(None if peak is None else peak / MIB, 0)} MiB" if seconds else NONE)
        table.append([pair, *cells])
    means = (geometric_mean(list(ratios(rows, engine, "install_s").values())) for engine in engines)
    table.append([f"{OURS} is … × as fast", *(_number(1 / mean if mean else None, 2) for mean in means)])
    return table


def text_of(table: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_of(table: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    head, *rest = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|---" * len(table[0]) + "|", *rest])


def targets_text(found: Sequence[Verdict]) -> str:
    """Return the targets, one a line, each with `pass` or `FAIL`."""
    return "\n".join(
        f"{'pass' if verdict.passed else 'FAIL'}  {verdict.target}: {verdict.measured}" for verdict in found
    )


def whole_report(rows: Sequence[Row]) -> str:
    """Return everything that `make bench-update` prints at its end."""
    return "\n\n".join([text_of(wire_table(rows)), text_of(board_table(rows)), targets_text(verdicts(rows))]) + "\n"


def whole_markdown(rows: Sequence[Row]) -> str:
    """Return the same for a page."""
    targets = [["target", "measured", ""]]
    targets += [[v.target, v.measured, "met" if v.passed else "**missed**"] for v in verdicts(rows)]
    return "\n\n".join(markdown_of(table) for table in (wire_table(rows), board_table(rows), targets)) + "\n"
