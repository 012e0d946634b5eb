"""Where trust starts, how it moves on, and what time it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Root, Timestamp  # type: ignore[attr-defined]

from tests.support.attacks import set_clock
from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release
from zentrid.bundle.signedtime import signed_at_field
from zentrid.update.errors import UntrustedError
from zentrid.update.metadata import TrustStore, parse_time

BUILT = datetime(2026, 1, 1, tzinfo=UTC)


async def test_the_root_is_rotated_over_three_that_the_device_never_saw(
    device: Device, fleet: Fleet, published: Release
) -> None:
    for _ in range(3):
        fleet.rotate_root()
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    kept = device.folder / "data" / "tuf" / "roots"
    assert sorted(path.name for path in kept.iterdir()) == ["2.root.json", "3.root.json", "4.root.json"]
    fleet.metadata = {name: data for name, data in fleet.metadata.items() if not name.endswith("root.json")}
    assert (await device.update(check_only=True)).ok  # walked again, from the kept ones


async def test_a_root_signed_by_itself_alone_is_not_followed(
    device: Device, fleet: Fleet, published: Release, tmp_path: Path
) -> None:
    fleet.metadata["2.root.json"] = Fleet(tmp_path / "thief").roots[0].replace(b'"version": 1', b'"version": 2')
    last = await device.update()
    assert not last.ok
    assert "2.root.json" in last.message


async def test_a_root_planted_in_the_data_partition_is_not_believed(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, tmp_path: Path
) -> None:
    """Whoever can write the data partition still cannot make the device trust other keys."""
    thief = Fleet(tmp_path / "thief")
    tuf = device.folder / "data" / "tuf"
    (tuf / "roots").mkdir(parents=True)
    (tuf / "root.json").write_bytes(thief.roots[0])
    (tuf / "roots" / "2.root.json").write_bytes(thief.roots[0])
    thief.publish(published)
    real, fleet.metadata = fleet.metadata, thief.metadata
    assert not (await device.update()).ok
    fleet.metadata = real
    assert (await device.update(check_only=True)).ok


async def test_damaged_metadata_on_the_data_partition_is_fetched_again(device: Device, published: Release) -> None:
    assert (await device.update(check_only=True)).ok
    for path in (device.folder / "data" / "tuf").glob("*.json"):
        path.write_bytes(path.read_bytes()[:20])
    assert (await device.update(check_only=True)).ok


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 9000, b"\xff"])
def test_a_damaged_identity(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UntrustedError, match="identity partition"):
        TrustStore(tmp_path, data, BUILT).chain()


def signed_timestamp(moment: datetime, version: int = 1) -> Timestamp:
    return Timestamp(version, None, moment + timedelta(days=1), None, signed_at_field(moment))


def root_until(moment: datetime) -> Root:
    return Root(expires=moment, consistent_snapshot=True)


def test_time_never_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, datetime(1970, 1, 1, tzinfo=UTC))
    store = TrustStore(tmp_path, b"", BUILT)
    assert store.now() == BUILT
    signed = BUILT + timedelta(days=30)
    root = root_until(BUILT + timedelta(days=365))
    assert not store.remember_time(root, signed_timestamp(signed), 0)
    assert TrustStore(tmp_path, b"", BUILT).now() == signed
    # An older signature that comes later, with the kept ones lost, or no newer number, takes nothing back.
    for kept in (0, 5):
        assert not store.remember_time(root, signed_timestamp(BUILT + timedelta(days=2), 5), kept)
    assert store.now() == signed
    # A newer number with an earlier time: the server's clock was ahead, and was put right.
    assert store.remember_time(root, signed_timestamp(BUILT + timedelta(days=2), 6), 5)
    assert store.now() == BUILT + timedelta(days=2)


def test_only_signed_times_are_remembered_and_none_beyond_the_roots_end(tmp_path: Path) -> None:
    store, root = TrustStore(tmp_path, b"", BUILT), root_until(BUILT + timedelta(days=365))
    store.remember_time(root, signed_timestamp(BUILT + timedelta(days=366)), 0)
    store.remember_time(root, Timestamp(1, None, BUILT + timedelta(days=9)), 0)
    store.remember_time(root, Timestamp(1, None, BUILT, None, signed_at_field(BUILT + timedelta(days=5))), 0)
    assert store.signed_time() is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b'{"signed": 5}', b'{"accepted": "2099-01-01T00:00:00+00:00"}', b"[]"])
def test_a_damaged_time_file_is_no_time(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "time.json").write_bytes(content)
    assert TrustStore(tmp_path, b"", BUILT).signed_time() is None


async def test_a_timestamp_older_than_the_last_signature_has_expired(
    device: Device, fleet: Fleet, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device whose clock fell back to 1970, and whose kept metadata is lost, still knows that an old timestamp is old."""
    stale = dict(fleet.metadata)
    fleet.serve(datetime.now(UTC) + timedelta(days=5))
    assert (await device.update(check_only=True)).ok
    set_clock(monkeypatch, datetime(1970, 1, 1, tzinfo=UTC))
    for name in ("timestamp.json", "snapshot.json"):
        (device.folder / "data" / "tuf" / name).write_bytes(b"lost")
    fleet.metadata = stale
    last = await device.update()
    assert not last.ok
    assert "signed metadata has expired (timestamp.json is expired)" in last.message


def test_times() -> None:
    assert parse_time("2026-11-01T10:00:00Z") == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert parse_time("2026-11-01T10:00:00") == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert parse_time("yesterday") == datetime(1970, 1, 1, tzinfo=UTC)
