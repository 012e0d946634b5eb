"""`docs/threats.md` names the test of every threat; each of them must exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "U": "tests/unit/update",
    "H": "tests/unit/http",
    "C": "tests/unit/core",
    "S": "tests/server",
    "B": "tests/board",
}
NAMED = re.compile(r"`([USBHC])/([\w/]+\.py)::(test_\w+)`")
ROWS = (
    "arbitrary software", "unverified boot", "boot script replaced", "rollback of a bundle", "return to a vulnerable slot",
    "freeze", "replay", "fast-forward", "mix and match", "endless data, bomb", "slow retrieval", "wrong product or board",
    "stolen online keys", "release or root key lost", "no or wrong certificate", "check and use differ", "parser bugs", "clock",
    "factory reset, then downgrade", "attacker on the network",
    "something on the device itself: the application, a redirect, a worker in wrong hands",
    "page of another site in the owner's browser",
)  # fmt: skip


def rows() -> dict[str, list[tuple[str, str, str]]]:
    """The table: threat → the tests that its row names."""
    text = (ROOT / "docs" / "threats.md").read_text()
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[1].strip(): NAMED.findall(cells[3]) for cells in lines if cells[1].strip() != "threat"}


def test_every_row_names_tests_and_every_test_exists() -> None:
    found = rows()
    assert tuple(found) == ROWS
    for threat, tests in found.items():
        assert tests, threat
        for folder, file, name in tests:
            path = ROOT / FOLDERS[folder] / file
            assert re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE), f"{threat}: {path}::{name}"


def test_every_test_that_plays_an_attack_has_its_row() -> None:
    named = {name for tests in rows().values() for _, _, name in tests}
    folder = ROOT / FOLDERS["U"]
    played = [
        name
        for path in folder.glob("test_threats*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    ]
    others = {name for name in played if name not in named}
    assert len(named) > 40
    assert others <= {
        "test_floor_of_manufacture",
        "test_the_result_is_known_by_its_name",
        "test_a_planted_time_on_the_data_partition_is_corrected_by_the_next_signature",
        "test_another_role_in_a_files_place_is_refused",
    }
