"""The program that the kernel starts at a crash: it always answers, soon, with little, and without rights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path, PosixPath

import pytest

from tests.support.cores import EXECUTE, READ, CoreParts, Piece, write_core
from zentrid import crash
from zentrid.adapters.crashes import take_crash
from zentrid.debug.corefile import Mapping, Registers
from zentrid.ports import Frame

TOP = Path(__file__).resolve().parents[2]
CODE, STACK = 0x400000, 0x7FFF0000


def small_core(path: str = "/gone/program") -> bytes:
    registers = Registers(CODE + 0x40, 0, STACK, STACK)
    pieces = [Piece(CODE, flags=READ | EXECUTE, size=4096), Piece(STACK, bytes(4096))]
    return write_core(CoreParts(registers, pieces, [Mapping(CODE, CODE + 4096, 0, path)]))


@pytest.fixture
def start(tmp_path):
    """Give a function that starts the program as the kernel does: the core on standard input and nothing else open."""
    running = []

    def start(pid=77, number=11, executable="!usr!bin!x", folder=None, settings=""):
        code = (
            f"import sys; sys.path.insert(0, {str(TOP)!r})\nfrom pathlib import Path\nfrom zentrid import crash\n{settings}\n"
            f"sys.exit(crash.main(sys.argv[1:], Path({str(folder or tmp_path / 'crash')!r})))"
        )
        program = subprocess.Popen(
            [sys.executable, "-I", "-c", code, str(pid), str(number), executable],
            stdin=subprocess.PIPE,
            preexec_fn=lambda: (os.close(1), os.close(2)),  # type: ignore[func-returns-value]
        )
        running.append(program)
        return program

    yield start
    for program in running:
        program.kill()
        program.wait()
        assert program.stdin is not None
        if not program.stdin.closed:
            program.stdin.close()


def feed(program: subprocess.Popen[bytes], data: bytes) -> int:
    """Write a core as the kernel does: until it is read or nobody reads any more."""
    assert program.stdin is not None
    try:
        program.stdin.write(data)
        program.stdin.close()
    except BrokenPipeError:
        pass
    return program.wait(30)


def written(tmp_path: Path, pid: int = 77) -> dict[str, object]:
    found: dict[str, object] = json.loads((tmp_path / f"crash/{pid}.json").read_text())
    return found


def test_signal_executable_and_frames(start, tmp_path):
    assert feed(start(), small_core()) == 0
    assert written(tmp_path) == {
        "signal": 11,
        "executable": "/usr/bin/x",
        "frames": [{"module": "/gone/program", "build_id": "", "address": 0x40}],
    }
    assert take_crash(77, tmp_path / "crash") == (11, (Frame("/gone/program", "", 0x40),))
    assert take_crash(77, tmp_path / "crash") is None


@pytest.mark.parametrize("core", [b"", b"\x7fELF", bytes(100_000), os.urandom(100_000), small_core()[:500]])
def test_a_core_that_cannot_be_read_is_told(core, start, tmp_path):
    assert feed(start(), core) == 0
    assert written(tmp_path)["frames"] == []
    assert written(tmp_path)["problem"]
    assert take_crash(77, tmp_path / "crash") == (11, ())


def test_a_core_that_stops_coming_is_waited_for_so_long_only(start, tmp_path):
    began = time.monotonic()
    program = start(settings="crash.READ_LIMIT_S = 1")
    program.stdin.write(small_core()[:-4096])
    program.stdin.flush()
    # The writer neither writes nor closes: the limit is what ends it.
    program.wait(20)
    assert time.monotonic() - began < 15
    assert written(tmp_path)["frames"]
    assert written(tmp_path)["problem"] == "the core was cut off"


def test_one_that_hangs_is_ended_by_the_kernel_and_the_first_note_stays(start, tmp_path):
    program = start(settings="crash.HARD_LIMIT_S = 1; crash.frames_of = lambda fd: signal.pause()\nimport signal")
    assert program.wait(20) == -signal.SIGALRM
    assert take_crash(77, tmp_path / "crash") == (11, ())


def test_memory_is_limited(start, tmp_path):
    program = start(settings="crash.read_core = lambda stream: bytes(1 << 30)")
    assert feed(program, small_core()) == 0
    assert "MemoryError" in str(written(tmp_path)["problem"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give rights away")
def test_the_core_is_read_without_rights(start, tmp_path):
    program = start()
    deadline = time.monotonic() + 20
    while True:
        status = Path(f"/proc/{program.pid}/status").read_text()
        if "Uid:\t65534\t65534\t65534\t65534" in status and (tmp_path / "crash/77.json").exists():
            break
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    assert "CapEff:\t0000000000000000" in status
    assert "Groups:\t \n" in status
    limits = Path(f"/proc/{program.pid}/limits").read_text()
    assert str(crash.MAX_ADDRESS_SPACE_BYTES) in limits
    # Standard output and error lead nowhere: no message can get into the result.
    assert {str(Path(f"/proc/{program.pid}/fd/{n}").readlink()) for n in (1, 2)} == {"/dev/null"}
    assert feed(program, small_core()) == 0


def test_only_so_many_results_are_kept(tmp_path):
    for pid in range(100, 130):
        os.close(crash.open_result(tmp_path / "crash", pid))
        os.utime(tmp_path / f"crash/{pid}.json", (pid, pid))
    names = sorted(path.stem for path in (tmp_path / "crash").iterdir())
    assert names == [str(pid) for pid in range(114, 130)]


def test_a_result_that_another_reader_has_just_removed_is_no_error(tmp_path):
    class Folder(PosixPath):
        def glob(self, pattern):
            return [*super().glob(pattern), self / "gone.json"]

    os.close(crash.open_result(Folder(tmp_path), 7))
    assert (tmp_path / "7.json").exists()


def test_it_gives_way_to_everything_else(start, tmp_path):
    program = start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "crash/77.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert os.getpriority(os.PRIO_PROCESS, program.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert Path(f"/proc/{program.pid}/oom_score_adj").read_text() == "500\n"
    assert feed(program, small_core()) == 0


def test_few_are_looked_at_at_once():
    lines = (TOP / "rootfs_overlay/etc/init.d/rcS").read_text().splitlines()
    assert "echo 2 > /proc/sys/kernel/core_pipe_limit" in lines


def test_a_result_of_an_older_process_of_that_number_gives_way(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "5.json").symlink_to(tmp_path / "target")
    os.close(crash.open_result(tmp_path, 5))
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "5.json").is_symlink()


def test_a_result_never_gets_longer_than_its_limit():
    frames = [Frame("\U0001f600" * 200, "ab" * 32, (1 << 64) - 1 - n) for n in range(32)]
    data = crash.result(11, "\U0001f600" * 200, frames, "x" * 1000)
    assert len(data) <= crash.MAX_RESULT_BYTES
    kept = json.loads(data)["frames"]
    assert 10 < len(kept) < 32
    assert kept[0]["address"] == (1 << 64) - 1, "the innermost frames are those that stay"
    plain = [Frame("/usr/lib/aarch64-linux-gnu/libc.so.6", "ab" * 20, n) for n in range(32)]
    assert len(json.loads(crash.result(6, "/usr/bin/x", plain))["frames"]) == 32


def test_the_kernel_can_start_it():
    """`core_pattern` has 127 characters, no shell and no PATH; the helper must be absolute."""
    lines = (TOP / "rootfs_overlay/etc/init.d/rcS").read_text().splitlines()
    [line] = [line for line in lines if "core_pattern" in line]
    pattern = line.split("'")[1]
    assert len(pattern) < 128
    assert pattern == "|/usr/bin/python3 -I -m zentrid.crash %P %s %E"
