"""The boot chain and the boot script on the real board: what must verify, which slot boots, what is counted."""

import zlib

import pytest

from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.states import MIB, SECOND_COPY, read_state, write_state
from zentrid.core import names
from zentrid.core.bootstate import decode
from zentrid.core.version import Version

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]


def slot(board: WatchedBoard) -> str:
    return board.send("get system.boot.slot").expect_ok().strip()


def test_a_healthy_boot_is_written_down_and_takes_one_write_of_the_script(cold: WatchedBoard):
    state = read_state(cold)
    assert (state.a_left, state.a_good, state.cold_boots, state.running) == (names.BOOT_TRIES, True, 0, True)
    assert state.floor == (1, 0, 0)
    before = state.seq
    cold.power_on()
    cold.wait_for_console("Starting kernel")
    cold.power_cut()
    assert read_state(cold).seq == before + 1
    assert "virtio write" in cold.console_text_now
    assert "Total of 4096 byte(s) were the same" in cold.console_text_now, "the write was not compared"


def test_pulling_the_plug_many_times_changes_no_slot(cold: WatchedBoard):
    for _ in range(9):
        cold.power_on()
        cold.wait_for_console("Starting kernel")
        cold.power_cut()
    state = read_state(cold)
    assert (state.a_left, state.faults, state.cold_boots) == (names.BOOT_TRIES, 0, 9)
    write_state(cold, cold_boots=0)
    cold.power_on()
    cold.wait_for_healthy()
    assert slot(cold) == "a"


def test_ten_cold_boots_that_never_become_healthy_move_on_to_the_other_slot(cold: WatchedBoard):
    write_state(cold, b_left=3, b_good=True, cold_boots=9)
    cold.power_on()
    cold.wait_for_console("slot a gave up")
    cold.wait_for_healthy()
    assert slot(cold) == "b"
    cold.power_cut()
    assert read_state(cold).cold_boots == 0, "healthy: the count begins anew"


def test_resets_take_the_tries_of_a_slot_that_hangs_and_then_the_other_slot_boots(cold: WatchedBoard):
    write_state(cold, b_left=3, b_good=True)
    cold.power_on()
    for left in (3, 3, 2, 1):
        cold.wait_for_console(rf"zentri: warm=[01] .* a={left} b=3")
        cold.wait_for_console("Starting kernel")
        cold.reset()
    cold.wait_for_console("zentri: trying slot b")
    cold.wait_for_healthy()
    assert slot(cold) == "b"


@pytest.mark.parametrize("where", ["kernel", "arguments", "root hash"])
def test_a_changed_fit_does_not_boot_and_gets_no_more_tries(cold: WatchedBoard, where: str):
    write_state(cold, b_left=3, b_good=True)
    fit = cold.disk_read("kernel_a", 0, 8 * MIB)
    offset = {
        "kernel": 2 * MIB,
        "arguments": fit.index(b"console=ttyAMA0") + 3,
        "root hash": fit.index(b" sha256 ", fit.index(b"dm-mod.create=")) + 12,
    }[where]
    cold.disk_flip_bit("kernel_a", offset)
    cold.power_on()
    cold.wait_for_console("slot a does not verify")
    cold.wait_for_healthy()
    assert slot(cold) == "b"
    cold.power_cut()
    assert read_state(cold).a_left == 0


def test_a_rootfs_block_that_does_not_verify_restarts_the_board_into_the_other_slot(cold: WatchedBoard):
    write_state(cold, b_left=3, b_good=True)
    cold.disk_flip_bit("rootfs_a", 0)  # before the superblock: only the hash tree can notice
    cold.disk_flip_bit("rootfs_a", 1024 + 40)
    with cold.expecting("reset"):
        cold.power_on()
        cold.wait_for_console("zentri: trying slot b", timeout_s=120)
        cold.wait_for_healthy()
    assert slot(cold) == "b"


def test_a_slot_older_than_the_boot_floor_does_not_boot(cold: WatchedBoard):
    write_state(cold, b_left=3, b_good=True, boot_floor=Version(9, 0, 0))
    cold.power_on()
    cold.wait_for_console("slot a is older than the boot floor")
    cold.wait_for_console("slot b is older than the boot floor")
    cold.wait_for_console("starting the safe-mode system \\(noslot\\)")


def test_a_boot_floor_does_not_take_the_safe_mode_system_away(cold: WatchedBoard):
    write_state(cold, b_left=3, b_good=True, boot_floor=Version(9, 0, 0))
    cold.power_on()
    assert cold.wait_for_answer().safe_mode


