"""The update's states and the rules of admission. Everything that affects a transition is in this file.

The state is durable before an effect runs, and every effect may run again after a power cut:

    idle → checking → downloading → verifying → activating → rebooting → confirming → idle
             any of these → failed → idle; before activating also → cancelled → idle; after it → rolled back → idle
             rebooting → reverting → cancelled → idle: an installed release is taken back before it was started

A release without firmware takes the same way without the restart: it is activated by switching the set of applications and
files, and confirmed, or taken back, in the same boot.

Only what happens from `downloading` on changes anything on the device, so that is what the journal remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from zentrid.bundle.manifest import Item, Manifest
from zentrid.bundle.tree import BLOCK_BYTES, blocks_for, tree_bytes_for
from zentrid.core.bootstate import BootState
from zentrid.core.names import SAFE_SLOT, SLOTS, SlotName
from zentrid.core.version import Version
from zentrid.errors import ZentriError


class State(Enum):
    """Where an update stands."""

    IDLE = "idle"
    CHECKING = "checking"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    ACTIVATING = "activating"
    REBOOTING = "rebooting"
    REVERTING = "reverting"
    CONFIRMING = "confirming"


class Event(Enum):
    """What can happen to an update."""

    START = "start"
    NOTHING_TO_DO = "nothing to do"
    ADMITTED = "admitted"
    WRITTEN = "written"
    VERIFIED = "verified"
    ACTIVATED = "activated"
    REVERTED = "reverted"
    BOOTED_NEW = "booted new"
    BOOTED_OLD = "booted old"
    HEALTHY = "healthy"
    ITEMS_ADMITTED = "items admitted"
    ITEMS_VERIFIED = "items verified"
    SWITCHED = "switched"
    ITEMS_HEALTHY = "items healthy"
    ITEMS_UNHEALTHY = "items unhealthy"
    CANCEL = "cancel"
    FAIL = "fail"


class Effect(Enum):
    """What is to be done after the new state is durable. Each may be done again."""

    ASK_SERVER = "ask server"
    TAKE_TRIES_FROM_TARGET = "take tries from target"
    FILL_TARGET = "fill target"
    READ_BACK = "read back"
    ACTIVATE_TARGET = "activate target"
    REBOOT = "reboot"
    AWAIT_HEALTH = "await health"
    MARK_GOOD = "mark good"
    CLEAR_FAULTS = "clear faults"
    FILL_STORE = "fill store"
    SWITCH_SET = "switch set"
    RESTART_APPLICATION = "restart application"
    SWITCH_BACK = "switch back"
    DROP_FAULTS = "drop faults"
    RAISE_FLOOR = "raise floor"
    STOP_WORKER = "stop worker"
    REPORT_INSTALLED = "report installed"
    REPORT_ROLLED_BACK = "report rolled back"
    REPORT_FAILED = "report failed"
    REPORT_CANCELLED = "report cancelled"


class Step(NamedTuple):
    """One entry of the table."""

    state: State
    effects: tuple[Effect, ...] = ()


class BadTransitionError(ZentriError):
    """An event that cannot happen in this state: a mistake in the program, or the wrong moment for a command."""

    reason = "bad_transition"

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(
            f"an update that is {state.value} cannot take the step {event.value!r}; wait until it has ended"
        )
        self.state = state
        self.event = event


_FAILED = Step(State.IDLE, (Effect.STOP_WORKER, Effect.REPORT_FAILED))
_CANCELLED = Step(State.IDLE, (Effect.STOP_WORKER, Effect.REPORT_CANCELLED))
_ROLLED_BACK = Step(State.IDLE, (Effect.REPORT_ROLLED_BACK,))
_CONFIRMED = Step(State.IDLE, (Effect.MARK_GOOD, Effect.CLEAR_FAULTS, Effect.REPORT_INSTALLED))

TABLE: Final[Mapping[tuple[State, Event], Step]] = {
    (State.IDLE, Event.START): Step(State.CHECKING, (Effect.ASK_SERVER,)),
    (State.CHECKING, Event.NOTHING_TO_DO): Step(State.IDLE),
    (State.CHECKING, Event.ADMITTED): Step(State.DOWNLOADING, (Effect.TAKE_TRIES_FROM_TARGET, Effect.FILL_TARGET)),
    (State.CHECKING, Event.CANCEL): _CANCELLED,
    (State.CHECKING, Event.FAIL): _FAILED,
    (State.DOWNLOADING, Event.WRITTEN): Step(State.VERIFYING, (Effect.READ_BACK,)),
    (State.DOWNLOADING, Event.CANCEL): _CANCELLED,
    (State.DOWNLOADING, Event.FAIL): _FAILED,
    (State.VERIFYING, Event.VERIFIED): Step(State.ACTIVATING, (Effect.ACTIVATE_TARGET,)),
    (State.VERIFYING, Event.CANCEL): _CANCELLED,
    (State.VERIFYING, Event.FAIL): _FAILED,
    (State.ACTIVATING, Event.ACTIVATED): Step(State.REBOOTING, (Effect.REBOOT,)),
    (State.ACTIVATING, Event.FAIL): _FAILED,
    # The power went between the boot-state write and the journal's: the boot itself tells that it was done.
    (State.ACTIVATING, Event.BOOTED_NEW): Step(State.CONFIRMING, (Effect.AWAIT_HEALTH,)),
    (State.ACTIVATING, Event.BOOTED_OLD): _ROLLED_BACK,
    (State.REBOOTING, Event.BOOTED_NEW): Step(State.CONFIRMING, (Effect.AWAIT_HEALTH,)),
    (State.REBOOTING, Event.BOOTED_OLD): _ROLLED_BACK,
    (State.REBOOTING, Event.CANCEL): Step(State.REVERTING, (Effect.TAKE_TRIES_FROM_TARGET,)),
    (State.REVERTING, Event.REVERTED): _CANCELLED,
    # The boot state takes no writes: the release stays installed.
    (State.REVERTING, Event.ACTIVATED): Step(State.REBOOTING),
    # The power went before the boot-state write: the release was started after all, and is judged like any other.
    (State.REVERTING, Event.BOOTED_NEW): Step(State.CONFIRMING, (Effect.AWAIT_HEALTH,)),
    (State.REVERTING, Event.BOOTED_OLD): _ROLLED_BACK,
    (State.CONFIRMING, Event.BOOTED_NEW): Step(State.CONFIRMING, (Effect.AWAIT_HEALTH,)),
    (State.CONFIRMING, Event.BOOTED_OLD): _ROLLED_BACK,
    (State.CONFIRMING, Event.HEALTHY): _CONFIRMED,
    # Without firmware: no slot changes, and no restart is needed.
    (State.CHECKING, Event.ITEMS_ADMITTED): Step(State.DOWNLOADING, (Effect.FILL_STORE,)),
    (State.VERIFYING, Event.ITEMS_VERIFIED): Step(State.ACTIVATING, (Effect.SWITCH_SET,)),
    (State.ACTIVATING, Event.SWITCHED): Step(State.CONFIRMING, (Effect.RESTART_APPLICATION, Effect.AWAIT_HEALTH)),
    (State.CONFIRMING, Event.ITEMS_HEALTHY): Step(State.IDLE, (Effect.RAISE_FLOOR, Effect.REPORT_INSTALLED)),
    (State.CONFIRMING, Event.ITEMS_UNHEALTHY): Step(
        State.IDLE, (Effect.SWITCH_BACK, Effect.RESTART_APPLICATION, Effect.DROP_FAULTS, Effect.REPORT_ROLLED_BACK)
    ),
}


def transition(state: State, event: Event) -> Step:
    """Return the next state and what is to be done once it is durable. Raises BadTransitionError."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise BadTransitionError(state, event) from None


