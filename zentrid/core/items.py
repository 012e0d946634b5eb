"""Applications and files that bundles bring: what a slot's set holds, what a release makes of it, and what a start finds.

Each slot has a set of its own, so firmware that goes back finds the applications and files that it ran with. A release without
firmware makes a new set for the running slot, on trial until it is healthy. Pure: the disk is `adapters.items`'s business.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from zentrid.bundle.fields import Fields
from zentrid.bundle.manifest import (
    DATA_TYPES,
    MAX_ITEMS,
    Item,
    ItemType,
    Manifest,
    is_safe_path,
)
from zentrid.bundle.tree import BLOCK_BYTES, blocks_for
from zentrid.core.apps import NAME_PATTERN, Package
from zentrid.core.names import SAFE_SLOT, SlotName
from zentrid.core.update import Event, Refusal, State
from zentrid.core.version import Version
from zentrid.errors import ZentriError

MAX_HELD: Final = 2 * MAX_ITEMS
"""Applications and files in one set."""
MAX_SET_BYTES: Final = 256 * 1024
TRIAL_STARTS: Final = 3
"""So often the supervisor may start while a set is on trial, the switch included; as a slot has three tries."""
HEALTHY: Final = -1
"""Instead of a number of starts: the trial was passed, and what follows from that is under way."""
MAX_ENDS: Final = 3
"""So often an application on trial may end by itself."""
PROGRAM_KINDS: Final = ("elf", "script")
TAR: Final = "tar"

RESERVE_BYTES: Final = 16 * 1024 * 1024
"""What stays free on the data partition for settings, logs and reports."""
RESERVE_INODES: Final = 512
INODES_EACH: Final = 8
"""What an item may need besides the files in it: folders, links, the set itself."""

MAX_MEMBERS: Final = 4096
"""Files and folders in one application."""
MAX_DEPTH: Final = 16
MAX_MEMBER_CHARS: Final = 200

_ELF_32, _ELF_64 = 1, 2
_ELF_MACHINES: Final = {"aarch64": (_ELF_64, 183), "armv7l": (_ELF_32, 40), "x86_64": (_ELF_64, 62)}
"""Class and machine in the ELF header, by the processor's name as the kernel says it."""
_ELF_LITTLE: Final = 1


class SetError(ZentriError):
    """A set's description cannot be used."""

    reason = "bad_set"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"set.json: {where} {problem}" if where else f"set.json {problem}")


@dataclass(frozen=True)
class Held:
    """One application or file in a set."""

    type: ItemType
    name: str
    version: str
    """Its own, or the release's that brought it."""
    release: str
    """The release that brought it."""
    store: str
    """Its folder or file in the store."""
    path: str = ""
    """Of a file: where it is, relative to the folder for files."""


