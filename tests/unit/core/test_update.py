"""The update's state table, what a start finds, and the rules of admission."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.bundle.manifest import Item, Manifest
from zentrid.core import bootstate
from zentrid.core.bootstate import BootState
from zentrid.core.names import SlotName
from zentrid.core.update import (
    TABLE,
    BadTransitionError,
    Capacity,
    Device,
    Effect,
    Event,
    State,
    can_cancel,
    choose_target,
    event_at_start,
    refusal,
    transition,
)
from zentrid.core.version import Version

V = Version


def test_every_state_can_be_left_and_reached() -> None:
    assert {state for state, _ in TABLE} == set(State)
    assert {step.state for step in TABLE.values()} == set(State)


def test_nothing_is_activated_that_was_not_verified() -> None:
    activating = [key for key, step in TABLE.items() if Effect.ACTIVATE_TARGET in step.effects]
    assert activating == [(State.VERIFYING, Event.VERIFIED)]
    assert all(state is State.DOWNLOADING for (state, event) in TABLE if event is Event.WRITTEN)


def test_the_target_loses_its_tries_before_it_is_filled() -> None:
    effects = TABLE[State.CHECKING, Event.ADMITTED].effects
    assert effects.index(Effect.TAKE_TRIES_FROM_TARGET) < effects.index(Effect.FILL_TARGET)


def test_every_end_of_an_update_that_began_is_reported() -> None:
    reports = {Effect.REPORT_CANCELLED, Effect.REPORT_FAILED, Effect.REPORT_INSTALLED, Effect.REPORT_ROLLED_BACK}
    for (state, _event), step in TABLE.items():
        if step.state is State.IDLE and state is not State.CHECKING:
            assert len(reports & set(step.effects)) == 1


@pytest.mark.parametrize("state", list(State))
def test_cancelling_is_possible_until_the_release_is_started(state: State) -> None:
    assert can_cancel(state) == (state in (State.CHECKING, State.DOWNLOADING, State.VERIFYING, State.REBOOTING))


def test_an_impossible_step_is_an_error() -> None:
    with pytest.raises(BadTransitionError, match="idle cannot take the step 'verified'"):
        transition(State.IDLE, Event.VERIFIED)


READY = BootState(a_good=True, b_good=True)
PREPARED = bootstate.prepare_target(READY, "b")
ACTIVATED = bootstate.activate(PREPARED, "b")
SPENT = replace(ACTIVATED, b_left=0)


@pytest.mark.parametrize(
    ("state", "running", "boot", "event"),
    [
        (State.IDLE, "a", READY, None),
        (State.CHECKING, "a", READY, None),
        (State.DOWNLOADING, "a", PREPARED, Event.FAIL),
        (State.VERIFYING, "a", PREPARED, Event.FAIL),
        (State.ACTIVATING, "a", PREPARED, Event.FAIL),
        (State.ACTIVATING, "a", ACTIVATED, Event.ACTIVATED),
        (State.ACTIVATING, "b", ACTIVATED, Event.BOOTED_NEW),
        (State.ACTIVATING, "a", SPENT, Event.BOOTED_OLD),
        (State.REBOOTING, "a", ACTIVATED, None),
        (State.REBOOTING, "b", ACTIVATED, Event.BOOTED_NEW),
        (State.REBOOTING, "a", SPENT, Event.BOOTED_OLD),
        (State.REBOOTING, "r", ACTIVATED, None),
        (State.REBOOTING, "r", SPENT, Event.BOOTED_OLD),
        (State.REVERTING, "a", ACTIVATED, Event.REVERTED),
        (State.REVERTING, "a", PREPARED, Event.REVERTED),
        (State.REVERTING, "r", ACTIVATED, Event.REVERTED),
        (State.REVERTING, "b", ACTIVATED, Event.BOOTED_NEW),
        (State.REVERTING, "a", SPENT, Event.BOOTED_OLD),
        (State.CONFIRMING, "b", ACTIVATED, Event.BOOTED_NEW),
        (State.CONFIRMING, "a", SPENT, Event.BOOTED_OLD),
        (State.CONFIRMING, "a", ACTIVATED, Event.BOOTED_OLD),
        (State.CONFIRMING, "r", ACTIVATED, None),
    ],
)
def test_what_a_start_finds(state: State, running: SlotName, boot: BootState, event: Event | None) -> None:
    found = event_at_start(state, "b", running, boot)
    assert found == event
    if found is not None:
        transition(state, found)


@given(st.sampled_from(["a", "b"]), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans(), st.booleans())
def test_the_target_is_never_what_runs(
    running: SlotName, a_left: int, b_left: int, a_good: bool, b_good: bool, swapped: bool
) -> None:
    order: tuple[SlotName, ...] = ("b", "a") if swapped else ("a", "b")
    boot = BootState(order=order, a_left=a_left, b_left=b_left, a_good=a_good, b_good=b_good)
    assert choose_target(boot, running) != running
    assert choose_target(boot, "r") in ("a", "b")


@pytest.mark.parametrize(
    ("boot", "target"),
    [
        (BootState(a_good=True, b_good=False), "b"),
        (BootState(a_good=False, b_good=True), "a"),
        (BootState(a_good=True, b_good=True, a_left=0, b_left=3), "a"),
        (BootState(a_good=True, b_good=False, a_left=0, b_left=3), "b"),
        (BootState(order=("a", "b")), "b"),
        (BootState(order=("b", "a")), "a"),
    ],
)
def test_from_safe_mode_the_worse_slot_is_the_target(boot: BootState, target: SlotName) -> None:
    assert choose_target(boot, "r") == target


MIB = 1024 * 1024
DEVICE = Device("DEMO-VIRT_SENSOR", "virt", V(1, 2, 0), V(1, 2, 0), Capacity(16 * MIB, 160 * MIB))
ITEMS = (
    Item(type="kernel", name="kernel", size_bytes=8 * MIB, root_hash="11" * 32),
    Item(type="rootfs", name="rootfs", size_bytes=88 * MIB, root_hash="22" * 32),
)
MANIFEST = Manifest("DEMO-VIRT_SENSOR", V(1, 3, 0), ("virt",), ITEMS)


def rootfs_of(size_bytes: int) -> tuple[Item, ...]:
    return (ITEMS[0], replace(ITEMS[1], size_bytes=size_bytes))


@pytest.mark.parametrize(
    ("manifest", "device", "reason", "says"),
    [
        (replace(MANIFEST, product="ACME-VIRT_OVEN"), DEVICE, "wrong_product", "ACME-VIRT_OVEN"),
        (replace(MANIFEST, compatible=("rpi", "qemu")), DEVICE, "wrong_board", "rpi, qemu"),
        (replace(MANIFEST, version=V(1, 1, 9)), DEVICE, "below_floor", "older than 1.2.0"),
        (
            replace(MANIFEST, version=V(1, 1, 0), allow_downgrade_to=V(1, 1, 0)),
            replace(DEVICE, floor=V(1, 2, 0)),
            None,
            "",
        ),
        (
            replace(MANIFEST, version=V(1, 1, 0), allow_downgrade_to=V(1, 0, 0)),
            replace(DEVICE, boot_floor=V(1, 1, 1)),
            "below_boot_floor",
            "still starts",
        ),
        (
            replace(MANIFEST, version=V(1, 1, 1), allow_downgrade_to=V(1, 0, 0)),
            replace(DEVICE, boot_floor=V(1, 1, 1)),
            None,
            "",
        ),
        (replace(MANIFEST, version=V(2, 0, 0), min_version=V(1, 3, 0)), DEVICE, "min_version", "install 1.3.0 first"),
        (replace(MANIFEST, items=ITEMS[:1]), DEVICE, "no_firmware", "kernel and a rootfs"),
        (replace(MANIFEST, items=ITEMS[1:]), DEVICE, "no_firmware", "kernel and a rootfs"),
        (replace(MANIFEST, items=rootfs_of(160 * MIB)), DEVICE, "too_large", "the slot has 167772160"),
        (replace(MANIFEST, items=rootfs_of(158 * MIB)), DEVICE, None, ""),
        (MANIFEST, replace(DEVICE, capacity=Capacity(8 * MIB - 1, 160 * MIB)), "too_large", "kernel"),
        (MANIFEST, replace(DEVICE, capacity=Capacity(8 * MIB, 160 * MIB)), None, ""),
        (MANIFEST, DEVICE, None, ""),
        (MANIFEST, replace(DEVICE, product=""), None, ""),
    ],
)
def test_admission(manifest: Manifest, device: Device, reason: str | None, says: str) -> None:
    found = refusal(manifest, device)
    assert (found.reason if found else None) == reason
    assert says in (found.sentence if found else "")
