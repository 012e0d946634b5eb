"""The way to the server: one connection for everything, and nothing of a broken answer is taken for a whole one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import UUID, Fleet, Release
from zentrid.update.errors import DmsRefusedError
from zentrid.update.transport import ConnectionLostError, Endpoint, Transport, client_context


@pytest.fixture
def transport(fleet: Fleet, doorman: Doorman) -> Iterator[Transport]:
    endpoint = Endpoint("127.0.0.1", doorman.port, UUID, "1.0.0")
    made = Transport(endpoint, client_context(fleet.identity_dir))
    yield made
    made.close()


def payload(release: Release) -> str:
    return f"/device/v1/payload/{release.manifest.item('rootfs').root_hash}?base=none"  # type: ignore[union-attr]


async def test_an_update_takes_one_connection_for_asking_and_one_for_installing(
    device: Device, doorman: Doorman, published: Release
) -> None:
    assert (await device.update()).ok
    assert len(doorman.requests) > 8
    assert doorman.connections == 2


def test_a_refusal_and_a_part_leave_the_connection_in_use(
    transport: Transport, doorman: Doorman, published: Release
) -> None:
    doorman.habits.refuse["status"] = (404, "who are you")
    with pytest.raises(DmsRefusedError, match="who are you"):
        transport.get_json("/device/v1/status")
    for start in (0, 100, 5000):
        with transport.stream(payload(published), start, start + 64) as chunks:
            assert len(b"".join(chunks)) == 64
    assert doorman.connections == 1


def test_a_part_that_was_not_read_to_its_end_costs_the_connection_and_nothing_else(
    transport: Transport, doorman: Doorman, published: Release
) -> None:
    with transport.stream(payload(published), 0, 60_000) as chunks:
        whole = next(chunks)
    with transport.stream(payload(published), 0, 64) as chunks:
        assert b"".join(chunks) == whole[:64]
    assert doorman.connections == 2


def test_a_server_that_hung_up_meanwhile_is_called_again(transport: Transport, fleet: Fleet, doorman: Doorman) -> None:
    doorman.habits.raw["status"] = b"{}"
    doorman.habits.hang_up = True
    for number in range(1, 4):
        assert transport.get_json("/device/v1/status") == {}
        assert doorman.connections == number
        time.sleep(0.05)  # for its goodbye to arrive


def test_an_answer_that_ends_early_is_no_answer(transport: Transport, doorman: Doorman) -> None:
    doorman.habits.promised["status"] = 99
    with pytest.raises(ConnectionLostError, match="early"):
        transport.get_json("/device/v1/status")
