"""The parts of the benchmark that need no board: archives, configuration, the counting proxy, the board's own script."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scripts.bench.boards import Measured
from scripts.bench.bundles import cpio
from scripts.bench.engines import filling_s
from scripts.bench.image import device_of, rauc_config
from scripts.bench.serve import CountingProxy

TOP = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_the_archive(tmp_path):
    files = {"sw-description": b"one\n", "rootfs.zst": bytes(range(256)) * 5 + b"x"}
    done = subprocess.run(["cpio", "-i", "--quiet"], input=cpio(files), cwd=tmp_path, capture_output=True, check=True)
    assert done.stderr == b""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_archive_has_sums_and_whole_words():
    archive = cpio({"a": b"\x01\x02\x03"})
    assert archive[:6] == b"070702"
    assert archive[102:110] == b"00000006", "the sum of the bytes"
    assert len(archive) % 4 == 0
    assert b"TRAILER!!!" in archive


def test_other_engines_are_told_the_boards_partitions():
    assert device_of("bootstate") == "/dev/vda1"
    assert device_of("rootfs_b") == "/dev/vda8"
    config = rauc_config()
    assert "[slot.rootfs.1]\ndevice=/dev/vda8\ntype=raw\nbootname=B\n" in config
    assert "[slot.kernel.0]\ndevice=/dev/vda5\ntype=raw\nparent=rootfs.0\n" in config


def test_proxy_counts_the_answers_alone():
    answer = bytes(300_000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(10)
                link.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with CountingProxy(server.getsockname()[1]) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port), 5) as board:
                board.sendall(b"0123456789")
                got = b""
                while data := board.recv(65536):
                    got += data
            assert got == answer
            assert proxy.to_board_bytes == len(answer)
            proxy.reset()
            assert proxy.to_board_bytes == 0


def test_time_of_the_blocks_is_counted_from_the_first_word_about_them():
    lines = [(0.5, "1% checking"), (2.0, "2% downloading"), (3.0, "50% downloading"), (4.0, "95% verifying")]
    assert filling_s(Measured(5.0, 1, lines, [])) == 3.0
    assert filling_s(Measured(5.0, 1, lines[:1], [])) is None


def onboard(*words: str) -> dict[str, object]:
    command = [sys.executable, str(TOP / "scripts/bench/onboard.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_boards_script_measures_time_words_and_memory():
    program = (
        "import time; block = bytearray(100 << 20); print('1% downloading', flush=True); time.sleep(1.5); print('end')"
    )
    found = onboard("block = byte", "30", sys.executable, "-c", program)
    assert found["code"] == 0
    assert 1.5 <= float(str(found["seconds"])) < 30
    assert [text for _, text in found["lines"]] == ["1% downloading", "end"]  # type: ignore[attr-defined]
    assert 100 << 20 <= int(str(found["peak_rss_bytes"])) < 160 << 20


def test_the_boards_script_tells_a_failure_and_ends_what_takes_too_long():
    assert onboard("none", "30", "sh", "-c", "exit 3")["code"] == 3
    found = onboard("none", "0.5", "sleep", "20")
    assert found["code"] == -9
    assert float(str(found["seconds"])) < 15