WHY_NOT_NOW: Final[Mapping[State, str]] = {
    State.ACTIVATING: "an update is being activated; restart the board",
    State.REBOOTING: "an update is installed and waits for a restart; use: reboot; or take it back with: ota cancel",
    State.REVERTING: "an installed update is being taken back; try again in a moment",
    State.CONFIRMING: "the running release has yet to become healthy; its fallback is not overwritten before",
}
"""The states that an earlier update may be in when a new one is asked for, and what a person is told then."""


def can_cancel(state: State) -> bool:
    """Tell whether an update in this state may still be cancelled: its release was not started yet."""
    return (state, Event.CANCEL) in TABLE


# --- what a start finds -------------------------------------------------------------------------------------
def event_at_start(state: State, target: SlotName, running: SlotName, boot: BootState) -> Event | None:
    """Return what the journal's `state` and the disk say happened while nobody was watching; None: still waiting.

    Only `activate` puts a target first in the boot order (see `bootstate.prepare_target`), so the boot state tells
    whether an interrupted activation was done. A target that is first and has tries left has yet to be booted, or will
    be again when the safe-mode system that runs now has done its work.
    """
    if state in (State.IDLE, State.CHECKING):
        return None
    if state in (State.DOWNLOADING, State.VERIFYING):
        return Event.FAIL
    if running == target:
        return Event.BOOTED_NEW
    activated = boot.order[0] == target
    if state is State.REVERTING:
        # Tries used up: it was started before the boot state could be changed, and never came up.
        return Event.BOOTED_OLD if activated and not boot.left(target) else Event.REVERTED
    if state is State.ACTIVATING and not activated:
        return Event.FAIL
    if activated and boot.left(target) > 0 and (state is not State.CONFIRMING or running == SAFE_SLOT):
        return Event.ACTIVATED if state is State.ACTIVATING else None
    return Event.BOOTED_OLD


