"""Programs that crash on the real board: what the kernel's core leaves, and what the image's symbol files make of it."""

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from scripts.board_driver.chosen import BOARD
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.places import TOP
from scripts.lab.world import World
from tests.board.conftest import make_factory

pytestmark = [
    pytest.mark.board,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        BOARD.bits != 64, reason="only crashes of 64-bit programs are read; here a crash has its signal alone"
    ),
]

APPS = "/usr/share/zentri/apps"
NOBODY = 65534

# Starts a program as a user, waits for it as a supervisor would, and takes what the crash has left.
RUN = """
import json, os, sys, time
from zentrid.adapters.crashes import take_crash
uid, words = int(sys.argv[1]), sys.argv[2:]
start = time.monotonic()
pid = os.fork()
if not pid:
    os.dup2(1, 2)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.execv(words[0], words)
status = os.waitpid(pid, 0)[1]
seconds = time.monotonic() - start
file = f"/run/zentrid/crash/{pid}.json"
text = open(file).read() if os.path.exists(file) else None
taken = take_crash(pid)
print(json.dumps({
    "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
    "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
    "seconds": seconds, "file": text, "left": os.path.exists(file),
    "frames": None if taken is None else [[f.module, f.build_id, f.address] for f in taken[1]],
}))
"""


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what is known of it."""

    facts: dict[str, Any]
    output: str
    lines: list[str]
    """The backtrace, by the symbol files beside the image."""

    @property
    def functions(self) -> list[str]:
        """The functions' names, innermost first; an address where there is none."""
        return [line.split()[1].partition("+")[0] for line in self.lines]


@pytest.fixture(scope="module")
def one(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, world: World
) -> Iterator[WatchedBoard]:
    """A board with a root shell."""
    folder = tmp_path_factory.mktemp("crash")
    identity = world.identity(1, folder / "identity")
    for make in make_factory(folder, request.node):
        board = make(identity=identity, key=world.ssh_key(), image=world.places.image)
        board.up()
        board.wait_for_healthy()
        yield board


@pytest.fixture
def run(one: WatchedBoard, world: World):
    """Give a function that runs a program on the board as a user."""

    def run(*words: str, uid: int = NOBODY) -> Outcome:
        line = shlex.join(["python3", "-c", RUN, str(uid), *words])
        said = one.succeed(line, 120).splitlines()
        facts = json.loads(said[-1])
        print(f"{words}: {facts['seconds']:.2f} s")
        lines = [] if facts["file"] is None else backtrace(world, facts["file"])
        return Outcome(facts, "\n".join(said[:-1]), lines)

    return run


def backtrace(world: World, crash: str) -> list[str]:
    """Return what `scripts/symbols backtrace` makes of a crash file."""
    command = [str(TOP / "scripts/symbols"), "backtrace", "-", "--symbols", str(world.places.image / "symbols")]
    said = subprocess.run(command, input=crash, capture_output=True, text=True, timeout=60, check=True).stdout
    print(said)
    return str(said).splitlines()


def test_a_write_to_nowhere_is_known_to_function_and_line(run):
    done = run(f"{APPS}/sample-arm/bin/sample-arm", "--after", "0", "--crash", "segv")
    assert done.facts["signal"] == signal.SIGSEGV
    crash = json.loads(done.facts["file"])
    assert crash["signal"] == signal.SIGSEGV
    assert crash["executable"] == f"{APPS}/sample-arm/bin/sample-arm"
    assert "problem" not in crash
    assert [[f["module"], f["build_id"], f["address"]] for f in crash["frames"]] == done.facts["frames"]
    assert not done.facts["left"], "taking a crash removes its file"
    assert done.functions[:6] == ["store_reading", "crash_now", "read_sensor", "do_crash", "run", "main"]
    source = (TOP / "scripts/samples/sample-arm/sample-arm.c").read_text().splitlines()
    number = source.index("    *target = value;") + 1
    assert f"(sample-arm.c:{number})" in done.lines[0]
    assert f"build-id {crash['frames'][0]['build_id'][:8]}" in done.lines[0]
    assert done.facts["seconds"] < 20


