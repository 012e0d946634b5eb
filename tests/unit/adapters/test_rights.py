"""Processes that meet strangers: without the user they are to become they do nothing at all."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from zentrid.adapters.rights import KEEP_RIGHTS, user_to_become

WITHOUT_USERS = """
import pwd, runpy, sys
def nobody(name): raise KeyError(name)
pwd.getpwnam = nobody
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_a_missing_user_is_no_leave_to_stay_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEEP_RIGHTS)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert user_to_become("nobody") == pwd.getpwnam("nobody")
    with pytest.raises(OSError, match="no user zentri-gone"):
        user_to_become("zentri-gone")
    monkeypatch.setenv(KEEP_RIGHTS, "1")
    assert user_to_become("nobody") == pwd.getpwnam("nobody"), "it is given up wherever it can be"
    assert user_to_become("zentri-gone") is None


def test_who_is_not_root_stays_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEEP_RIGHTS)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert user_to_become("nobody") is None
    assert user_to_become("zentri-gone") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("argv", "config"),
    [
        (("zentrid.http",), "{}"),
        (("zentrid.dbus", str(os.getpid())), ""),
        (("zentrid.dbus.launch", str(os.getpid()), "/dev/null"), ""),
        (("zentrid.netprobe", "resolve", "localhost"), ""),
        (("zentrid.webworker",), '{"method": "GET", "url": "http://127.0.0.1:1/"}'),
        (("zentrid.update.door",), '{"token": "t", "listen_fd": -1, "spool_fd": -1}'),
    ],
)
def test_no_process_works_as_root_instead(argv: tuple[str, ...], config: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != KEEP_RIGHTS}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_USERS, *argv], input=config.encode() + b"\n", capture_output=True, timeout=30,
        check=False, env=environment,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"there is no user" in done.stdout + done.stderr