# --- which slot ---------------------------------------------------------------------------------------------
def choose_target(boot: BootState, running: SlotName) -> SlotName:
    """Return the slot to overwrite: the one not running; from the safe-mode system the worse one.

    Worse: never marked good, then fewer tries left, then later in the boot order.
    """
    if running in SLOTS:
        return next(slot for slot in SLOTS if slot != running)
    return min(SLOTS, key=lambda slot: (boot.good(slot), boot.left(slot), -boot.order.index(slot)))


# --- admission ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Capacity:
    """What the target slot can take (bytes)."""

    kernel_bytes: int
    rootfs_bytes: int


NO_FLOOR: Final = Version(0, 0, 0)


@dataclass(frozen=True)
class Device:
    """What admission depends on."""

    product: str
    """Empty when no release was ever identified (a blank development image): any product is admitted."""
    board: str
    running: Version
    floor: Version
    capacity: Capacity
    boot_floor: Version = NO_FLOOR
    """The boot script starts no older release: one would only take the fallback's place."""


class Refusal(NamedTuple):
    """Why a release is not installed: a stable word and a sentence."""

    reason: str
    sentence: str


def refusal(manifest: Manifest, device: Device) -> Refusal | None:
    """Return why `manifest` must not be installed on `device`; None: it may be."""
    return next((found for found in _refusals(manifest, device) if found is not None), None)


def _refusals(manifest: Manifest, device: Device) -> Iterable[Refusal | None]:
    yield _wrong_device(manifest, device)
    yield _too_old(manifest, device)
    yield _incomplete(manifest)
    kernel, rootfs = manifest.item("kernel"), manifest.item("rootfs")
    yield _too_large(kernel, device.capacity.kernel_bytes, with_tree=False)
    yield _too_large(rootfs, device.capacity.rootfs_bytes, with_tree=True)


def _wrong_device(manifest: Manifest, device: Device) -> Refusal | None:
    if device.product and manifest.product != device.product:
        return Refusal(
            "wrong_product", f"the release is for product {manifest.product}, this device is a {device.product}"
        )
    if device.board not in manifest.compatible:
        boards = ", ".join(manifest.compatible)
        return Refusal("wrong_board", f"the release is for board {boards}, this device is board {device.board}")
    return None


def _too_old(manifest: Manifest, device: Device) -> Refusal | None:
    version, lowest = manifest.version, manifest.allow_downgrade_to
    if version < device.floor and (lowest is None or version < lowest):
        return Refusal(
            "below_floor",
            f"release {version} is older than {device.floor}, the oldest that this device may install; "
            "ask for a newer release, or for one that is signed to allow going back",
        )
    if version < device.boot_floor:
        # The signed exception is about the install floor; nothing lowers this one, so the release could never start.
        return Refusal(
            "below_boot_floor",
            f"release {version} is older than {device.boot_floor}, the oldest that this device still starts; "
            "ask for a newer release",
        )
    if manifest.min_version is not None and device.running < manifest.min_version:
        return Refusal(
            "min_version",
            f"release {version} needs at least version {manifest.min_version} to be running, this device runs "
            f"{device.running}; install {manifest.min_version} first",
        )
    return None


def _incomplete(manifest: Manifest) -> Refusal | None:
    if manifest.has_firmware and not (manifest.item("kernel") and manifest.item("rootfs")):
        # The FIT holds the root hash, so a kernel and a rootfs of different releases would never boot.
        return Refusal("no_firmware", f"release {manifest.version} does not hold a kernel and a rootfs together")
    return None


def _too_large(item: Item | None, capacity_bytes: int, *, with_tree: bool) -> Refusal | None:
    if item is None:
        return None
    blocks = blocks_for(item.size_bytes)
    needed = blocks * BLOCK_BYTES + (tree_bytes_for(blocks) if with_tree else 0)
    if needed <= capacity_bytes:
        return None
    return Refusal(
        "too_large",
        f"the {item.type} of the release takes {needed} bytes, the slot has {capacity_bytes}; build a smaller image",
    )
