"""What the page has from elsewhere: pinned, fetched once, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.board_driver.errors import MachineError
from scripts.panel import packages
from scripts.panel.packages import FILES, HERE, fetched

Npm = Callable[[str], Path]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Npm:
    """Return what puts an npm that does this into the PATH; it notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(does: str) -> Path:
        program = folder / "npm"
        program.write_text(f'#!/bin/sh\nset -eu\necho "$@" >> {tmp_path}/calls\n{does}\n')
        program.chmod(0o755)
        return tmp_path / "calls"

    return put


INSTALLS = "cmp -s package-lock.json {here}/package-lock.json\n" + "\n".join(
    f"mkdir -p node_modules/{Path(path).parent}; echo {name} > node_modules/{path}" for name, path in FILES.items()
)


def test_it_is_fetched_once_and_nothing_of_it_is_run(npm: Npm, tmp_path: Path) -> None:
    calls = npm(INSTALLS.format(here=HERE))
    for _ in range(2):
        folder = fetched(tmp_path / "cache")
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        assert (folder / "xterm.css").read_text() == "xterm.css\n"
    (call,) = calls.read_text().splitlines()
    assert call.startswith("ci --ignore-scripts ")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("echo 'EINTEGRITY sha512-x' >&2; exit 1", "needs the network once: EINTEGRITY sha512-x"),
        ("d=node_modules/@xterm/xterm/lib; mkdir -p $d; echo > $d/xterm.js", "came without @xterm/xterm/css"),
        ("exec sleep 60", "did not fetch xterm.js within 1 s"),
    ],
)  # fmt: skip
def test_what_could_not_be_fetched_leaves_nothing(
    npm: Npm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    monkeypatch.setattr(packages, "FETCH_S", 1.0)
    npm(does)
    with pytest.raises(MachineError, match=said):
        fetched(tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache/panel").iterdir() if path.is_dir()]
    monkeypatch.setattr(packages, "FETCH_S", 60.0)
    npm(INSTALLS.format(here=HERE))
    assert fetched(tmp_path / "cache").is_dir()


def test_without_npm_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ZENTRI_CACHE", str(tmp_path / "cache"))
    assert packages.main() == 1
    assert "install your distribution's package `npm`" in capsys.readouterr().err


def test_the_pins_hold_every_byte_and_name_no_host() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    found = {path.removeprefix("node_modules/"): facts for path, facts in lock["packages"].items() if path}
    assert {name: facts["version"] for name, facts in found.items()} == wanted
    assert all(facts["integrity"].startswith("sha512-") for facts in found.values())
    assert not any(mark in (HERE / name).read_text() for name in packages.PINS for mark in ("://", "resolved"))