def test_a_safe_mode_system_with_a_damaged_root_gives_the_slots_another_chance(cold: WatchedBoard):
    write_state(cold, a_left=0, b_left=0)
    cold.disk_flip_bit("rootfs_r", 0)
    cold.disk_flip_bit("rootfs_r", 1024 + 40)
    with cold.expecting("reset"):
        cold.power_on()
        for _ in range(3):
            cold.wait_for_console("starting the safe-mode system", timeout_s=60)
        cold.wait_for_console("zentri: trying slot a", timeout_s=60)
        cold.wait_for_healthy()
    assert slot(cold) == "a"
    cold.power_cut()
    assert read_state(cold).a_left == names.BOOT_TRIES, "healthy again: it has its tries back"


@pytest.mark.parametrize("sector", [0, 1, 2])
def test_one_damaged_sector_of_the_partition_table_is_no_loss(cold: WatchedBoard, sector: int):
    cold.disk.overlay.write(sector * 512, bytes(512))
    cold.power_on()
    cold.wait_for_healthy()
    assert slot(cold) == "a"


def test_a_supervisor_that_does_not_stay_up_restarts_the_board_and_costs_a_try(cold: WatchedBoard):
    with cold.expecting("reset"):
        cold.power_on()
        cold.wait_for_healthy()
        cold.shell("(while sleep 0.5; do killall -9 python3; done) > /dev/null 2>&1 < /dev/null &")
        cold.wait_for_console(r"zentri: warm=1 exception=1 .* a=3", timeout_s=180)
        cold.wait_for_console("zentri: trying slot a")
        cold.wait_for_healthy()


def test_one_damaged_copy_of_the_boot_state_is_no_loss(cold: WatchedBoard):
    state = read_state(cold)
    for offset in (0, SECOND_COPY):
        copy = cold.disk_read("bootstate", offset, names.BOOTSTATE_COPY_BYTES)
        if decode(copy).seq != state.seq:
            cold.disk_write("bootstate", offset, bytes(names.BOOTSTATE_COPY_BYTES))
    cold.power_on()
    cold.wait_for_healthy()
    assert slot(cold) == "a"


def test_with_both_copies_lost_the_board_boots_and_says_so(cold: WatchedBoard):
    cold.disk_write("bootstate", 0, b"\xff" * MIB)
    with cold.expecting("state-lost"):
        cold.power_on()
        cold.wait_for_healthy()
    assert "state_lost" in cold.send("faults_print").body
    cold.power_cut()
    state = read_state(cold)
    assert (state.a_left, state.a_good) == (names.BOOT_TRIES, True)


def test_the_boot_state_cannot_smuggle_commands_into_the_rom(cold: WatchedBoard):
    evil = b"".join(
        entry + b"\0"
        for entry in (
            b"seq=ff", b"BOOT_ORDER=A; echo smuggled", b"BOOT_A_LEFT=3; echo smuggled", b"bootcmd=echo smuggled",
            b"main=echo smuggled", b"bootargs=init=/bin/sh", b"preboot=echo smuggled", b"bs_save=echo smuggled",
            b"BOOT_A_GOOD=1", b"running=0", b"stdin=nulldev", b"fitaddr=0", b"magicword=0",
        )
    )  # fmt: skip
    body = (evil + b"\0").ljust(names.BOOTSTATE_COPY_BYTES - 4, b"\0")
    copy = zlib.crc32(body).to_bytes(4, "little") + body
    for offset in (0, SECOND_COPY):
        cold.disk_write("bootstate", offset, copy)
    cold.power_on()
    cold.wait_for_answer()
    commands = [line for line in cold.console_text_now.splitlines() if line.strip() == "smuggled"]
    assert not commands
    assert "init=/bin/sh" not in cold.wait_until_succeeds("cat /proc/cmdline")


def test_with_no_slot_left_the_safe_mode_system_answers(cold: WatchedBoard):
    for part in ("kernel_a", "kernel_b"):
        cold.disk_write(part, 0, b"\xa5" * MIB)
    cold.power_on()
    cold.wait_for_console("starting the safe-mode system")
    answer = cold.wait_for_answer()
    assert answer.safe_mode
    assert cold.send("get system.safemode.status").body.strip() == "1"


def test_with_nothing_left_the_rom_says_so_and_starts_again(cold: WatchedBoard, world: World):
    for part in ("kernel_a", "kernel_b", "kernel_r"):
        cold.disk_write(part, 0, b"\xa5" * MIB)
    with cold.expecting("reset"):
        cold.power_on()
        cold.wait_for_console("nothing verifies; trying again in 10 s")
        cold.wait_for_console("nothing verifies; trying again in 20 s", timeout_s=60)
    # the owner writes the safe-mode system anew, and the board is back
    cold.power_cut()
    extent = cold.disk.overlay.partitions["kernel_r"]
    with (world.places.image / "disk.img").open("rb") as stream:
        stream.seek(extent.offset_bytes)
        cold.disk_write("kernel_r", 0, stream.read(extent.size_bytes))
    cold.power_on()
    assert cold.wait_for_answer().safe_mode
