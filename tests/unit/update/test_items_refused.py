"""Applications and files that are refused: nothing on the device changes, and the sentence says what is wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.device import Device, waiting
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs
from tests.support.items import (
    STAYS,
    Payload,
    add,
    app,
    description,
    device_with,
    file,
    member,
    payload,
    script,
    tar,
    tar_app,
)
from zentrid.adapters.items import ItemFolder
from zentrid.adapters.worker import SubprocessLauncher
from zentrid.core.items import RESERVE_BYTES
from zentrid.update.errors import PayloadError
from zentrid.update.journal import FIRMWARE, Journal
from zentrid.update.unpack import take_over

Offer = Callable[..., Release]


@pytest.fixture(scope="session")
def base_release() -> Release:
    return make_release("1.0.0", make_rootfs(5, blocks=210))


@pytest.fixture
async def scene(tmp_path: Path, fleet: Fleet, doorman: Doorman, base_release: Release) -> Device:
    return await device_with(base_release, tmp_path / "device", fleet, doorman)


@pytest.fixture
def offer(fleet: Fleet, doorman: Doorman) -> Offer:
    def offer(version: str, payloads: list[Payload], firmware: Release | None = None, **fields: Any) -> Release:
        release = add(firmware, version, payloads, **fields)
        fleet.publish(release)
        doorman.offer = version
        return release

    return offer


def items(device: Device) -> Path:
    return device.folder / "data" / "items"


def tree(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*")) if top.exists() else []


def link_of(device: Device) -> Path | None:
    link = items(device) / "slot-a"
    return link.readlink() if link.is_symlink() else None


async def refused(device: Device, reason: str | None) -> str:
    """Try the update; nothing may change. Returns the sentence."""
    before = (tree(items(device) / "sets"), link_of(device), device.snapshot(), device.store.read())
    last = await device.update()
    assert not last.ok, last.message
    assert last.done
    assert (tree(items(device) / "sets"), link_of(device), device.snapshot(), device.store.read()) == before
    assert device.manager.state == "idle"
    if reason is not None:
        assert (await waiting(device))[-1]["reason"] == reason
    return last.message


# --- before anything is fetched -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"version": "0.9.0"}, "below_floor", "older than 1.0.0"),
        ({"version": "1.0.5", "min_version": "1.0.1"}, "min_version", "needs release 1.0.1 to be installed first"),
    ],
)
async def test_the_rules_for_releases_hold(
    scene: Device, offer: Offer, fields: dict[str, Any], reason: str | None, says: str
) -> None:
    scene.doorman.habits.unpublished = {"1.0.1"}
    fields = {"version": "1.0.1", **fields}
    scene.doorman.habits.unpublished = {"1.0.1"}
    offer(fields.pop("version"), [file("x", b"x")], **fields)
    assert says in await refused(scene, reason)
    assert not scene.doorman.asked("payload")


async def test_going_back_needs_a_signature_that_says_so(scene: Device, offer: Offer) -> None:
    offer("1.0.5", [file("x", b"new")])
    assert (await scene.update()).ok
    offer("1.0.4", [file("x", b"old")])
    assert "older than 1.0.5" in await refused(scene, "below_floor")
    offer("1.0.3", [file("x", b"old")], allow_downgrade_to="1.0.3")
    assert (await scene.update()).ok
    assert (scene.manager.version, scene.store.read().floor) == ("1.0.3", (1, 0, 5))
    # Firmware and applications are one sequence of versions.
    firmware = make_release("1.0.2", make_rootfs(5, blocks=210, changed=5))
    offer("1.0.2", [], firmware)
    assert "older than 1.0.5" in await refused(scene, "below_floor")


async def test_applications_do_not_lock_out_the_firmware_that_a_later_release_needs(
    scene: Device, fleet: Fleet, offer: Offer
) -> None:
    offer("1.6.0", [file("x", b"new")])
    assert (await scene.update()).ok
    assert scene.store.read().floor == (1, 6, 0)
    step = make_release("1.5.0", make_rootfs(5, blocks=210, changed=3))
    offer("1.5.0", [], step)
    assert "older than 1.6.0" in await refused(scene, "below_floor")
    goal = make_release("2.0.0", make_rootfs(5, blocks=210, changed=9), min_version="1.5.0")
    scene.known |= {"1.5.0": step, "2.0.0": goal}
    fleet.publish(goal)
    scene.doorman.offer = "2.0.0"
    last = await scene.update()
    assert last.message == "Updated to DEMO-VIRT_SENSOR-1.5.0. After the restart it goes on to 2.0.0."
    await scene.boot().start()
    await scene.manager.on_healthy()
    assert scene.store.read().floor == (1, 6, 0)
    assert scene.manager.next_step is not None
    news = [item async for item in scene.manager.run(scene.manager.next_step)]
    assert news[-1].message == "Updated to DEMO-VIRT_SENSOR-2.0.0."


async def test_too_little_room_is_noticed_before_anything_is_fetched(
    scene: Device, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs

    def nearly_full(path: Any) -> os.statvfs_result:
        found = list(real(path))
        found[4] = (RESERVE_BYTES + 8192) // found[1]  # free blocks for us
        return os.statvfs_result(found)

    offer("1.0.1", [file("x", bytes(20_000))])
    monkeypatch.setattr(os, "statvfs", nearly_full)
    assert "delete what is not needed" in await refused(scene, "low_space")
    assert not scene.doorman.asked("payload")
    offer("1.0.2", [file("x", b"small")])
    assert (await scene.update()).ok


async def test_too_few_inodes(scene: Device, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def no_inodes(path: Any) -> os.statvfs_result:
        found = list(real(path))
        found[7] = 500
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", no_inodes)
    offer("1.0.1", [file("x", b"x")])
    assert "500" not in await refused(scene, "low_space")


async def test_a_device_on_trial_takes_no_new_applications(scene: Device, offer: Offer) -> None:
    scene.store.update(lambda state: type(state)(**{**vars(state), "a_good": False}))
    scene.start()
    await scene.manager.start()
    offer("1.0.1", [file("x", b"x")])
    assert "yet to become healthy" in await refused(scene, "waiting")


async def test_half_a_firmware_is_none(scene: Device, offer: Offer) -> None:
    whole = make_release("1.1.0", make_rootfs(5, blocks=210, changed=5))
    manifest = type(whole.manifest)(**{**vars(whole.manifest), "items": (whole.manifest.items[0],)})
    half = Release(manifest, whole.kernel, whole.rootfs, whole.streams, whole.tree)
    offer("1.1.0", [file("x", b"x")], half)
    assert "kernel and a rootfs together" in await refused(scene, "no_firmware")


async def test_in_safe_mode_only_firmware_helps(scene: Device, offer: Offer) -> None:
    scene.running = "r"
    scene.start()
    await scene.manager.start()
    offer("1.0.1", [file("x", b"x")])
    assert "do not repair a device in safe mode" in await refused(scene, "no_firmware")


# --- payloads that lie --------------------------------------------------------------------------------------------------
async def test_a_payload_that_is_not_the_signed_one(scene: Device, offer: Offer, doorman: Doorman) -> None:
    offer("1.0.1", [file("x", b"x" * 9000)])
    doorman.habits.tamper = lambda path, data: data[:-9] + b"tampered!" if path.startswith("payload") else data
    await refused(scene, "bad_payload")
    assert tree(items(scene) / "store") == []
    doorman.habits.tamper = lambda _path, data: data
    assert (await scene.update()).ok


EVIL: dict[str, tuple[tarfile.TarInfo, bytes]] = {
    "above": (member("../evil"), b"x"),
    "absolute": (member("/tmp/evil"), b"x"),
    "dots": (member("a/../../evil"), b"x"),
    "link out": (member("bin/out", type=tarfile.SYMTYPE, linkname="/etc"), b""),
    "link up": (member("bin/up", type=tarfile.SYMTYPE, linkname="../../x"), b""),
    "hard link": (member("bin/twin", type=tarfile.LNKTYPE, linkname="bin/main"), b""),
    "device": (member("bin/disk", type=tarfile.BLKTYPE, devmajor=8), b""),
    "character": (member("bin/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    "pipe": (member("bin/pipe", type=tarfile.FIFOTYPE), b""),
    "twice": (member("bin/main"), b"other"),
    "deep": (member("/".join(["d"] * 17)), b"x"),
    "long": (member("d/" + "n" * 199), b"x"),
    "control": (member("bin/a\nb"), b"x"),
    "backslash": (member("bin\\b"), b"x"),
}


@pytest.mark.parametrize("name", EVIL)
async def test_a_signed_tar_cannot_leave_its_folder(scene: Device, offer: Offer, name: str, tmp_path: Path) -> None:
    before = tree(tmp_path)
    offer("1.0.1", [tar_app("one", EVIL[name])])
    assert "application one has" in await refused(scene, "bad_payload")
    assert tree(items(scene) / "store") == []
    left = {path for path in set(tree(tmp_path)) - set(before) if "data/" not in path and "/data" not in path}
    assert not left, "something was written elsewhere"


async def test_nothing_is_unpacked_behind_a_link(scene: Device, offer: Offer) -> None:
    folder = member("lib", type=tarfile.SYMTYPE, linkname="bin")
    offer("1.0.1", [tar_app("one", (folder, b""), (member("lib/x"), b"x"))])
    assert "behind a link" in await refused(scene, "bad_payload")


async def test_a_link_to_a_neighbour_is_fine(scene: Device, offer: Offer) -> None:
    link = member("lib/libx.so", type=tarfile.SYMTYPE, linkname="libx.so.1")
    offer("1.0.1", [tar_app("one", (member("lib/libx.so.1"), b"library"), (link, b""))])
    last = await scene.update()
    assert last.ok, last.message
    assert (items(scene) / "slot-a/apps/one/lib/libx.so").read_bytes() == b"library"


async def test_a_file_full_of_holes_claims_too_much(scene: Device, offer: Offer) -> None:
    """A sparse member of a few bytes that would become gigabytes."""
    sparse = member(
        "bin/huge", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    )
    offer("1.0.1", [tar_app("one", (sparse, b"1\n0\n0\n".ljust(512, b"\0")))])
    await refused(scene, "bad_payload")


async def test_too_many_files(scene: Device, offer: Offer) -> None:
    many = tuple((member(f"d/{number}"), b"") for number in range(4100))
    offer("1.0.1", [tar_app("one", *many)])
    assert "more than 4096" in await refused(scene, "bad_payload")


def tar_with(*members: tuple[tarfile.TarInfo, bytes], entry: str = "bin/main") -> Payload:
    return payload("app", "one", tar(*members), kind="tar", entry=entry)


ELF = b"\x7fELF\x01\x02\x01" + bytes(9) + b"\0\2\0\x08" + bytes(100)
"""A program for a processor that no test runs on."""

UNUSABLE = {
    "no tar": (payload("app", "one", b"no tar at all" * 100, kind="tar", entry="x"), "cannot be unpacked"),
    "no program": (tar_with((member("app.json"), description("one"))), "no executable 'bin/main'"),
    "not executable": (
        tar_with((member("bin/main"), b"#!/bin/sh\n"), (member("app.json"), description("one"))), "no executable",
    ),
    "another name": (
        tar_with((member("bin/main", 0o755), b"#!/bin/sh\n"), (member("app.json"), description("two"))), "is 'two'",
    ),
    "rubbish": (tar_with((member("bin/main", 0o755), b"x"), (member("app.json"), b"{}")), "name is missing"),
    "a link as description": (
        tar_with(
            (member("bin/main", 0o755), b"x"), (member("app.json", type=tarfile.SYMTYPE, linkname="gone"), b""),
        ),
        "is a link",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
async def test_an_application_that_could_not_start(scene: Device, offer: Offer, name: str) -> None:
    made, says = UNUSABLE[name]
    offer("1.0.1", [made])
    assert says in await refused(scene, "bad_payload")


@pytest.mark.parametrize("form", ["elf", "tar"])
async def test_another_processors_program(scene: Device, offer: Offer, form: str) -> None:
    made = (
        payload("app", "one", ELF, kind="elf", entry="main")
        if form == "elf"
        else tar_with((member("bin/main", 0o755), ELF), (member("app.json"), description("one")))
    )
    offer("1.0.1", [made])
    assert "another processor" in await refused(scene, "wrong_machine")


async def test_a_tar_without_a_description_gets_one(scene: Device, offer: Offer) -> None:
    offer("1.0.1", [tar_with((member("bin/main", 0o755), script(STAYS)))])
    assert (await scene.update()).ok
    made = json.loads((items(scene) / "slot-a/apps/one/app.json").read_bytes())
    assert made == {"name": "one", "version": "1.0.1", "command": ["bin/main"]}


# --- what the worker made is looked at ------------------------------------------------------------------------------------
def make_deep(folder: Path, levels: int) -> None:
    """Make folders in each other."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("x", os.O_CREAT, dir_fd=at))
    os.close(at)


