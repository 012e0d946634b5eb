"""What ended the last boot: the kernel's own words, recorded on the board, and words that make no sense."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.core.bootstate import BootState, Fault, decode, encode
from zentrid.core.postmortem import (
    MAX_DETAIL_CHARS,
    MAX_TEXT_CHARS,
    NOTHING_LEFT,
    Finding,
    Words,
    complete,
    examine,
    explain,
    unexplained,
)

# Recorded on the board (Linux 6.12, arm64): `echo c > /proc/sysrq-trigger`.
PANIC_TAIL = """\
[   18.465500] sysrq: Trigger a crash
[   18.465872] Kernel panic - not syncing: sysrq triggered crash
[   18.466323] CPU: 1 UID: 0 PID: 125 Comm: sh Not tainted 6.12.118 #1
[   18.466597] Hardware name: linux,dummy-virt (DT)
[   18.466867] Call trace:
[   18.467035]  dump_backtrace+0xa0/0xdc
[   18.468746]  vpanic+0x318/0x320
[   18.469002]  __handle_sysrq+0xa8/0x1e4
[   18.469209]  proc_reg_write+0xa8/0xf0
[   18.469728]  el0t_64_sync+0x14c/0x150
[   18.469937] SMP: stopping secondary CPUs
[   18.470540] Memory Limit: none
"""
# Recorded on the board: an undefined instruction at the beginning of a system call.
OOPS_LINES = """\
[   21.266651] Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP
[   21.268106] CPU: 1 UID: 0 PID: 122 Comm: python3 Not tainted 6.12.118 #1
[   21.268672] pstate: 80000005 (Nzcv daif -PAN -UAO -TCO -DIT -SSBS BTYPE=--)
[   21.268917] pc : __arm64_sys_getpriority+0x0/0x2a0
[   21.269293] lr : do_el0_svc+0x68/0xf4
[   21.269440] sp : ffffff8000e3be60
[   21.269507] x29: ffffff8000e3be60 x28: ffffff80014e0000 x27: 0000000000000000
[   21.271143] x5 : 0000000000000000 x4 : 0000000000000000 x3 : ffffffc08051b2a8
[   21.271507] Call trace:
[   21.271623]  __arm64_sys_getpriority+0x0/0x2a0
[   21.271777]  el0_svc+0x18/0x54
[   21.272174] Code: a9425bf5 17ffff70 9413a3a0 17ffff92 (00000000)
[   21.272485] ---[ end trace 0000000000000000 ]---
"""
OOPS_END = """\
[   21.278745] Kernel panic - not syncing: Oops - Undefined instruction: Fatal exception
[   21.279117] SMP: stopping secondary CPUs
"""
# The form that arm64 gives a wild pointer.
NULL_POINTER = """\
[    9.100000] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010
[    9.100100] Mem abort info:
[    9.100200] Internal error: Oops: 0000000096000004 [#1] SMP
[    9.100300] pc : virtblk_done+0x20/0x1c0
[    9.100400] Kernel panic - not syncing: Oops: Fatal exception in interrupt
"""
# The form that 32-bit ARM gives it, after Linux 6.12, arch/arm/kernel/traps.c and process.c; not recorded on a board.
ARM_OOPS = """\
[    9.100000] Internal error: Oops - undefined instruction: 0 [#1] SMP ARM
[    9.100100] CPU: 0 UID: 0 PID: 122 Comm: python3 Not tainted 6.12.118 #1
[    9.100200] PC is at sys_getpriority+0x0/0x2a4
[    9.100300] LR is at ret_fast_syscall+0x0/0x4c
[    9.100400] pc : [<c0123456>]    lr : [<c0100060>]    psr: 60000013
[    9.100500] Kernel panic - not syncing: Fatal exception
"""
VERITY = """\
[   33.700000] device-mapper: verity: 254:6: data block 5120 is corrupted
[   33.700400] reboot: Restarting system with command 'dm-verity device corrupted'
"""
BOOT = "[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x411fd070]\n[    1.200000] random: crng init done\n"
THEN_S = 1_795_567_975.0


def dump(kind: str, text: str, number: int = 0, *, count: int = 1, part: int = 1, time_s: float = THEN_S) -> Words:
    """Return a dump as pstore shows it: a header, and a level before each line."""
    lines = "".join(f"<4>{line}\n" for line in text.splitlines())
    return Words(f"dmesg-ramoops-{number}", f"{kind}#{count} Part{part}\n{lines}", time_s)


def console(text: str) -> Words:
    return Words("console-ramoops-0", text)


def one(*records: Words, warm: bool = True) -> Finding:
    [finding] = examine(records, warm=warm)
    return finding


def test_panic() -> None:
    found = one(dump("Panic", BOOT + PANIC_TAIL), console(PANIC_TAIL))
    assert (found.cause, found.detail, found.uptime_s) == ("panic", "sysrq triggered crash", 18)
    assert found.utc == "2026-11-25T00:52:55Z"
    assert found.text.splitlines()[0] == "Kernel panic - not syncing: sysrq triggered crash"
    assert "__handle_sysrq+0xa8/0x1e4" in found.text
    assert "Hardware name" not in found.text


def test_an_oops_leaves_two_dumps_and_is_one_end() -> None:
    oops = dump("Oops", BOOT + OOPS_LINES, 0, count=1)
    panic = dump("Panic", BOOT + OOPS_LINES + OOPS_END, 1, count=2, time_s=THEN_S + 0.01)
    found = one(panic, oops, console(OOPS_LINES + OOPS_END))
    assert found.cause == "oops"
    assert (
        found.detail == "Internal error: Oops - Undefined instruction: 0000000002000000 at __arm64_sys_getpriority+0x0"
    )
    assert found.uptime_s == 21
    assert "lr : do_el0_svc" in found.text
    assert "el0_svc+0x18/0x54" in found.text
    assert "x29:" not in found.text
    assert one(oops, panic) == found, "the order in which files are listed does not matter"


def test_two_boots_that_ended_in_the_same_way_are_two_ends() -> None:
    first = dump("Panic", PANIC_TAIL, 0, time_s=THEN_S)
    second = dump("Panic", PANIC_TAIL.replace("18.", "40."), 1, time_s=THEN_S + 60)
    assert [f.uptime_s for f in examine((first, second), warm=True)] == [40, 18]


def test_an_oops_of_32_bit_arm_says_where_it_was() -> None:
    found = one(dump("Panic", ARM_OOPS))
    assert found.cause == "oops"
    assert found.detail == "Internal error: Oops - undefined instruction: 0 at sys_getpriority+0x0"


def test_wild_pointer() -> None:
    found = one(dump("Panic", NULL_POINTER))
    assert found.cause == "oops"
    assert found.detail == (
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010 at virtblk_done+0x20"
    )


def test_a_bug_that_was_survived_is_not_why() -> None:
    found = one(dump("Panic", "[ 5.000000] BUG: scheduling while atomic\n" + PANIC_TAIL))
    assert (found.cause, found.detail) == ("panic", "sysrq triggered crash")


def test_corruption() -> None:
    found = one(console(VERITY))
    assert (found.cause, found.uptime_s) == ("corruption", 33)
    assert found.detail == "device-mapper: verity: 254:6: data block 5120 is corrupted"
    # The board's console shows emergencies only: then this is all there is.
    quiet = one(console(VERITY.splitlines()[1]))
    assert quiet.cause == "corruption"
    assert "dm-verity device corrupted" in quiet.detail


def test_a_restart_by_software_that_was_not_clean() -> None:
    found = one(console("[ 99.000000] reboot: Restarting system\n"))
    assert found.cause == "reset"
    assert found.detail
    assert found.uptime_s == 99


def test_hang() -> None:
    assert one().cause == "hang"
    found = one(console("[   61.000000] virtio_blk virtio0: request timed out\n"))
    assert (found.cause, found.uptime_s) == ("hang", 61)
    assert "request timed out" in found.detail
    assert "request timed out" in found.text


def test_with_the_power_cut_silence_means_nothing() -> None:
    assert examine((), warm=False) == ()


def test_a_dump_of_an_older_boot_is_not_taken_for_the_last_one() -> None:
    old = dump("Panic", PANIC_TAIL)
    quiet = console("[   61.000000] watchdog: did not stop!\n")
    assert [f.cause for f in examine((old, quiet), warm=True, resets=2)] == ["hang", "panic"]
    assert [f.cause for f in examine((old,), warm=True, resets=2)] == ["hang", "panic"], "its console said nothing"
    assert [f.cause for f in examine((old,), warm=True, resets=1)] == ["panic"]


def test_parts_of_one_dump_are_put_together() -> None:
    head, tail = PANIC_TAIL[:80], PANIC_TAIL[80:]
    found = one(dump("Panic", tail, 0, part=1), dump("Panic", BOOT + head, 1, part=2))
    assert found.uptime_s == 18


def test_a_dump_that_cannot_be_read_is_a_panic_all_the_same() -> None:
    found = one(Words("dmesg-ramoops-0.enc.z", "\x00\xff\x1b[2J" * 50))
    assert found.cause == "panic"
    assert "damaged" in found.detail


@given(st.lists(st.tuples(st.sampled_from(["console-ramoops-0", "dmesg-ramoops-0", "x"]), st.text(max_size=300))))
def test_hostile_text_is_no_error(pieces: list[tuple[str, str]]) -> None:
    found = examine([Words(name, text, len(text)) for name, text in pieces], warm=True, resets=len(pieces))
    for finding in found:
        assert len(finding.detail) <= MAX_DETAIL_CHARS
        assert len(finding.text) <= MAX_TEXT_CHARS
        assert finding.uptime_s >= 0
        assert all(" " <= char <= "~" for char in finding.detail)
        assert all(" " <= char <= "~" or char == "\n" for char in finding.text)


@pytest.mark.parametrize(
    "text",
    [
        "Panic#1 Part1\n" * 5000,
        "[" * 200_000,
        "Kernel panic - not syncing: " + "A" * 100_000,
        "pc : " + "a" * 100_000 + "+0x1",
        "[   999999999.1] Kernel panic - not syncing: x\n[99999999999999.9] y",
        "Panic#999999999999999 Part9999999999999\nKernel panic - not syncing: x",
    ],
)
def test_limits(text: str) -> None:
    for finding in examine([Words("dmesg-ramoops-0", text, 1e18), console(text)], warm=True):
        assert len(finding.text) <= MAX_TEXT_CHARS
        assert len(finding.detail) <= MAX_DETAIL_CHARS
        assert finding.uptime_s < 10**9
        assert finding.utc == "?"


# --- completing the records -------------------------------------------------------------------------------------------
RAW_A = Fault("reset", "a", "?", 0, "?", "")
RAW_R = Fault("reset", "r", "?", 0, "?", "")
OTHER = Fault("application", "a", "1.0.0", 40, "?", "exit code 3")
VERSIONS = {"a": "1.1.0", "r": "1.0.0"}
NEW = Finding("panic", "of the last boot", 18, "2026-11-25T00:52:55Z", "text")


def test_the_newest_record_gets_what_was_found() -> None:
    state = BootState(faults=4, fault_records=(RAW_A, OTHER, RAW_R, RAW_A))
    after = complete(state, (NEW,), VERSIONS)
    lost = Fault("reset", "?", "?", 0, "?", NOTHING_LEFT)
    assert after.fault_records == (
        replace(lost, slot="a", version="1.1.0"),
        OTHER,
        replace(lost, slot="r", version="1.0.0"),
        Fault("panic", "a", "1.1.0", 18, "2026-11-25T00:52:55Z", "of the last boot"),
    )
    assert replace(after, fault_records=()) == replace(state, fault_records=()), "the count never changes"


def test_what_was_completed_is_told_once() -> None:
    state = BootState(faults=3, fault_records=(RAW_A, OTHER, RAW_A))
    after, told = explain(state, (NEW,), VERSIONS)
    assert [(one.fault, one.text) for one in told] == [(after.fault_records[0], ""), (after.fault_records[2], "text")]
    assert unexplained(state) == 2
    assert unexplained(after) == 0
    assert explain(after, (NEW,), VERSIONS) == (after, ())


def test_a_slot_that_is_not_known() -> None:
    state = BootState(faults=1, fault_records=(replace(RAW_A, slot="?"),))
    assert complete(state, (), {}).fault_records[0].version == "?"


def test_a_completed_record_survives_the_boot_state() -> None:
    long = replace(NEW, detail="x;" * 80)
    state = complete(BootState(faults=8, fault_records=(RAW_A,) * 8), (long,) * 8, VERSIONS)
    again = decode(encode(state))
    assert len(again.fault_records) == 8
    assert unexplained(again) == 0
