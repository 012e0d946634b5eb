"""What the benchmark makes of its rows: table, ratios, geometric means, targets, JSON, chart. No board, recorded rows."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.bench.__main__ import main
from scripts.bench.chart import chart
from scripts.bench.report import markdown_of, text_of, whole_report, wire_table
from scripts.bench.rows import (
    MIB,
    Row,
    Verdict,
    engines_of,
    geometric_mean,
    pairs_of,
    ratios,
    rows_from_json,
    rows_to_json,
    verdicts,
)

RECORDED = Path(__file__).with_name("rows.json")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def rows() -> list[Row]:
    return rows_from_json(RECORDED.read_text())


def verdict(rows: list[Row], words: str) -> Verdict:
    (found,) = [verdict for verdict in verdicts(rows) if words in verdict.target]
    return found


def test_geometric_mean():
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([0.1, 0.1, 0.8]) == pytest.approx(0.2)
    assert geometric_mean([]) is None


def test_ratios_are_taken_only_where_both_have_a_figure(rows):
    assert ratios(rows, "xdelta3", "wire_bytes") == {"one-file": 0.2, "kernel": 0.76}
    assert ratios(rows, "bsdiff", "wire_bytes") == {"kernel": 1.1875}
    assert ratios(rows, "xdelta3", "install_s") == {}
    assert ratios(rows, "rauc-adaptive", "install_s") == {"one-file": 0.5, "kernel": pytest.approx(8 / 9)}


def test_nothing_on_the_wire_is_no_division_by_zero(rows):
    free = [replace(row, wire_bytes=0) if row.engine in ("zentri-patch", "xdelta3") else row for row in rows]
    assert ratios(free, "xdelta3", "wire_bytes") == {"one-file": 1.0, "kernel": 1.0}


def test_targets_are_judged_by_their_figures(rows):
    found = verdict(rows, "0.70 × xdelta3")
    assert found.passed
    assert f"{math.sqrt(0.2 * 0.76):.3f}" in found.measured
    assert not verdict(rows, "0.80 × bsdiff").passed
    assert verdict(rows, "0.20 × rauc-adaptive").passed
    assert verdict(rows, "together").measured == "60.0 MiB"
    slower = verdict(rows, "as fast as rauc-adaptive")
    assert slower.passed
    assert "1.50" in slower.measured


def test_one_pair_that_is_worse_than_one_other_misses_the_target(rows):
    found = verdict(rows, "never more than any other")
    assert not found.passed
    assert found.measured == "at most 1.188 × (bsdiff, kernel)"
    assert verdict([row for row in rows if row.engine != "bsdiff"], "never more than any other").passed


def test_memory_over_the_target_misses_it(rows):
    rows[0] = replace(rows[0], peak_rss_bytes=64 * MIB + 1)
    assert not verdict(rows, "together").passed


def test_what_was_not_measured_is_not_passed(rows):
    assert not any(found.passed for found in verdicts([]))
    found = verdict(rows, "as fast as swupdate-delta")
    assert found == Verdict(found.target, "not measured", passed=False)


def test_table_has_each_pair_and_engine_and_the_means(rows):
    table = wire_table(rows)
    assert table[0] == ["MB on the wire", "zentri", "zentri-patch", "rauc-adaptive", "xdelta3", "bsdiff"]
    assert table[1] == ["one-file", "0.060", "0.020", "1.500", "0.100", "–"]
    assert table[2][1:] == ["0.800", "0.760", "5.000", "1.000", "0.640"]
    assert table[3][1:] == ["1.000", "1.000", "0.080", "0.390", "1.188"]
    lines = text_of(table).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("one-file ")
    assert markdown_of(table).splitlines()[1] == "|---|---|---|---|---|---|"


def test_report_has_times_memory_and_every_target(rows):
    report = whole_report(rows)
    assert "8.0 s (blocks 3.5), 56 MiB" in report
    assert "FAIL  bytes on the wire: geometric mean at most 0.80 × bsdiff" in report
    assert report.count("pass  ") + report.count("FAIL  ") == len(verdicts(rows))


def test_json_form(rows):
    listed = json.loads(rows_to_json(rows))
    assert listed[3] == {
        "pair": "one-file", "engine": "xdelta3", "wire_bytes": 100000, "install_s": None, "peak_rss_bytes": None,
    }  # fmt: skip
    assert listed[0]["fill_s"] == 3.5
    assert rows_from_json(rows_to_json(rows)) == rows


def test_like_is_compared_with_like(rows):
    assert ratios(rows, "rauc-adaptive", "wire_bytes")["kernel"] == 0.16, "whole transfers"
    assert ratios(rows, "xdelta3", "wire_bytes")["kernel"] == 0.76, "patch files"


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"pair": "x"}]', '[{"pair": "x", "what": 1}]', "no json"])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match=r"again|lacks|Expecting"):
        rows_from_json(text)


def test_chart_has_a_bar_for_each_figure_and_names_every_engine_and_pair(rows):
    drawn = ElementTree.fromstring(chart(rows))
    words = [element.text for element in drawn.iter(f"{SVG}text")]
    for name in [*engines_of(rows), *pairs_of(rows), "MB (logarithmic)"]:
        assert words.count(name) == 1, name
    bars = {element.find(f"{SVG}title").text for element in drawn.iter(f"{SVG}rect") if len(element)}  # type: ignore[union-attr]
    assert len(bars) == len(rows)
    assert "kernel, bsdiff: 0.640 MB" in bars


def test_a_larger_figure_has_a_higher_bar(rows):
    drawn = ElementTree.fromstring(chart(rows))
    heights = {
        element[0].text: float(element.get("height", "0")) for element in drawn.iter(f"{SVG}rect") if len(element)
    }
    assert 0 < heights["one-file, zentri: 0.060 MB"] < heights["one-file, xdelta3: 0.100 MB"]


def test_chart_of_nothing_and_of_names_with_signs():
    ElementTree.fromstring(chart([]))
    ElementTree.fromstring(chart([Row("a<b>&", "zentri", 1, None, None)]))


def test_tables_and_chart_can_be_made_anew_from_the_json(tmp_path, capsys):
    (tmp_path / "update.json").write_text(RECORDED.read_text())
    assert main(["--report", "--out", str(tmp_path)]) == 0
    assert "MB on the wire" in capsys.readouterr().out
    assert "| kernel | 0.800 |" in (tmp_path / "update.md").read_text()
    assert (tmp_path / "update.svg").read_text().startswith("<svg")


def test_an_unknown_engine_is_named(tmp_path, capsys):
    assert main(["--engines", "rauk", "--out", str(tmp_path)]) == 1
    assert "rauk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
