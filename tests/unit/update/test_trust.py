"""Where trust starts, how it moves on, and what time it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import Fleet, Release
from zentrid.update import metadata
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


def test_a_damaged_identity(tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="identity partition"):
        TrustStore(tmp_path, b"{}", BUILT).root()


def test_time_never_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock1970(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(1970, 1, 1, tzinfo=UTC)

    store = TrustStore(tmp_path, b"", BUILT)
    monkeypatch.setattr(metadata, "datetime", Clock1970)
    assert store.now() == BUILT
    signed = BUILT + timedelta(days=30)
    store.accept(signed)
    assert TrustStore(tmp_path, b"", BUILT).now() == signed


@pytest.mark.parametrize("content", [b"", b"{", b'{"accepted": 5}', b'{"accepted": "soon"}', b"[]"])
def test_a_damaged_time_file_is_no_time(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "time.json").write_bytes(content)
    assert TrustStore(tmp_path, b"", BUILT).now() >= BUILT


async def test_metadata_from_the_time_before_the_last_accepted_one_has_expired(
    device: Device, fleet: Fleet, published: Release
) -> None:
    """A device whose clock fell back to 1970 still knows that an old timestamp is old."""
    assert (await device.update(check_only=True)).ok
    future = datetime.now(UTC) + timedelta(days=5)
    (device.folder / "data" / "tuf" / "time.json").write_text(json.dumps({"accepted": future.isoformat()}))
    last = await device.update()
    assert not last.ok
    assert "signed metadata has expired (timestamp.json is expired)" in last.message


def test_times() -> None:
    assert parse_time("2026-11-01T10:00:00Z") == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert parse_time("2026-11-01T10:00:00") == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert parse_time("yesterday") == datetime(1970, 1, 1, tzinfo=UTC)
