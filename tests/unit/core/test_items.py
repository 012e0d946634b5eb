"""Sets of applications and files: what a release makes of one, what is refused, what a start finds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zentrid.bundle.manifest import Item, Manifest, Removal
from zentrid.core.items import (
    HEALTHY,
    MAX_HELD,
    RESERVE_BYTES,
    RESERVE_INODES,
    TRIAL_STARTS,
    Held,
    ItemSet,
    Room,
    SetError,
    changed_apps,
    elf_problem,
    items_event_at_start,
    items_refusal,
    next_set,
    parse_set,
    release_of,
    room_needed,
    room_refusal,
    store_name,
)
from zentrid.core.update import Event, State
from zentrid.core.version import Version

V = Version
FIRST = V(1, 0, 1)


def app(name: str = "arm", root: str = "aa", **fields: Any) -> Item:
    values = {"kind": "elf", "entry": "main", **fields}
    return Item(type="app", name=name, size_bytes=values.pop("size_bytes", 5000), root_hash=root * 32, **values)


def file(path: str, root: str = "bb", **fields: Any) -> Item:
    name = fields.pop("name", path.replace("/", "_"))
    return Item(type="file", name=name, size_bytes=10, root_hash=root * 32, path=path, **{"kind": "data", **fields})


def release(*items: Item, version: Version = FIRST, remove: tuple[Removal, ...] = ()) -> Manifest:
    return Manifest("DEMO-VIRT_SENSOR", version, ("virt",), items, remove=remove)


FIRMWARE = (
    Item(type="kernel", name="kernel", size_bytes=1, root_hash="11" * 32),
    Item(type="rootfs", name="rootfs", size_bytes=1, root_hash="22" * 32),
)


def names(held_set: ItemSet) -> list[tuple[str, str, str]]:
    return [(held.name, held.version, held.release) for held in held_set.items]


def test_what_is_not_named_stays() -> None:
    first = next_set(None, release(app(version=V(3, 0, 0)), file("a/b"), file("c")), "1.0.0")
    assert names(first) == [("arm", "3.0.0", "1.0.1"), ("a_b", "1.0.1", "1.0.1"), ("c", "1.0.1", "1.0.1")]
    second = next_set(first, release(file("c", "cc"), version=V(1, 0, 2), remove=(Removal("file", "a_b"),)), "1.0.0")
    assert names(second) == [("arm", "3.0.0", "1.0.1"), ("c", "1.0.2", "1.0.2")]
    assert (second.release, second.firmware) == ("1.0.2", "1.0.0")
    assert parse_set(second.to_bytes()) == second


def test_a_file_is_replaced_by_its_path_and_by_its_name() -> None:
    first = next_set(None, release(file("a", name="x"), file("b", name="y")), "1.0.0")
    second = next_set(first, release(file("a", name="z"), file("c", name="y"), version=V(1, 0, 2)), "1.0.0")
    assert sorted((held.name, held.path) for held in second.items) == [("y", "c"), ("z", "a")]


def test_the_store_tells_apart_what_is_not_the_same_on_the_disk() -> None:
    one = store_name(app(), V(1, 0, 0))
    others = (app("leg"), app(version=V(2, 0, 0)), app(entry="other"), app(kind="tar"), app(root="cc"))
    assert len({one, *(store_name(other, V(1, 0, 0)) for other in others)}) == 1 + len(others)
    assert store_name(file("x"), V(1, 0, 0)) == store_name(file("y"), V(9, 0, 0)), "the same content is kept once"
    assert store_name(file("x"), V(1, 0, 0)) != store_name(file("x", kind="script"), V(1, 0, 0))


def test_which_applications_changed() -> None:
    before = next_set(None, release(app("same"), app("other"), app("gone"), file("x")), "1.0.0")
    manifest = release(app("other", "cc"), app("new"), file("x", "dd"), remove=(Removal("app", "gone"),))
    assert changed_apps(before, next_set(before, manifest, "1.0.0")) == {"other", "new", "gone"}
    assert changed_apps(None, before) == {"same", "other", "gone"}


def test_a_set_speaks_only_for_its_own_firmware() -> None:
    held = ItemSet("1.0.5", "1.0.0")
    assert release_of(held, "1.0.0") == "1.0.5"
    assert release_of(held, "1.1.0") == "1.1.0"
    assert release_of(None, "1.1.0") == "1.1.0"


# --- reading ------------------------------------------------------------------------------------------------------------
GOOD = Held("file", "a_b", "1.0.0", "1.0.0", "aa.file", "a/b")


@pytest.mark.parametrize(
    "held",
    [
        replace(GOOD, type="kernel"),
        replace(GOOD, name="../x"),
        replace(GOOD, name="a/b"),
        replace(GOOD, store="../../../etc"),
        replace(GOOD, store="a/b"),
        replace(GOOD, path="/etc/passwd"),
        replace(GOOD, path="../x"),
        replace(GOOD, path=""),
        replace(GOOD, type="app", path="x"),
    ],
)
def test_a_set_that_leads_astray_is_none(held: Held) -> None:
    with pytest.raises(SetError):
        parse_set(ItemSet("1.0.0", "1.0.0", (held,)).to_bytes())


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: repr(v).encode())
)
def test_rubbish_raises_nothing_else(data: bytes) -> None:
    with pytest.raises(SetError):
        parse_set(data)


# --- refusals -----------------------------------------------------------------------------------------------------------
HELD = next_set(None, release(file("etc/rules"), file("one")), "1.0.0")


@pytest.mark.parametrize(
    ("manifest", "running", "reason", "says"),
    [
        (release(app()), "a", None, ""),
        (release(*FIRMWARE), "r", None, ""),
        (release(*FIRMWARE, app()), "r", None, ""),
        (release(app()), "r", "no_firmware", "ota -b"),
        (release(remove=(Removal("app", "arm"),)), "r", "no_firmware", "safe mode"),
        (release(app("Arm")), "a", "bad_item", "lower-case"),
        (release(app(kind="data")), "a", "bad_item", "neither a program nor a tar"),
        (release(app(kind=None)), "a", "bad_item", "neither a program nor a tar"),
        (release(app(entry=None)), "a", "bad_item", "no program to start"),
        (release(file("etc/rules/more")), "a", "bad_item", "etc/rules is a file"),
        (release(file("etc")), "a", "bad_item", "etc is a file"),
        (release(file("one/two"), remove=(Removal("file", "one"),)), "a", None, ""),
        (release(file("x"), file("x/y")), "a", "bad_item", "x is a file"),
    ],
)
def test_admission(manifest: Manifest, running: Any, reason: str | None, says: str) -> None:
    found = items_refusal(manifest, HELD, running)
    assert (found.reason if found else None) == reason
    assert says in (found.sentence if found else "")


def test_a_device_holds_only_so_much() -> None:
    many = ItemSet("1.0.0", "1.0.0", tuple(replace(GOOD, name=f"f{n}", path=f"f{n}") for n in range(MAX_HELD)))
    found = items_refusal(release(app()), many, "a")
    assert found is not None
    assert found.reason == "too_many_items"
    assert items_refusal(release(file("f0")), many, "a") is None


def test_room_keeps_a_reserve() -> None:
    needed = room_needed([app(size_bytes=5000), app("leg", kind="tar", size_bytes=5000), file("x")])
    assert needed.free_bytes == (2 + 2 * 2 + 1) * 4096
    enough = Room(needed.free_bytes + RESERVE_BYTES, needed.free_inodes + RESERVE_INODES)
    assert room_refusal(needed, enough) is None
    for less in (
        replace(enough, free_bytes=enough.free_bytes - 1),
        replace(enough, free_inodes=enough.free_inodes - 1),
    ):
        found = room_refusal(needed, less)
        assert found is not None
        assert found.reason == "low_space"


def test_another_processors_program_is_known_by_its_header() -> None:
    arm = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (183).to_bytes(2, "little")
    assert elf_problem(arm, "aarch64") is None
    assert "another processor" in (elf_problem(arm, "x86_64") or "")
    assert "another processor" in (elf_problem(arm[:4] + b"\x01" + arm[5:], "aarch64") or ""), "32 bits"
    assert "another processor" in (elf_problem(arm[:5] + b"\x02" + arm[6:], "aarch64") or ""), "big-endian"
    assert elf_problem(b"#!/bin/sh\n", "aarch64") is None
    arm32 = arm[:4] + b"\x01" + arm[5:18] + (40).to_bytes(2, "little")
    assert elf_problem(arm32, "armv7l") is None
    assert "another processor" in (elf_problem(arm32, "aarch64") or "")
    assert "another processor" in (elf_problem(arm, "armv7l") or "")
    assert "another processor" in (elf_problem(arm32[:4] + b"\x02" + arm32[5:], "armv7l") or ""), "64 bits"
    assert elf_problem(arm, "riscv64") is None, "a processor that this software does not know is not refused"


# --- what a start finds -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("state", "switched", "at_home", "given_up", "starts", "event"),
    [
        (State.DOWNLOADING, False, True, False, 0, Event.FAIL),
        (State.VERIFYING, False, True, False, 0, Event.FAIL),
        (State.ACTIVATING, False, True, False, 0, Event.FAIL),
        (State.ACTIVATING, True, True, False, 0, Event.SWITCHED),
        (State.CONFIRMING, True, True, False, 1, None),
        (State.CONFIRMING, True, True, False, TRIAL_STARTS - 1, None),
        (State.CONFIRMING, True, True, False, TRIAL_STARTS, Event.ITEMS_UNHEALTHY),
        (State.CONFIRMING, True, True, True, 1, Event.ITEMS_UNHEALTHY),
        (State.CONFIRMING, False, True, True, 1, Event.ITEMS_UNHEALTHY),
        (State.CONFIRMING, True, False, False, 1, Event.ITEMS_UNHEALTHY),
        (State.CONFIRMING, True, False, False, HEALTHY, Event.ITEMS_HEALTHY),
        (State.IDLE, False, True, False, 0, None),
    ],
)
def test_what_a_start_finds(
    state: State, switched: bool, at_home: bool, given_up: bool, starts: int, event: Event | None
) -> None:
    found = items_event_at_start(state, switched=switched, at_home=at_home, given_up=given_up, starts=starts)
    assert found == event
