"""What the boot script does in time and with a failing disk: lamp, keys, watchdog, pauses, writes."""

from __future__ import annotations

import dataclasses
import zlib
from itertools import pairwise

import pytest

from scripts.image import bootenv
from tests.board.rom import cases
from tests.board.rom.conftest import MachineFactory
from tests.board.rom.machine import WORDS, RomMachine
from tests.board.rom.rules import Contents, appended, arguments_seen, check, differences, set_up, steps_seen
from tests.support.boots import fresh_state
from zentrid.core import names
from zentrid.core.bootmodel import Before, boot
from zentrid.core.bootrules import Button, Ram, Say, System
from zentrid.core.bootstate import BootState
from zentrid.core.names import SlotName

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]

SYSTEMS: dict[SlotName, System] = {"a": cases.GOOD, "b": cases.GOOD, "r": cases.GOOD}
NOTHING: dict[SlotName, System] = {"a": cases.BAD, "b": cases.EMPTY, "r": cases.BAD}
HELD = "zentri: button down; held for 5 s"


def _before(state: BootState | None = None, **more: object) -> Before:
    return Before((state or fresh_state(), None), True, SYSTEMS, **more)  # type: ignore[arg-type]


# --- the button --------------------------------------------------------------------------------------------------------
def test_the_lamp_blinks_while_the_button_is_held_and_stays_lit_once_it_is_heard(
    machine: RomMachine, contents: Contents
):
    before = _before(button=Button.HELD)
    set_up(machine, contents, before)
    machine.begin(warm=True, button=True)
    machine.wait_for(HELD)
    samples = [machine.lamp()]
    while "factory reset asked for" not in machine.console():
        samples.append(machine.lamp())
    changes = sum(one != other for one, other in pairwise(samples))
    assert changes >= 6, "ten blinks are twenty changes; a busy host may miss some"
    assert not differences(before, boot(before), machine.finish())


def test_a_button_let_go_early_changes_nothing_and_leaves_the_lamp_dark(machine: RomMachine, contents: Contents):
    check(machine, contents, _before(button=Button.RELEASED))
    check(machine, contents, _before(fresh_state(), button=Button.RELEASED, ram=Ram(button=1)))


@pytest.mark.parametrize(
    ("keys", "button"), [(b"\x03", Button.RELEASED), (b"\r\nrun hold_button\r\n\x1b[A#;x", Button.HELD)], ids=repr
)
def test_keys_during_the_hold_never_make_a_reset_and_never_stop_the_boot(
    machine: RomMachine, contents: Contents, keys: bytes, button: Button
):
    before = _before(button=button)
    set_up(machine, contents, before)
    machine.begin(warm=True, button=True)
    machine.wait_for(HELD)
    machine.type(keys)
    assert not differences(before, boot(before), machine.finish())


# --- the boot state ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("broken", [(False, False), (True, False), (False, True)], ids=["both", "second", "first"])
def test_a_boot_state_that_cannot_be_written_never_stops_the_boot(
    machines: MachineFactory, contents: Contents, broken: tuple[bool, bool]
):
    first_sector = names.MIB // 512
    rules = [
        f"inject-error.{n}.event=none,inject-error.{n}.iotype=write,inject-error.{n}.errno=5,inject-error.{n}.sector={sector}"
        for n, sector in enumerate(
            first_sector + offset // 512
            for offset, works in zip(names.BOOTSTATE_COPY_OFFSETS_BYTES, broken, strict=True)
            if not works
        )
    ]
    drive = ",".join(["driver=blkdebug", "image.driver=file", "image.filename={disk}", *rules])
    one = machines(drive=drive)
    exhausted = dataclasses.replace(fresh_state(), a_left=0, b_left=0)
    sick: dict[SlotName, System] = {"a": cases.BAD, "b": cases.GOOD, "r": cases.GOOD}
    inputs = [
        (fresh_state(), SYSTEMS, 0),
        (fresh_state(), sick, 2),
        (fresh_state(), SYSTEMS, 6),
        (exhausted, NOTHING, 9),
    ]
    for turn, (state, systems, unsaved) in enumerate(inputs):
        for copies in ((state, None), (None, state), (None, None)):
            check(one, contents, Before(copies, True, systems, Ram(unsaved=unsaved), writable=broken), turn)


def test_a_sick_slot_is_left_alone_though_no_try_can_be_counted(machines: MachineFactory, contents: Contents):
    rule = "inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=5"
    one = machines(drive=f"driver=blkdebug,image.driver=file,image.filename={{disk}},{rule}")
    set_up(one, contents, _before())
    started, ram = [], Ram()
    for _ in range(10):  # each time the kernel panics, say
        one.begin(warm=True, ram=ram)
        seen = one.finish()
        ram = seen.ram
        started.append((arguments_seen(seen.console) or {})[names.ARG_SLOT])
    assert started == ["a", "a", "a", "b", "b", "b", "r", "r", "r", "a"]


def _raw(**values: str) -> bytes:
    body = b"".join(f"{name}={value}".encode() + b"\0" for name, value in values.items()) + b"\0"
    body = body.ljust(names.BOOTSTATE_COPY_BYTES - 4, b"\0")
    return zlib.crc32(body).to_bytes(4, "little") + body


