"""SSH access follows the settings."""

from collections.abc import Sequence

import pytest

from zentrid.adapters.ssh import END_SERVER, SshAccess
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import Values

KEY = "ssh-ed25519 " + "A" * 68


@pytest.fixture
def world(tmp_path):
    started: list[Sequence[str]] = []
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / "authorized_keys").write_text(f"{KEY} developer\n")
    return tmp_path / "ssh", identity, started


def keys(folder):
    return (folder / "zentri/authorized_keys").read_text().splitlines()


def test_a_development_build_lets_the_developers_key_in_and_a_production_build_does_not(world):
    folder, identity, started = world
    SshAccess(folder, identity, started.append).follow(Values(VARIABLES))
    assert keys(folder) == [f"{KEY} developer"]
    SshAccess(folder, None, started.append).follow(Values(VARIABLES))
    assert keys(folder) == []
    assert started == []


def test_keys_that_are_set_count_at_once(world):
    folder, _, started = world
    values = Values(VARIABLES)
    SshAccess(folder, None, started.append).follow(values)
    values.set("ssh.authorized_keys", f"{KEY} me;{KEY} you")
    assert keys(folder) == [f"{KEY} me", f"{KEY} you"]
    values.set("ssh.authorized_keys", "")
    assert keys(folder) == []


def test_switching_off_ends_the_server_and_keeps_it_from_serving(world):
    folder, _, started = world
    values = Values(VARIABLES)
    SshAccess(folder, None, started.append).follow(values)
    values.set("ssh.enabled", False)
    assert (folder / "off").exists()
    assert started == [END_SERVER]
    values.set("ssh.enabled", True)
    assert not (folder / "off").exists()


def test_a_folder_that_cannot_be_written_keeps_no_setting_from_being_changed(tmp_path, caplog):
    (tmp_path / "ssh").write_text("no folder")
    values = Values(VARIABLES)
    SshAccess(tmp_path / "ssh", None, lambda command: None).follow(values)
    values.set("ssh.enabled", False)
    assert "could not be changed" in caplog.text


def test_every_variable_that_can_be_set_is_read_by_something():
    """A setting that answers `Set OK` and does nothing would be a lie."""
    import re
    from pathlib import Path

    import zentrid

    top = Path(zentrid.__file__).parent
    sources = {p: p.read_text() for p in top.rglob("*.py") if p.name not in ("variable_list.py", "getters.py")}
    labels = {"system.name", "wlan.password"}  # for people; for a radio, which this board's Ethernet only stands for
    for variable in VARIABLES:
        if variable.writable and not variable.session and variable.name not in labels:
            stem, _, last = variable.name.rpartition(".")
            quoted = re.compile(re.escape(f'f"{stem}.{{' if last.isdigit() else f'"{variable.name}"'))
            assert any(quoted.search(text) for text in sources.values()), variable.name
