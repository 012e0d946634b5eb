"""The life of a board's process: start, power, reset, death with its parent, a state that survives the driver."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.board_driver.board import Board, BoardOptions
from scripts.board_driver.deadline import Deadline
from scripts.board_driver.errors import MachineError
from scripts.board_driver.process import ProcessId
from scripts.board_driver.qmp import Qmp
from scripts.board_driver.state import StateDamagedError
from scripts.board_driver.watched import WatchedBoard

ROOT = Path(__file__).resolve().parents[3]


def wait_until_gone(process: ProcessId) -> None:
    limit = Deadline(10, "QEMU to end")
    while process.alive:
        limit.check()
        time.sleep(0.05)


def write_as_the_board(board: Board, byte: bytes) -> None:
    disk = "/machine/peripheral-anon/device[0]/virtio-backend"
    with Qmp(board.run.qmp) as qmp:
        for step in (f"write -P 0x{byte.hex()} 0 512", "flush"):
            said = qmp.command("human-monitor-command", **{"command-line": f'qemu-io -d {disk} "{step}"'})
            assert "error" not in said


def test_up_down_up_keeps_the_disk_and_leaves_no_process(stand_in: WatchedBoard):
    state = stand_in.up()
    assert state.process is not None
    stand_in.wait_for_console("warm=0 button=0", 20)
    assert stand_in.up() == state  # already up: the same QEMU
    assert stand_in.down()
    assert not state.process
    assert not stand_in.down()
    stand_in.disk_write("data", 5, b"kept")
    stand_in.up()
    stand_in.wait_for_console("warm=0 button=0", 20)
    stand_in.power_cut()
    assert stand_in.disk_read("data", 5, 4) == b"kept"
    stand_in.up(fresh=True)
    stand_in.power_cut()
    assert stand_in.disk_read("data", 5, 4) == bytes(4)


def test_power_cut_and_reset_are_cold_and_warm(stand_in: WatchedBoard):
    before = stand_in.up()
    stand_in.wait_for_console("warm=0", 20)
    stand_in.reset()
    stand_in.wait_for_console("warm=1", 20)
    after = stand_in.power_cycle(off_s=0.1)
    stand_in.wait_for_console("warm=0", 20)
    assert after.pid != before.pid
    assert (after.ssh_port, after.http_port) == (before.ssh_port, before.http_port)
    assert after.log_offset > 0


def test_verbs_that_need_power_say_so(stand_in: WatchedBoard):
    plain = Board(stand_in.name)
    with pytest.raises(MachineError, match="is down"):
        plain.send("version")
    stand_in.up()
    stand_in.power_cut()
    with pytest.raises(MachineError, match="has no power"):
        plain.send("version")
    with pytest.raises(MachineError, match="has no power"):
        plain.led()
    with pytest.raises(MachineError, match="has no power"):
        plain.power_cut()
    with pytest.raises(MachineError, match="is up"):
        plain.remove_run_folder()
    stand_in.power_on()
    with pytest.raises(MachineError, match="on already"):
        plain.power_on()
    with pytest.raises(MachineError, match="while the power is off"):
        plain.disk_read("data", 0, 1)


def test_the_disk_tools_refuse_while_qemu_has_the_disk(stand_in: WatchedBoard):
    stand_in.up()
    with pytest.raises(MachineError, match="power the board off first"):
        stand_in.disk.overlay.write(0, b"x")


def test_qemu_that_cannot_start_tells_why(stand_in_image: Path, tmp_path: Path, name: str):
    with WatchedBoard(name, BoardOptions(image=stand_in_image, extra=("-device", "no-such-device")), tmp_path) as board:
        with pytest.raises(MachineError, match="no-such-device"):
            board.up()
        assert not board.powered
    board.remove_run_folder()


def test_a_port_that_is_taken_is_refused_before_anything_starts(
    stand_in: WatchedBoard, stand_in_image: Path, tmp_path: Path
):
    port = stand_in.up().ssh_port
    other = Board(stand_in.name + "x", BoardOptions(image=stand_in_image, ssh_port=port), tmp_path / "other")
    with pytest.raises(MachineError, match=f"port {port} .* is not free"):
        other.up()
    assert other.state() is None
    other.remove_run_folder()


def test_a_bound_board_dies_with_its_process_even_by_sigkill(stand_in_image: Path, tmp_path: Path, name: str):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom scripts.board_driver.board import Board, BoardOptions\n"
        f"b = Board({name!r}, BoardOptions(image=Path({str(stand_in_image)!r})), Path({str(tmp_path / 's')!r}))\n"
        "b.up(); print('up', flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        state = Board(name).state()
        assert state is not None
        qemu = state.process
        assert qemu is not None
        parent.send_signal(signal.SIGKILL)
        wait_until_gone(qemu)
    finally:
        parent.kill()
        parent.communicate()
        Board(name).down()
        Board(name).remove_run_folder()


def test_a_bound_board_outlives_the_thread_that_started_it(stand_in: WatchedBoard):
    thread = threading.Thread(target=stand_in.up)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert stand_in.powered
    stand_in.wait_for_console("warm=0", 20)


def test_a_detached_board_outlives_its_process_and_another_goes_on_with_it(
    stand_in_image: Path, tmp_path: Path, name: str
):
    script = (
        "from pathlib import Path\nfrom scripts.board_driver.board import Board, BoardOptions\n"
        f"Board({name!r}, BoardOptions(image=Path({str(stand_in_image)!r}), bound=False), Path({str(tmp_path / 's')!r})).up()\n"
    )
    board = Board(name, BoardOptions(bound=False))
    try:
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
        board = Board(name, BoardOptions(bound=False))
        assert board.powered
        assert board.disk.folder == tmp_path / "s"
        assert board.wait_for_healthy(30).body.startswith("TEST-BARE_FIRMWARE")
        board.power_cycle()
        assert board.wait_for_healthy(30).ok
        state = board.state()
        assert state is not None
        assert state.process is not None
        assert os.getsid(state.process.pid) == state.process.pid  # no terminal's Ctrl-C reaches it
    finally:
        assert board.down()
        board.remove_run_folder()


def test_down_ends_a_board_whose_state_file_is_damaged(stand_in: WatchedBoard):
    state = stand_in.up()
    process = state.process
    assert process is not None
    stand_in.run.state.write_text("{")
    with pytest.raises(StateDamagedError, match="down"):
        stand_in.state()
    stand_in.down()
    wait_until_gone(process)
    assert stand_in.state() is None


def test_qemu_that_ended_by_itself_is_off_and_can_start_again(stand_in: WatchedBoard):
    stand_in.up()
    with suppress(MachineError), Qmp(stand_in.run.qmp) as qmp:
        qmp.command("quit")
    limit = Deadline(10, "QEMU to end")
    while stand_in.powered:
        limit.check()
        time.sleep(0.05)
    stand_in.up()
    assert stand_in.powered


def test_writes_are_recorded_when_asked(stand_in_image: Path, tmp_path: Path, name: str):
    log = tmp_path / "writes.log"
    with WatchedBoard(name, BoardOptions(image=stand_in_image, write_log=log), tmp_path / "s") as board:
        board.up()
        write_as_the_board(board, b"\x11")
        first = log.stat().st_size
        assert first >= 1024
        board.power_cycle()
        write_as_the_board(board, b"\x22")
        assert log.stat().st_size > first
    board.remove_run_folder()
    assert b"\x11" * 512 in log.read_bytes()
    assert b"\x22" * 512 in log.read_bytes()
