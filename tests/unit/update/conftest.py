"""A fleet with a server, and a device that runs release 1.0.0 in slot A."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.device import Device, factory_state
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release, make_release, make_rootfs


@pytest.fixture(scope="session")
def old() -> Release:
    return make_release("1.0.0", make_rootfs(1))


@pytest.fixture(scope="session")
def new() -> Release:
    return make_release("1.1.0", make_rootfs(1, changed=60), boot_floor="1.0.0")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "fleet")


@pytest.fixture
def doorman(fleet: Fleet) -> Iterator[Doorman]:
    with Doorman(fleet).running() as doorman:
        yield doorman


@pytest.fixture
def device(tmp_path: Path, fleet: Fleet, doorman: Doorman, old: Release) -> Device:
    made = Device(tmp_path / "device", fleet, doorman)
    made.flash("a", old)
    made.flash("r", old)
    made.store.write(factory_state())
    fleet.publish(old)
    made.boot()
    return made


@pytest.fixture
def published(fleet: Fleet, doorman: Doorman, device: Device, new: Release) -> Release:
    """Release 1.1.0, published and offered."""
    fleet.publish(new)
    device.known[new.version] = new
    doorman.offer = new.version
    return new
