"""Slots, found by their partition labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.device import KERNEL_BYTES, ROOTFS_BYTES, Device, factory_state
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, make_release, make_rootfs
from zentrid.adapters.slots import DiskSlots, SlotError
from zentrid.core import names
from zentrid.core.update import Capacity


@pytest.fixture
def device(tmp_path: Path) -> Device:
    fleet = Fleet(tmp_path / "fleet")
    made = Device(tmp_path / "device", fleet, Doorman(fleet))
    made.flash("a", make_release("1.0.0", make_rootfs(1, blocks=300)))
    made.flash("r", make_release("0.9.0", make_rootfs(2, blocks=300)))
    made.store.write(factory_state())
    made.boot()
    return made


def slots_of(device: Device) -> DiskSlots:
    return DiskSlots(device.store, device.folder / "sys", device.folder / "dev", device.folder / "cmdline")


def test_all_three(device: Device) -> None:
    infos = slots_of(device).slots()
    assert [(info.slot, info.version, info.running, info.tries_left, info.good, info.state) for info in infos] == [
        ("a", "1.0.0", True, 3, True, "running"),
        ("b", None, False, 3, False, "empty"),
        ("r", "0.9.0", False, 0, True, "safe-mode"),
    ]


@pytest.mark.parametrize(
    ("b_left", "order", "word"), [(3, ("a", "b"), "fallback"), (3, ("b", "a"), "next"), (0, ("a", "b"), "bad")]
)
def test_the_words(device: Device, b_left: int, order: tuple[names.SlotName, ...], word: str) -> None:
    device.flash("b", make_release("1.1.0", make_rootfs(3, blocks=300)))
    device.store.update(lambda state: replace(state, b_left=b_left, order=order))
    assert slots_of(device).slots()[1].state == word


@pytest.mark.parametrize("changes", [{"faults": 8}, {"safemode": True}])
def test_with_safe_mode_ahead_it_is_what_comes_next(device: Device, changes: dict[str, object]) -> None:
    device.flash("b", make_release("1.1.0", make_rootfs(3, blocks=300)))
    device.store.update(lambda state: replace(state, b_left=3, order=("b", "a"), **changes))  # type: ignore[arg-type]
    assert [info.state for info in slots_of(device).slots()] == ["running", "fallback", "next"]


def test_a_lost_boot_state_still_gives_a_list(device: Device) -> None:
    device.part("bootstate").write_bytes(bytes(names.MIB))
    assert [info.version for info in slots_of(device).slots()] == ["1.0.0", None, "0.9.0"]


def test_devices_and_sizes(device: Device) -> None:
    slots = slots_of(device)
    assert slots.device("rootfs_b") == device.part("rootfs_b")
    assert slots.capacity("b") == Capacity(KERNEL_BYTES, ROOTFS_BYTES)
    with pytest.raises(SlotError, match="no partition rootfs_z"):
        slots.device("rootfs_z")


def test_the_running_partition_is_known_by_its_partuuid(device: Device) -> None:
    slots = slots_of(device)
    assert slots.running == "a"
    assert [label for label in ("rootfs_a", "rootfs_b", "rootfs_r") if slots.is_running_partition(label)] == [
        "rootfs_a"
    ]
    (device.folder / "sys" / "rootfs_a" / "uevent").write_text("DEVNAME=rootfs_a\nPARTNAME=rootfs_a\n")
    assert slots.is_running_partition("rootfs_a")  # a kernel that does not tell: the board's fixed one counts


def test_the_last_word_of_the_command_line_is_the_boot_scripts(device: Device) -> None:
    (device.folder / "cmdline").write_text("zentri.slot=b quiet zentri.slot=a\n")
    assert slots_of(device).running == "a"


@pytest.mark.parametrize("text", ["", "zentri.slot=", "zentri.slot=c", "zentri.slotx=a"])
def test_a_boot_script_that_did_not_say(device: Device, text: str) -> None:
    (device.folder / "cmdline").write_text(text)
    with pytest.raises(SlotError, match="did not say which slot runs"):
        _ = slots_of(device).running


def test_a_missing_kernel_partition_is_an_empty_slot(device: Device) -> None:
    device.part("kernel_a").unlink()
    assert slots_of(device).slots()[0].version is None
