"""Setting the host up: packages are installed after they were named, or only named; played with stand-ins for apt."""

import os
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]

Host = dict[str, str]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """The environment of a host that has every package but `genimage`; apt-get and sudo write down what they are told."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {
        "dpkg-query": 'for last; do :; done; [ "$last" = genimage ] || echo "install ok installed"',
        "apt-get": f'echo "apt-get $*" >> {tmp_path}/calls',
        "sudo": f'echo "sudo $*" >> {tmp_path}/calls; "$@"',
        "id": "echo 1000",
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


def set_up(host: Host, *words: str, **more: str) -> tuple[int, str, list[str]]:
    """Run scripts/setup; return its status, what it said, and the calls of apt-get and sudo."""
    done = subprocess.run(
        [str(TOP / "scripts/setup"), *words],
        env={**host, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = Path(host["CALLS"])
    return done.returncode, done.stdout, calls.read_text().splitlines() if calls.exists() else []


def test_no_install_names_what_is_missing_and_stops(host: Host):
    status, said, calls = set_up(host, "--packages", NO_INSTALL="1")
    assert status == 1
    assert "not installed: genimage" in said
    assert calls == []


def test_packages_are_named_and_then_installed_with_sudo(host: Host):
    status, said, calls = set_up(host, "--packages", NO_INSTALL="")
    assert status == 0
    assert "not installed: genimage" in said
    installs = [line for line in calls if line.startswith("apt-get") and " install " in line]
    assert len(installs) == 1
    assert installs[0].split()[-1] == "genimage", "that package and no other"
    assert sum(line.startswith("sudo") for line in calls) == 2


def test_nothing_missing_asks_for_nothing(host: Host):
    Path(host["PATH"].split(":")[0], "dpkg-query").write_text('#!/bin/sh\necho "install ok installed"\n')
    assert set_up(host, "--packages") == (0, "", [])


def test_a_word_that_it_does_not_know(host: Host):
    status, said, calls = set_up(host, "--nonsense")
    assert status == 2
    assert "--packages" in said
    assert calls == []
