"""Applications and files of bundles on the real board, in one boot: installed, taken back, removed, without a restart."""

import base64
from pathlib import Path

import pytest

from scripts.board_driver.machine_mode import Answer
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.places import PRODUCT
from scripts.lab.tools import call
from scripts.lab.world import World
from tests.board.conftest import BoardFactory
from tests.board.disks import board_from, set_and_save

pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]

STAYS = """#!/usr/bin/python3 -ISu
import os, time
print("rules:", open(os.environ["ZENTRI_FILES"] + "/etc/rules").read())
time.sleep(9999)
"""
CRASHES = "#!/usr/bin/python3 -ISu\nprint('bad luck')\nraise SystemExit(3)\n"


def send_bundle(world: World, board: WatchedBoard, folder: Path, version: str, *words: str) -> str:
    """Build and sign a bundle without firmware, put it on the board, return its path there."""
    bundle = folder / f"{version}.zb"
    call("scripts.bundle_tool", "build", "--product", PRODUCT, "--version", version, "--out", bundle, *words)
    world.sign(bundle, folder / "metadata")  # other tests sign these versions with other content
    text = base64.b64encode(bundle.read_bytes()).decode()
    path = f"/data/{version}.zb"
    board.succeed(f"rm -f {path}")
    for start in range(0, len(text), 6_000):  # a command by SSH has at most 9,000 bytes
        board.succeed(f"echo {text[start : start + 6_000]} | base64 -d >> {path}")
    return path


def said(answer: Answer) -> str:
    return "\n".join((*answer.log, answer.body))


def test_in_one_boot(board: BoardFactory, prepared: Path, world: World, tmp_path: Path) -> None:
    (tmp_path / "stays").write_text(STAYS)
    (tmp_path / "crashes").write_text(CRASHES)
    (tmp_path / "rules").write_text("the first")
    one = board_from(board, world, prepared)
    one.wait_for_healthy()
    set_and_save(one, "system.boot.app t-arm")
    boot_id = one.succeed("cat /proc/sys/kernel/random/boot_id")
    first = send_bundle(
        world,
        one,
        tmp_path,
        "1.0.1",
        "--app",
        f"t-arm={tmp_path / 'stays'}",
        "--file",
        f"etc/rules={tmp_path / 'rules'}",
    )
    answer = one.send(f"ota -u {first}", timeout_s=180).expect_ok()
    assert "1.0.1" in answer
    [line] = [line for line in one.send("app list").expect_ok().splitlines() if line.split()[:1] == ["t-arm"]]
    assert line.split()[1:4] == ["1.0.1", "yes", "running"]
    assert "bundle" in line.split()
    assert "rules: the first" in one.send("app log").expect_ok()
    # It can read its own, and change nothing of it.
    top = "/data/zentri/items"
    assert one.succeed(f"find {top}/ ! -user root | head -3") == ""
    assert one.succeed(f"find {top}/ -perm /022 ! -type l | head -3") == ""
    # The application that crashes goes back, and takes no file with it that came along. A prepared board judges after a second,
    # which is less than a Python program may take to come to its crash; the device's own default is ten.
    one.send("set system.boot.healthy_after 20").expect_ok()
    (tmp_path / "rules").write_text("the second")
    second = send_bundle(
        world,
        one,
        tmp_path,
        "1.0.2",
        "--app",
        f"t-arm={tmp_path / 'crashes'}",
        "--file",
        f"etc/rules={tmp_path / 'rules'}",
    )
    failed = one.send(f"ota -u {second}", timeout_s=180)
    assert failed.code == 1
    assert "bad luck" in said(failed)
    assert one.succeed("cat /run/zentri/files/etc/rules") == "the first"
    # At most that it was missed before it came.
    assert one.send("get system.fault.count").expect_ok().strip() in ("0", "1")
    # A file that goes.
    third = send_bundle(world, one, tmp_path, "1.0.3", "--remove", "file:etc/rules")
    one.send(f"ota -u {third}", timeout_s=180).expect_ok()
    assert one.succeed("ls /run/zentri/files/etc 2>/dev/null | wc -l").strip() == "0"
    rows = [row.split() for row in one.send("items").expect_ok().splitlines()[1:]]
    assert rows == [["app", "t-arm", "1.0.1", "1.0.1", "-"]]
    assert one.succeed(f"ls {top}").split() == ["sets", "slot-a", "store"]
    # Older than what was healthy here: refused. And all of it was one boot.
    refused = one.send(f"ota -u {first}", timeout_s=180)
    assert "older than 1.0.3" in said(refused)
    assert one.succeed("cat /proc/sys/kernel/random/boot_id") == boot_id