@dataclass(frozen=True)
class ItemSet:
    """What a slot has besides its firmware."""

    release: str
    """The newest release that made this set: what the device says it runs."""
    firmware: str
    """The firmware that it was made for."""
    items: tuple[Held, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the set's `set.json`."""
        return json.dumps(
            {"release": self.release, "firmware": self.firmware, "items": [vars(held) for held in self.items]}, indent=1
        ).encode()


def parse_set(data: bytes) -> ItemSet:
    """Read a `set.json`. Raises SetError."""
    if len(data) > MAX_SET_BYTES:
        raise SetError("", f"is larger than {MAX_SET_BYTES} bytes")
    try:
        fields = Fields(json.loads(data), "", SetError)
    except (ValueError, RecursionError):
        raise SetError("", "is no JSON in UTF-8") from None
    return ItemSet(
        fields.text("release"),
        fields.text("firmware"),
        tuple(_held(Fields(entry, "items", SetError)) for entry in fields.array("items", MAX_HELD)),
    )


def _held(fields: Fields) -> Held:
    found = fields.text("type")
    kind = next((known for known in DATA_TYPES if known == found), None)
    if kind is None:
        raise SetError("items.type", "is unknown")
    held = Held(kind, *(fields.text(name) for name in ("name", "version", "release", "store", "path")))
    if not is_safe_path(held.name) or not is_safe_path(held.store) or "/" in held.name + held.store:
        raise SetError("items.name", "is no name")
    if (kind == "file") != is_safe_path(held.path):
        raise SetError("items.path", "is no path")
    return held


def store_name(item: Item, release: Version) -> str:
    """Return the name in the store of what `item` becomes on the disk: the same name means the same content.

    What an application's folder holds depends also on what its `app.json` is made from.
    """
    if item.type == "file":
        return f"{item.root_hash}.{'program' if item.kind in PROGRAM_KINDS else 'file'}"
    made_from = "\n".join((item.name, str(item.version or release), item.entry or "", item.kind or ""))
    return f"{item.root_hash}.app-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"


def next_set(base: ItemSet | None, manifest: Manifest, firmware: str) -> ItemSet:
    """Return the set after `manifest`: what `base` has stays, unless it is replaced or removed."""
    new = [
        Held(
            item.type, item.name, str(item.version or manifest.version), str(manifest.version),
            store_name(item, manifest.version), item.path or "",
        )
        for item in data_items(manifest)
    ]  # fmt: skip
    gone = {(held.type, held.name) for held in new} | {(removal.type, removal.name) for removal in manifest.remove}
    paths = {held.path for held in new if held.type == "file"}
    kept = [
        held
        for held in (base.items if base else ())
        if (held.type, held.name) not in gone and not (held.type == "file" and held.path in paths)
    ]
    items = sorted((*kept, *new), key=lambda held: (held.type, held.name))
    return ItemSet(str(manifest.version), firmware, tuple(items))


def data_items(manifest: Manifest) -> list[Item]:
    """Return the applications and files of a release."""
    return [item for item in manifest.items if item.type in DATA_TYPES]


def changed_apps(before: ItemSet | None, after: ItemSet) -> frozenset[str]:
    """Return the names of the applications that are new, other or gone."""

    def apps(held_set: ItemSet | None) -> set[tuple[str, str]]:
        return {(held.name, held.store) for held in (held_set.items if held_set else ()) if held.type == "app"}

    return frozenset(name for name, _ in apps(before) ^ apps(after))


def release_of(held_set: ItemSet | None, firmware: str) -> str:
    """Return the newest release that a slot has: of its set, if that was made for the firmware that runs."""
    return held_set.release if held_set is not None and held_set.firmware == firmware else firmware


def generated_package(item_name: str, version: str, entry: str) -> bytes:
    """Return the `app.json` of an application whose payload brings none."""
    return json.dumps({"name": item_name, "version": version, "command": [entry]}, indent=1).encode()


def program_of(package: Package) -> str | None:
    """Return the package's own program, relative to its folder; None if it starts one of the system."""
    return None if package.command[0].startswith("/") else package.command[0]


def elf_problem(header: bytes, machine: str) -> str | None:
    """Return why a file that begins with `header` (20 bytes) is no program for `machine`; None: it may be one.

    `machine` as the kernel names it. What is no ELF file may be a script. Source: the ELF header, e_ident and e_machine.
    """
    expected = _ELF_MACHINES.get(machine)
    if not header.startswith(b"\x7fELF") or expected is None:
        return None
    word, wanted = expected
    found = int.from_bytes(header[18:20], "little")
    if header[4:6] != bytes((word, _ELF_LITTLE)) or found != wanted:
        return f"is a program for another processor (ELF machine {found}, this device has {wanted}, {machine})"
    return None


# --- admission --------------------------------------------------------------------------------------------------------
def items_refusal(manifest: Manifest, base: ItemSet | None, running: SlotName) -> Refusal | None:
    """Return why a release's applications and files must not be installed; None: they may be."""
    if not manifest.has_firmware and running == SAFE_SLOT:
        return Refusal(
            "no_firmware",
            f"release {manifest.version} holds only applications and files, which do not repair a device in safe mode; "
            "install a release with firmware: ota -b <version>",
        )
    for item in data_items(manifest):
        problem = _item_problem(item)
        if problem:
            return Refusal("bad_item", f"{item.type} {item.name} of release {manifest.version} {problem}")
    after = next_set(base, manifest, "")
    if len(after.items) > MAX_HELD:
        return Refusal("too_many_items", f"the device would hold {len(after.items)} items, {MAX_HELD} are allowed")
    paths = {held.path for held in after.items if held.type == "file"}
    for path in sorted(paths):
        above = next((parent for parent in _parents(path) if parent in paths), None)
        if above:
            return Refusal("bad_item", f"file {path} needs a folder where {above} is a file; remove that one first")
    return None


def _item_problem(item: Item) -> str | None:
    if item.type == "file":
        return None
    if not NAME_PATTERN.fullmatch(item.name):
        return "has a name that no application may have (lower-case letters, digits, '-', '_', at most 32)"
    if item.kind != TAR and item.kind not in PROGRAM_KINDS:
        return "is neither a program nor a tar with one; build the bundle again"
    if item.kind in PROGRAM_KINDS and item.entry is None:
        return "has no program to start; build the bundle again"
    return None


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


@dataclass(frozen=True)
class Room:
    """What a file system has left."""

    free_bytes: int
    free_inodes: int


def room_needed(items: list[Item]) -> Room:
    """Return what storing `items` takes at most while it is under way; a tar is there twice until it is unpacked."""
    size_bytes = sum(
        blocks_for(item.size_bytes) * BLOCK_BYTES * (2 if item.type == "app" and item.kind == TAR else 1)
        for item in items
    )
    return Room(size_bytes, INODES_EACH * (len(items) + 1))


def room_refusal(needed: Room, free: Room) -> Refusal | None:
    """Return why there is too little room, the reserve kept; None: there is enough."""
    if needed.free_bytes + RESERVE_BYTES > free.free_bytes:
        return Refusal(
            "low_space",
            f"the applications and files need {needed.free_bytes} bytes on the data partition, which has "
            f"{max(0, free.free_bytes - RESERVE_BYTES)} to give; delete what is not needed there",
        )
    if needed.free_inodes + RESERVE_INODES > free.free_inodes:
        return Refusal(
            "low_space",
            f"the applications and files need {needed.free_inodes} files on the data partition, which has "
            f"{max(0, free.free_inodes - RESERVE_INODES)} to give; delete what is not needed there",
        )
    return None


# --- what a start finds -----------------------------------------------------------------------------------------------
def items_event_at_start(state: State, *, switched: bool, at_home: bool, given_up: bool, starts: int) -> Event | None:
    """Return what the journal's `state` and the disk say happened to a set; None: nothing, or its trial goes on.

    `switched`: the slot's link names the new set. `at_home`: the slot whose set it is runs. `given_up`: the journal says that
    going back had begun. `starts`: so often the supervisor has started during the trial, or HEALTHY.
    """
    if state in (State.DOWNLOADING, State.VERIFYING):
        return Event.FAIL
    if state is State.ACTIVATING:
        return Event.SWITCHED if switched else Event.FAIL
    if state is State.CONFIRMING and starts == HEALTHY:
        return Event.ITEMS_HEALTHY
    if state is State.CONFIRMING and (given_up or not at_home or starts >= TRIAL_STARTS):
        return Event.ITEMS_UNHEALTHY
    return None
