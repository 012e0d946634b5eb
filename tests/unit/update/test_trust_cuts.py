"""The power goes at every step of what the device writes about trust: it goes on, and what was seen stays seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts.bundle_tool import tufrepo
from tests.support.device import IMPATIENT, Fuse, PowerCutError
from tests.support.doorman import Doorman
from tests.support.fleet import PRODUCT, UUID, Fleet, Release
from zentrid.update.errors import UntrustedError
from zentrid.update.metadata import TrustStore, online_manifest
from zentrid.update.transport import Endpoint, Limits, Transport, client_context

BUILT = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = f"{PRODUCT}/1.1.0/manifest.json"


class World:
    """A server, and a device's metadata folder that outlives power cuts."""

    def __init__(self, folder: Path, fleet: Fleet, port: int) -> None:
        self.folder = folder
        self.fleet = fleet
        self.port = port

    def check(self, at: int | None = None) -> list[str]:
        """Look for the release; the power goes before step `at`. Returns the steps that were begun."""
        fuse = Fuse(at)
        root = (self.fleet.identity_dir / "root.json").read_bytes()
        endpoint = Endpoint("127.0.0.1", self.port, UUID, "1.0.0")
        transport = Transport(endpoint, client_context(self.fleet.identity_dir), Limits(**IMPATIENT))
        try:
            online_manifest(TrustStore(self.folder, root, BUILT, fuse), transport, TARGET)
        finally:
            transport.close()
        return fuse.steps


@contextmanager
def power_cut() -> Iterator[None]:
    with pytest.raises(PowerCutError):
        yield


@pytest.fixture
def world(tmp_path: Path, fleet: Fleet, doorman: Doorman, old: Release, new: Release) -> World:
    """A device that has seen the first metadata; then a root changes all keys, and a release comes."""
    fleet.publish(old, new)
    made = World(tmp_path / "tuf", fleet, doorman.port)
    made.check()
    return made


def change(fleet: Fleet) -> None:
    """Every key but the release key is replaced, by two roots."""
    fleet.rotate("root", "snapshot")
    fleet.rotate("targets", "timestamp")
    fleet.serve(version=1)


def test_every_file_is_flushed_before_it_takes_its_name(world: World, fleet: Fleet) -> None:
    change(fleet)
    steps = world.check()
    written = [step.removeprefix("write ") for step in steps if step.startswith("write ")]
    assert {"2.root.json", "3.root.json", "timestamp.json", "snapshot.json", "targets.json", "time.json"} <= set(
        written
    )
    for name in written:
        begun = [step for step in steps if step.rpartition(" ")[2] == name]
        assert begun[-4:] == [f"write {name}", f"flush {name}", f"rename {name}", f"flush folder of {name}"]
    # Roots before what is forgotten because of them, and that before what the new keys signed.
    order = ["rename 3.root.json", "remove timestamp.json", "rename online.json", "rename timestamp.json"]
    assert [step for step in steps if step in order] == order


def test_cut_at_every_step_it_goes_on_and_what_was_seen_stays_seen(
    tmp_path: Path, fleet: Fleet, doorman: Doorman, world: World
) -> None:
    import shutil

    shutil.copytree(world.folder, tmp_path / "before")
    change(fleet)
    steps = world.check()
    after = dict(fleet.metadata)
    assert len(steps) > 30
    for at in range(len(steps)):
        shutil.rmtree(world.folder)
        shutil.copytree(tmp_path / "before", world.folder)
        with power_cut():
            world.check(at)
        world.check()  # the next start goes on
        stale = tufrepo.new_timestamp(
            fleet.metadata["1.snapshot.json"], [fleet.keys["timestamp"]], version=1
        ).to_bytes()
        fleet.serve(version=2)
        world.check()
        fleet.metadata["timestamp.json"] = stale
        with pytest.raises(UntrustedError, match="older than what this device has seen"):
            world.check()
        fleet.metadata = dict(after)


def test_cut_twice_at_different_steps(fleet: Fleet, world: World) -> None:
    change(fleet)
    for at in (3, 3, 7, 5):
        with power_cut():
            world.check(at)
    world.check()
