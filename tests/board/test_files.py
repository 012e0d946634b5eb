"""Files, streams and requests on the real board: by SSH, by the serial console, from a web server, and over a power cut."""

import random
import re
import subprocess
import time
from pathlib import Path

import pytest

from scripts.board_driver.machine import HOST_SEEN_BY_BOARD
from scripts.board_driver.serial import SerialLink
from scripts.board_driver.ssh import COMMAND_USER, ssh_command
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from
from tests.support.webhost import WebHost
from zentrid.core.crc16 import crc16

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]

TOP = "/data/zentri/files"
PIECE_BYTES = 90_000


def command(board: WatchedBoard, line: str) -> list[str]:
    return ssh_command(board._powered_state().ssh_port, board.options.key, COMMAND_USER, ["--", line])


def by_ssh(board: WatchedBoard, line: str, data: bytes = b"") -> bytes:
    """Carry out a line by SSH, with bytes for it; return the answer's bytes."""
    done = subprocess.run(command(board, line), input=data, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, (line, done)
    return done.stdout


def of_process(module: str) -> str:
    """Return the beginning of a loop over a module's processes, without its `done`."""
    return f"for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/cmdline 2>/dev/null | grep -qx {module} &&"


def memory_kib(board: WatchedBoard, module: str) -> tuple[int, str]:
    """Return the most memory that a module's process has had, in KiB, and its user."""
    found = board.shell(f"{of_process(module)} grep -E 'VmHWM|^Uid' $p/status; done").stdout
    peak, user = re.search(r"VmHWM:\s+(\d+)", found), re.search(r"Uid:\s+(\d+)", found)
    assert peak is not None, found
    assert user is not None
    return int(peak[1]), user[1]


def test_in_one_boot_and_after_a_power_cut(board: BoardFactory, prepared: Path, world: World) -> None:
    one = board_from(board, world, prepared)
    one.wait_for_healthy()
    data = random.Random(1).randbytes(1_000_000)
    send_and_read_back(one, data)
    by_the_serial_console(one)
    from_a_web_server(one, data)
    print(f"the supervisor had {memory_kib(one, 'zentrid')[0]} KiB at most")
    cut_while_it_is_sent(one, data)


def send_and_read_back(board: WatchedBoard, data: bytes) -> None:
    began_s = time.monotonic()
    line = f"file_create webapp/big.bin {len(data)} 1.2.3 45 {crc16(data):04x}"
    assert by_ssh(board, line, data) == b"File created\n"
    print(f"{len(data)} bytes by SSH: {time.monotonic() - began_s:.1f} s")
    assert f"crc: {crc16(data):04x}" in board.send("file_stat webapp/big.bin").expect_ok()
    assert board.succeed(f"stat -c '%a %U %s' {TOP}/webapp/big.bin").split() == ["644", "root", str(len(data))]
    handle = board.send("file_open webapp/big.bin").expect_ok()
    read = b""
    while len(piece := by_ssh(board, f"read {handle} {PIECE_BYTES}")) == PIECE_BYTES:
        read += piece
    assert read + piece == data
    board.send(f"close {handle}").expect_ok()


def by_the_serial_console(board: WatchedBoard) -> None:
    """As a person pastes it: every byte that there is, Ctrl-C among them."""
    every = bytes(range(256)) * 8
    with SerialLink(board.run) as link:
        link.send(b"file_create serial.bin %d\r" % len(every) + every)
        heard, give_up_s = b"", time.monotonic() + 30
        while b"File created" not in heard:
            assert time.monotonic() < give_up_s, heard
            heard += link.receive(1.0)
    assert board.send("file_stat serial.bin").expect_ok().splitlines()[-1] == f"crc: {crc16(every):04x}"


def from_a_web_server(board: WatchedBoard, data: bytes) -> None:
    with WebHost(data).running() as web:
        address = f"http://{HOST_SEEN_BY_BOARD}:{web.port}/new.zb"
        began_s = time.monotonic()
        got = board.send(f"http_get {address}", 60)
        handle = got.expect_ok()
        print(f"an answer began after {time.monotonic() - began_s:.1f} s")
        assert "HTTP response: 200" in got.log
        assert board.send(f"http_read_status {handle}").expect_ok() == "200"
        peak_kib, user = memory_kib(board, "zentrid.webworker")
        print(f"its process had {peak_kib} KiB at most")
        assert user == "906"
        assert by_ssh(board, f"read {handle} {PIECE_BYTES}") == data[:PIECE_BYTES]
        board.send(f"close {handle}").expect_ok()
        board.send(f"http_download -c {crc16(data):04x} {address} fetched.bin", 120).expect_ok()
        assert board.succeed(f"cmp {TOP}/fetched.bin {TOP}/webapp/big.bin && echo same") == "same\n"
        board.wait_until_fails(f"{of_process('zentrid.webworker')} exit 0; done; exit 1", 20)


def cut_while_it_is_sent(board: WatchedBoard, data: bytes) -> None:
    """The power goes when half of a file's next version has come: the old one is there, and nothing is left of the new one."""
    new = data[::-1]
    sender = subprocess.Popen(command(board, f"file_create webapp/big.bin {len(new)}"), stdin=subprocess.PIPE)
    try:
        assert sender.stdin is not None
        sender.stdin.write(new[: len(new) // 2])
        sender.stdin.flush()
        board.wait_until_succeeds(f"ls {TOP}.new/*", 30)
        time.sleep(1)
        board.power_cut()
    finally:
        sender.kill()
        sender.communicate()
    board.power_on()
    board.wait_for_healthy()
    listed = {line.split()[-1]: line.split()[1:-1] for line in board.send("ls -v").expect_ok().splitlines()[1:]}
    assert {name for name in listed if not name.startswith("webapp/")} == {"fetched.bin", "serial.bin"}
    assert listed["webapp/big.bin"] == ["45", "0001", str(len(data)), "1.2.3"]
    assert board.succeed(f"cmp {TOP}/fetched.bin {TOP}/webapp/big.bin && echo same") == "same\n"
    assert board.succeed(f"ls {TOP}.new 2>/dev/null | wc -l").strip() == "0"