@pytest.fixture
def abyss(tmp_path: Path) -> Iterator[Path]:
    """Two rows of folders deeper than Python's own functions can go, and a link that leads out."""
    top = tmp_path / "items/incoming"
    for name in ("one", "two"):
        (top / name).mkdir(parents=True)
        (top / name / "link").symlink_to(tmp_path)
        make_deep(top / name, 3000)
    yield top
    # Whatever comes of the test: pytest could not remove it.
    subprocess.run(["rm", "-rf", str(top)], check=True)


def test_what_no_path_can_name_is_removed_too(tmp_path: Path, abyss: Path) -> None:
    (tmp_path / "stays").touch()
    assert ItemFolder(tmp_path / "items").make_incoming() == abyss
    assert list(abyss.iterdir()) == []
    assert (tmp_path / "stays").exists()


@pytest.mark.parametrize("what", ["pipe", "link", "twin", "large", "holes", "deep"])
def test_the_supervisor_takes_over_nothing_strange(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "tree"
    (folder / "d").mkdir(parents=True)
    if what == "pipe":
        os.mkfifo(folder / "d/x")
    elif what == "link":
        (folder / "d/x").symlink_to("/etc")
    elif what == "large":
        for name in ("x", "y"):
            (folder / "d" / name).write_bytes(bytes(3000))
    elif what == "holes":
        (folder / "d/x").touch()
        os.truncate(folder / "d/x", 2**40)
    elif what == "deep":
        make_deep(folder / "d", 40)
    else:
        (tmp_path / "outside").write_bytes(b"x")
        os.link(tmp_path / "outside", folder / "d/x")
    with pytest.raises(PayloadError):
        take_over(folder, None, 100)


def test_rights_are_what_the_device_gives(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "d").mkdir(parents=True, mode=0o777)
    for name, mode in (("program", 0o6777), ("data", 0o666)):
        (folder / "d" / name).write_bytes(b"x")
        (folder / "d" / name).chmod(mode)
    take_over(folder, None, 100)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (folder, *folder.rglob("*"))}
    assert modes == {"tree": 0o755, "d": 0o755, "program": 0o755, "data": 0o644}