def test_an_abort_in_a_nested_function_goes_through_the_c_library(run):
    done = run(f"{APPS}/sample-arm/bin/sample-arm", "--after", "0", "--crash", "raise")
    assert done.facts["signal"] == signal.SIGABRT
    assert "which cannot be" in done.output
    own = [name for name in done.functions if name in ("crash_now", "check_reading", "read_sensor", "do_crash", "run")]
    assert own == ["crash_now", "check_reading", "read_sensor", "do_crash", "run"]
    assert "abort" in done.functions, "exported functions of Debian's files have names"


def test_programs_of_root_are_treated_the_same(run):
    done = run(f"{APPS}/sample-arm/bin/sample-arm", "--after", "0", "--crash", "abort", uid=0)
    assert done.facts["signal"] == signal.SIGABRT
    assert "crash_now" in done.functions


def test_the_interpreter_itself_can_crash(run):
    done = run(f"{APPS}/sample-python/bin/sample-python", "--after", "0", "--crash", "segv")
    assert done.facts["signal"] == signal.SIGSEGV
    assert "memset" in done.functions[0] or "libc.so.6" in done.lines[0]
    assert any("python3.13" in line for line in done.lines)
    assert len(done.lines) > 8


def test_an_exit_and_an_exception_leave_no_core(run):
    done = run(f"{APPS}/sample-arm/bin/sample-arm", "--after", "0", "--crash", "exit")
    assert (done.facts["exit"], done.facts["file"]) == (3, None)
    done = run(f"{APPS}/sample-python/bin/sample-python", "--after", "0", "--crash", "raise")
    assert (done.facts["exit"], done.facts["file"]) == (1, None)
    assert "SensorError: the reading is -1.0" in done.output


# Takes 150 MiB and more mappings than files are kept of, then makes itself hang up on a jump to nowhere.
LARGE = """
import ctypes, mmap
taken = b"x" * (150 << 20)
maps = [mmap.mmap(-1, 4096) for _ in range(2000)]
for m in maps[::2]: m[0] = 1
ctypes.CFUNCTYPE(None)(16)()
"""


def test_a_large_program_does_not_take_longer(run):
    done = run("/usr/bin/python3", "-c", LARGE)
    assert done.facts["signal"] == signal.SIGSEGV
    assert done.lines[0].startswith("#0 0x10 in [no file]")
    assert any("libffi" in line for line in done.lines[:3])
    assert done.facts["seconds"] < 20


def test_nothing_of_a_core_reaches_a_disk_and_the_reader_is_not_root(one: WatchedBoard):
    assert one.succeed("cat /proc/sys/kernel/core_pattern").startswith("|/usr/bin/python3 -I -m zentrid.crash ")
    assert one.succeed("stat -c '%a %u' /run/zentrid/crash").strip() == "700 0"
    # A pipe that does not end: the reader waits, and can be looked at once it has started.
    script = (
        "sh -c 'echo $$ > /tmp/sleeper; exec sleep 50' | python3 -I -m zentrid.crash 4242 11 '!bin!x' & "
        "for n in $(seq 1 90); do for p in /proc/[0-9]*; do grep -qa zentrid.crash $p/cmdline && "
        f"grep -q '^Uid:.{NOBODY}' $p/status && grep -E '^(Uid|CapEff|Groups)' $p/status && found=1; done; "
        '[ -n "$found" ] && break; sleep 0.5; done; kill $(cat /tmp/sleeper); wait'
    )
    said = one.succeed(script, 90)
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in said
    assert "CapEff:\t0000000000000000" in said
    left = json.loads(one.succeed("cat /run/zentrid/crash/4242.json; rm /run/zentrid/crash/4242.json"))
    assert (left["signal"], left["executable"], left["frames"]) == (11, "/bin/x", [])


def test_a_burst_of_crashes_leaves_only_so_many_results(one: WatchedBoard):
    program = f"{APPS}/sample-arm/bin/sample-arm"
    one.succeed(f"for n in $(seq 1 18); do {program} --after 0 --crash segv > /dev/null 2>&1; done; true", 240)
    names = one.succeed("ls /run/zentrid/crash").split()
    assert len(names) == 16
    assert all(name.endswith(".json") for name in names)
