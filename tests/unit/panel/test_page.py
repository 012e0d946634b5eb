"""The page as it lies there: nothing from elsewhere, nothing inline, names that script and page share."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.panel.app import FILES
from scripts.panel.packages import FILES as FETCHED

STATIC = Path(__file__).resolve().parents[3] / "scripts/panel/static"
SCRIPT = (STATIC / "panel.js").read_text()
PAGE = (STATIC / "index.html").read_text()


def test_the_page_has_nothing_from_elsewhere_and_runs_nothing_inline() -> None:
    assert "://" not in PAGE
    assert "style=" not in PAGE
    assert "<script>" not in PAGE
    assert "innerHTML" not in SCRIPT, "what comes from the board is text"
    assert set(re.findall(r'(?:src|href)="([^"]+)"', PAGE)) == {*FILES, *FETCHED} - {""}


def test_the_script_uses_what_the_page_has() -> None:
    used = set(re.findall(r'\$\("([a-z-]+)"\)', SCRIPT))
    assert used <= set(re.findall(r' id="([a-z-]+)"', PAGE))