def test_a_boot_state_with_one_variable_has_defaults_for_the_others(machine: RomMachine, contents: Contents):
    before = Before((BootState(seq=5), None), False, SYSTEMS)
    set_up(machine, contents, before)
    machine.write_copy(0, _raw(seq="5"))
    machine.begin(warm=False)
    seen = machine.finish()
    assert seen.copies[1] == boot(before).copies[1]
    assert steps_seen(seen.console) == boot(before).steps


@pytest.mark.parametrize("name", names.BOOTSTATE_VARS)
@pytest.mark.parametrize(
    "value",
    ["1 init=/bin/sh", '2;echo smuggled;"$(x)" ${main}', "1 root=/dev/vda9 init=/bin/sh' x'", "*ffffffffffffff00", "'"],
)
def test_no_value_of_the_boot_state_becomes_a_command_or_a_kernel_argument(
    machine: RomMachine, contents: Contents, name: str, value: str
):
    set_up(machine, contents, _before())
    copy = _raw(**{"seq": "5", "BOOT_A_GOOD": "1", "running": "1", "last": "a", name: value})
    for number in (0, 1):
        machine.write_copy(number, copy)
    machine.begin(warm=True)
    seen = machine.finish()
    found = arguments_seen(seen.console)
    assert found is not None
    assert found.keys() == appended("a", 1, "slot").keys()
    assert found[names.ARG_RESET] == "0"
    assert "smuggled" not in seen.console.splitlines()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seq", "7fffffffffffffff"), ("seq", "3fffffffffffffff"), ("seq", "1 x"), ("seq", "*0"),
        ("BOOT_A_LEFT", "ffffffff"), ("BOOT_A_GOOD", "'"), ("faults", "*ffffffffffffff00"), ("running", "2' x'"),
    ],
)  # fmt: skip
def test_no_value_of_the_boot_state_keeps_a_sick_slot_for_ever(
    machine: RomMachine, contents: Contents, name: str, value: str
):
    set_up(machine, contents, _before())
    for number in (0, 1):
        machine.write_copy(number, _raw(**{"seq": "5", "last": "a", name: value}))
    started, ram = [], Ram()
    for _ in range(12):  # whatever starts panics
        machine.begin(warm=True, ram=ram)
        seen = machine.finish()
        ram = seen.ram
        started.append((arguments_seen(seen.console) or {})[names.ARG_SLOT])
    assert set(started) == {"a", "b", "r"}


# --- the watchdog --------------------------------------------------------------------------------------------------------
def test_a_kernel_that_hangs_is_reset_by_the_watchdog_and_after_three_times_the_other_slot_boots(
    machine: RomMachine, contents: Contents
):
    set_up(machine, contents, _before())
    contents.write(machine, "a", contents.hanging)
    machine.begin(warm=False, stop_at_reset=False)
    seen = machine.finish()
    started = [step.subject for step in steps_seen(seen.console) if step.say is Say.STARTS]
    assert started == ["a", "a", "a", "a", "b"], "the cold start costs a good slot nothing, then three resets do"
    state = max((copy for copy in seen.copies if copy is not None), key=lambda copy: copy.seq)
    assert (state.a_left, state.b_left, state.faults, state.last) == (0, 2, 4, "b")
    assert [record.slot for record in state.fault_records] == ["a"] * 4


def test_a_driver_that_stops_the_watchdog_and_hangs_is_reset_all_the_same(machine: RomMachine, contents: Contents):
    set_up(machine, contents, _before())
    contents.write(machine, "a", contents.stopping)
    machine.begin(warm=True)
    machine.wait_for("tiny: started")
    assert machine.finish().reason == "guest-reset"


# --- nothing left --------------------------------------------------------------------------------------------------------
def test_with_nothing_left_it_waits_longer_each_time_and_counts_no_fault(machine: RomMachine, contents: Contents):
    set_up(machine, contents, Before((fresh_state(), None), False, NOTHING))
    machine.begin(warm=False, stop_at_reset=False)
    machine.wait_for("trying again in 80 s")
    seen = machine.finish("trying again in 160 s")
    waits = [step.subject for step in steps_seen(seen.console) if step.say is Say.WAIT]
    assert waits == ["10", "20", "40", "80", "160"]
    state = max((copy for copy in seen.copies if copy is not None), key=lambda copy: copy.seq)
    assert (state.faults, state.running) == (0, False), "nothing ran, so no reset was an exception"


def test_a_safe_mode_system_that_fails_three_times_does_not_bar_the_way_to_a_slot(
    machine: RomMachine, contents: Contents
):
    state = dataclasses.replace(fresh_state(), faults=8, a_left=0, b_left=0, last="r")
    started = []
    before = _before(state)
    set_up(machine, contents, before)
    ram = Ram()
    for _ in range(5):
        machine.begin(warm=True, ram=ram)
        seen = machine.finish()
        ram = seen.ram
        started += [step.subject for step in steps_seen(seen.console) if step.say is Say.STARTS]
    assert started[:4] == ["r", "r", "r", "a"]


def test_the_words_in_ram_lie_in_the_reserved_page():
    words = [bootenv.MAGIC_ADDRESS, *WORDS.values()]
    assert len(set(words)) == len(words)
    assert all(0x40300000 <= word < 0x40301000 and word % 4 == 0 for word in words)