async def test_a_real_worker_unpacks_without_rights(scene: Device, offer: Offer) -> None:
    scene.launcher = SubprocessLauncher()
    scene.start()
    await scene.manager.start()
    offer("1.0.1", [tar_app("one"), app("two", STAYS), file("x", b"x" * 5000)])
    last = await scene.update()
    assert last.ok, last.message
    assert (items(scene) / "slot-a/files/x").read_bytes() == b"x" * 5000
    assert (items(scene) / "slot-a/apps/two/main").stat().st_mode & 0o7777 == 0o755


# --- journals of other releases -------------------------------------------------------------------------------------------
def test_a_journal_of_an_older_release_is_understood(tmp_path: Path) -> None:
    """The first boot of a new release reads what the release before has written."""
    path = tmp_path / "journal.json"
    Journal(path).save(update_id="x", to_version="1.1.0")
    old = json.loads(path.read_text())
    assert old.pop("scope") == FIRMWARE
    assert old.pop("starts") == 0
    path.write_text(json.dumps({**old, "state": "confirming"}))
    entry = Journal(path).entry
    assert (entry.to_version, entry.state.value, entry.scope, entry.starts) == ("1.1.0", "confirming", FIRMWARE, 0)


def test_members_are_what_they_seem() -> None:
    """The maker of these tests' tars keeps what a test asks for."""
    data = tar((member("x", 0o4755), b"abc"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        [found] = archive.getmembers()
    assert (found.name, found.mode, found.size) == ("x", 0o4755, 3)
