"""Installing without a server on the board: from a web server, and by sending the bundle to the board in safe mode."""

from __future__ import annotations

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.board_driver.machine import HOST_SEEN_BY_BOARD
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.places import PRODUCT
from scripts.lab.world import World
from tests.board.states import write_state
from tests.support.webhost import WebHost

pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]
INSTALL_S = 300


def test_a_bundle_from_a_web_server_and_one_that_is_sent_in_safe_mode(cold: WatchedBoard, world: World):
    bundle = world.bundle("1.1.0")
    cold.power_on()
    cold.wait_for_healthy()
    cold.send("set ota.reboot manual").expect_ok()
    # The one port that leads from this computer to the board is the web server's otherwise.
    cold.send("set http.server.enabled 0").expect_ok()
    cold.send("set ota.upload.port 80").expect_ok()
    cold.send("save").expect_ok()
    with WebHost(bundle.read_bytes()).running() as web:
        web.cuts = [10**9] * 8 + [5_000_000]
        address = f"http://{HOST_SEEN_BY_BOARD}:{web.port}/new.zb"
        looked = cold.send(f"ota -c -u {address}", 60).expect_ok()
        assert "Update available" in looked
        began_s = time.monotonic()
        done = cold.send(f"ota -u {address}", INSTALL_S).expect_ok()
    assert f"Updated to {PRODUCT}-1.1.0." in done
    print(f"from a web server: {time.monotonic() - began_s:.1f} s, {web.sent_bytes} of {len(web.content)} bytes")
    cold.power_cut()
    write_state(cold, safemode=True)
    port = cold.power_on().http_port
    assert cold.wait_for_answer().safe_mode
    took_s, peak_kib = send_bundle(cold, bundle, port)
    print(f"sent in safe mode: {took_s:.1f} s; the door's process took {peak_kib} KiB at most")
    assert "upload.zb" not in cold.succeed("ls -R /data/zentri")
    assert "1.1.0" in cold.reboot().body


def send_bundle(board: WatchedBoard, bundle: Path, port: int) -> tuple[float, int]:
    """Type `ota upload`, send the bundle as the console says; return seconds and the most memory of the door's process."""
    seen = len(board.console_text_now)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(board.send, "ota upload", INSTALL_S)
        token = None
        while token is None and not answer.done():
            time.sleep(0.2)
            token = re.search(r"Bearer ([a-z2-7]{16})", board.console_text_now[seen:])
        assert token is not None, answer.result()
        wrong = subprocess.run(
            ["curl", "-sS", "-w", "%{http_code}", f"http://127.0.0.1:{port}/status"], capture_output=True, check=True
        )
        assert wrong.stdout.endswith(b"403")
        began_s = time.monotonic()
        sender = subprocess.Popen(
            ["curl", "-sS", "-T", bundle, "-H", f"Authorization: Bearer {token[1]}",
             f"http://127.0.0.1:{port}/bundle"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        find = (
            "for p in /proc/[0-9]*; do grep -q zentrid.update.door $p/cmdline && grep -E 'VmHWM|^Uid' $p/status; done"
        )
        found = board.shell(find).stdout
        heard, _ = sender.communicate(timeout=INSTALL_S)
        assert f"Updated to {PRODUCT}-1.1.0." in answer.result().expect_ok()
    assert json.loads(heard.splitlines()[-1])["result"] == "ok"
    assert re.search(r"Uid:\s+900\s+900\s+900", found), found
    peak = re.search(r"VmHWM:\s+(\d+)", found)
    assert peak is not None
    return time.monotonic() - began_s, int(peak[1])
