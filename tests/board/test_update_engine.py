"""The install engine on the real board: blocks copied and read back through the kernel's own check, little memory."""

import base64
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.board_driver.board import BoardOptions
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.dms import LabDms
from scripts.lab.places import PRODUCT, Places
from scripts.lab.world import World

pytestmark = [pytest.mark.board, pytest.mark.timeout(1500)]

VERSION = "1.1.0"
TEXT = base64.encodebytes(random.Random(5).randbytes(1_500_000)).decode()
"""What the new release has more than the old one: about 2 MB that hardly compress."""
TOGETHER_KIB = 64 * 1024

WATCH = r"""
while [ ! -e /tmp/watch-end ]; do
    for status in $(grep -ls 'Name:.python3' /proc/[0-9]*/status); do
        who=$(tr '\0' ' ' < "${status%status}cmdline" 2> /dev/null)
        case "$who" in
            *zentrid.update.worker*) echo "worker $(sed -n 's/VmHWM://p' "$status" 2> /dev/null)" ;;
            *"-m zentrid "*) echo "supervisor $(sed -n 's/VmHWM://p' "$status" 2> /dev/null)" ;;
        esac
    done
    cat /sys/class/block/dm-*/dm/name 2> /dev/null
    sleep 0.2
done > /tmp/watched 2> /dev/null
"""

FLIP = r"""
for uevent in /sys/class/block/*/uevent; do
    grep -q '^PARTNAME=rootfs_b$' "$uevent" && device=/dev/$(basename "$(dirname "$uevent")")
done
while ! grep -qs zentri-readback /sys/class/block/dm-*/dm/name; do :; done
printf X | dd of="$device" bs=1 seek=$((18000 * 4096 + 77)) conv=notrunc 2> /dev/null
sync
echo flipped > /tmp/flipped
"""


@pytest.fixture(scope="module")
def engine_world(world: World) -> World:
    """The tests' image, and one release more than the others have."""
    places = Places(world.places.root.parent / "test-lab-engine", keys=world.places.keys, image=world.places.image)
    made = World(places, extra={VERSION: {"usr/share/zentri/more.txt": TEXT}})
    if made.changed():
        made.begin_anew()
    made.bundle(VERSION)
    return made


@pytest.fixture
def ready(engine_world: World, tmp_path: Path) -> Iterator[WatchedBoard]:
    """A board that may update, with a server that has something newer; it does not restart by itself."""
    world = engine_world
    dms = LabDms(tmp_path / "dms", world.fleet())
    dms.set_up()
    identity = world.identity(dms.device_port, tmp_path / "identity")
    options = BoardOptions(image=world.places.image, identity=identity, key=world.ssh_key())
    dms.start()
    try:
        with WatchedBoard("t-engine", options, tmp_path / "board") as board:
            board.up()
            board.wait_for_healthy(400)
            account = dms.account
            for line in (f"dms claim {account['user']} {account['password']}", f"dms activate {PRODUCT}"):
                board.send(line, 60).expect_ok()
            world.publish(VERSION, dms.web_url, account["token"])
            board.send("set ota.reboot manual").expect_ok()
            yield board
        board.remove_run_folder()
    finally:
        dms.stop()


def in_background(board: WatchedBoard, script: str) -> threading.Thread:
    """Run a script on the board until it ends."""
    thread = threading.Thread(target=lambda: board.execute(script, 600), daemon=True)
    thread.start()
    return thread


def test_an_update_is_quick_and_small(ready: WatchedBoard) -> None:
    watching = in_background(ready, WATCH)
    time.sleep(3)
    start_s = time.monotonic()
    answer = ready.send("ota", 300)
    took_s = time.monotonic() - start_s
    ready.execute("touch /tmp/watch-end")
    watching.join(60)
    assert answer.ok, answer.body
    seen = ready.succeed("cat /tmp/watched")
    peaks = {
        who: max(int(found) for found in re.findall(rf"{who}\s+(\d+) kB", seen)) for who in ("worker", "supervisor")
    }
    received = int(ready.send("get ota.bytes").body)
    print(f"\nota: {took_s:.1f} s, {received} bytes, peaks {peaks} KiB")
    assert "zentri-source-a" in seen, "blocks were not copied through the kernel's check"
    assert "zentri-readback" in seen, "the slot was not read back through the kernel's check"
    assert sum(peaks.values()) <= TOGETHER_KIB, peaks
    assert ready.execute("grep -s zentri- /sys/class/block/dm-*/dm/name")[0], "a mapping was left"
    assert not ready.succeed("ls /data/zentri").count("ota")


def test_a_bit_that_falls_over_before_the_read_back_is_noticed_and_mended(ready: WatchedBoard) -> None:
    flipping = in_background(ready, FLIP)
    time.sleep(3)
    answer = ready.send("ota", 300)
    flipping.join(60)
    assert ready.succeed("cat /tmp/flipped").strip() == "flipped"
    assert answer.ok, answer.body
    said = ready.succeed("cat /run/zentrid/zentrid.log")
    assert "block 18000 of the rootfs is not on the disk as it was written" in said
    assert "it is repaired once" in said
