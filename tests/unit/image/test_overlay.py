"""The scripts of the root file system, run by the shell of this machine with other paths."""

import subprocess
import time
from pathlib import Path

import pytest

OVERLAY = Path(__file__).resolve().parents[3] / "rootfs_overlay"


@pytest.fixture
def start(tmp_path):
    """Give a function that runs the supervisor's wrapper at a given uptime; returns what it did, in one word each."""
    did = tmp_path / "did"
    for name in ("python3", "reboot"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >> {did}\n")
        (tmp_path / name).chmod(0o755)
    script = (OVERLAY / "usr/sbin/zentrid").read_text()
    for old, new in (
        ("/run/zentrid", str(tmp_path)), ("/proc/uptime", str(tmp_path / "uptime")), ("/dev/console", "/dev/null"),
        ("/usr/bin/python3", str(tmp_path / "python3")), ("reboot -f", str(tmp_path / "reboot")),
    ):  # fmt: skip
        assert old in script
        script = script.replace(old, new)

    def run(uptime_s):
        did.unlink(missing_ok=True)
        (tmp_path / "uptime").write_text(f"{uptime_s}.25 100.00\n")
        done = subprocess.run(["/bin/sh", "-eu", "-c", script], capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stderr) == (0, "")
        return did.read_text().split()

    return run


def test_a_supervisor_that_does_not_stay_up_restarts_the_board(start):
    for number in range(10):
        assert start(20 + 8 * number) == ["python3"]
    assert start(100)[0] == "reboot"


def test_a_supervisor_that_ends_now_and_then_does_not(start):
    for number in range(30):
        assert start(20 + 300 * number) == ["python3"]


def test_what_it_prints_is_bounded(start, tmp_path):
    (tmp_path / "stderr.log").write_bytes(bytes(300_000))
    start(20)
    assert (tmp_path / "stderr.log").stat().st_size < 1000
    assert (tmp_path / "stderr.log.1").stat().st_size == 300_000


def test_early_user_space_survives_a_watchdog_that_cannot_be_opened(tmp_path):
    """A redirection that fails ends a POSIX shell when the command is `:`."""
    lines = (OVERLAY / "etc/init.d/rcS").read_text().splitlines()
    opening = [line for line in lines if "> /dev/watchdog" in line]
    assert len(opening) == 2, "at the start, and beside a slow check"
    script = "\n".join([*opening, "echo goes on"]).replace("/dev/watchdog", str(tmp_path / "none" / "watchdog"))
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=10)
    assert done.stdout == "goes on\n"


@pytest.mark.parametrize(("takes_s", "checks"), [("0.8", 1), ("60", 2)], ids=["slow", "endless"])
def test_the_check_of_data_is_fed_and_has_an_end(tmp_path, takes_s, checks):
    text = (OVERLAY / "etc/init.d/rcS").read_text()
    block = text[text.index("mounted=0\n") : text.index('if [ "$mounted" = 0 ]')]
    for old, new in (
        ("/run/zentri", str(tmp_path)), ("true > /dev/watchdog", f"echo fed >> {tmp_path}/fed"), ("sleep 5", "sleep 0.1"),
        ("timeout 140", "timeout 1"),
    ):  # fmt: skip
        assert old in block
        block = block.replace(old, new)
    stubs = f"partition() {{ echo /dev/data; }}\nmount() {{ echo mounted >> {tmp_path}/did; }}\n"
    (tmp_path / "e2fsck").write_text(f"#!/bin/sh\necho check >> {tmp_path}/did\nexec sleep {takes_s}\n")
    (tmp_path / "e2fsck").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-c", stubs + block], env=environment, timeout=20, check=True)
    assert (tmp_path / "did").read_text().split() == ["check"] * checks + ["mounted"]
    fed = (tmp_path / "fed").read_text().count("fed")
    assert fed >= 4
    time.sleep(0.5)
    assert (tmp_path / "fed").read_text().count("fed") <= fed + 1, "the feeder outlives the check"


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        ("ro zentri.slot=a zentri.reset=1 zentri.why=slot\n", True),
        ("ro zentri.reset=2\n", True),
        ("zentri.reset=0 zentri.why=slot\n", False),
        ("zentri.reset=10 xzentri.reset=1\n", False),
        ("\n", False),
    ],
)
def test_early_user_space_starts_python_only_for_a_factory_reset(tmp_path, arguments, starts):
    text = (OVERLAY / "etc/init.d/rcS").read_text()
    block = text[text.index("# --- factory reset") : text.index("# --- end of factory reset")]
    assert text.index(block) < text.index("mount -t ext4 -o nosuid,nodev,noatime"), "before data is mounted"
    (tmp_path / "cmdline").write_text(arguments)
    (tmp_path / "python3").write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    (tmp_path / "python3").chmod(0o755)
    script = block.replace("/proc/cmdline", str(tmp_path / "cmdline")).replace(
        "/usr/bin/python3", str(tmp_path / "python3")
    )
    done = subprocess.run(["/bin/sh", "-c", script + "\necho goes on"], capture_output=True, text=True, timeout=10)
    assert done.stdout.split("\n")[:-1] == (["-s -m zentrid.early"] if starts else []) + ["goes on"]


def test_nothing_that_is_started_again_has_the_console_but_the_supervisor():
    """Init resets the modes of a terminal at each start, also under whoever uses it at that moment."""
    entries = [line.split(":") for line in (OVERLAY / "etc/inittab").read_text().splitlines() if line[:1] != "#"]
    terminals = {program: tty for tty, _, action, program in entries if action == "respawn"}
    assert terminals.pop("/usr/sbin/zentrid") == ""
    assert set(terminals.values()) == {"null"}
