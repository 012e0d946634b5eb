"""The rows of `docs/threats.md` about clocks and about what lies on the data partition."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Timestamp  # type: ignore[attr-defined]

from scripts.bundle_tool import tufrepo
from scripts.provision_tool import pki
from tests.support.attacks import attacked, recovers, set_clock
from tests.support.device import Device, factory_state
from tests.support.doorman import Doorman
from tests.support.fleet import PRODUCT, Fleet, Release
from zentrid.adapters.clock import last_signed_time


# --- clock -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("year", [1970, 2001])
async def test_clock_in_the_past_changes_nothing(
    device: Device, fleet: Fleet, published: Release, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    set_clock(monkeypatch, datetime(year, 1, 2, tzinfo=UTC))
    assert (await device.update(check_only=True)).ok
    fleet.serve(datetime.now(UTC) - timedelta(days=400))
    await attacked(device, "expired", "signed metadata has expired")  # older than what was signed last
    fleet.serve()
    await recovers(device)


@pytest.mark.parametrize("days", [200, 400, 27_000], ids=["signatures ended", "root ended", "2099, nothing is valid"])
async def test_clock_in_the_future_is_forgotten_when_it_is_right_again(
    device: Device, fleet: Fleet, published: Release, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    with monkeypatch.context() as patch:
        set_clock(patch, timedelta(days=days))
        last = await device.update(check_only=True)
        assert not last.ok
        assert "clock" in last.message
    tuf = device.folder / "data" / "tuf"
    assert last_signed_time(tuf) < f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    await recovers(device)


async def test_clock_that_jumps_to_and_fro(
    device: Device, fleet: Fleet, published: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = []
    for moment in (timedelta(0), datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=9000), timedelta(days=-5)) * 2:
        fleet.serve()
        with monkeypatch.context() as patch:
            set_clock(patch, moment)
            right.append((await device.update(check_only=True)).ok)
    assert right == [True, True, False, True] * 2
    await recovers(device)


async def test_clock_of_the_server_that_was_ahead_does_not_end_updates(
    device: Device, fleet: Fleet, published: Release
) -> None:
    """A server signed half a year ahead; once it is right again, its next signature counts."""
    fleet.serve(datetime.now(UTC) + timedelta(days=180))
    assert (await device.update(check_only=True)).ok
    fleet.serve()
    await recovers(device)


async def test_clock_signed_beyond_the_roots_end_is_no_time(device: Device, fleet: Fleet, published: Release) -> None:
    """Stolen online keys sign that it is 2099: nothing of it is remembered."""
    fleet.serve(datetime(2099, 1, 1, tzinfo=UTC))
    await attacked(device, "expired", "signed metadata has expired")
    assert last_signed_time(device.folder / "data" / "tuf") == ""
    fleet.serve()
    await recovers(device)


def reissue(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shift: timedelta) -> None:
    """Give the server a certificate that was made at another time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + shift

    key = pki.new_key()
    with monkeypatch.context() as patch:
        patch.setattr(pki, "datetime", Clock)
        certificate = pki.server_certificate(fleet.server_ca, key.public_key())
    (fleet.folder / "dms.pem").write_bytes(pki.key_pem(key) + pki.certificate_pem(certificate))


@pytest.mark.parametrize(
    ("made_ago", "says"),
    [
        (timedelta(days=-400), ""),
        (timedelta(days=10), ""),
        (timedelta(days=pki.SERVER_DAYS + 2), "certificate has expired on "),
    ],
    ids=["in the future of a clock that was lost", "valid", "ended"],
)
async def test_clock_and_the_servers_certificate(
    tmp_path: Path, fleet: Fleet, old: Release, new: Release, monkeypatch: pytest.MonkeyPatch,
    made_ago: timedelta, says: str,
) -> None:  # fmt: skip
    """A device that lost two years must reach a server whose certificate is newer; one that has ended is refused as ever."""
    reissue(fleet, monkeypatch, -made_ago)
    with Doorman(fleet).running() as doorman:
        device = Device(tmp_path / "device", fleet, doorman)
        device.flash("a", old)
        device.store.write(factory_state())
        device.boot()
        fleet.publish(new)
        doorman.offer = new.version
        if says:
            last = await attacked(device, None, says)
            assert "this device's clock says " in last.message
            assert doorman.requests == []
        else:
            await recovers(device)


# --- what lies on the data partition ---------------------------------------------------------------------------------------
def _directory(path: Path) -> None:
    path.unlink()
    (path / "sub").mkdir(parents=True)


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff" * 5000)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _huge(path: Path) -> None:
    path.write_bytes(b"[" * 3_000_000)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("spoil", [_directory, _garbage, _half, _huge, _link])
async def test_garbage_on_the_data_partition_never_ends_updates(
    device: Device, fleet: Fleet, published: Release, spoil: Callable[[Path], None]
) -> None:
    fleet.rotate("root")
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    tuf = device.folder / "data" / "tuf"
    names = {str(path.relative_to(tuf)) for path in tuf.rglob("*.json")}
    assert names >= {"root.json", "timestamp.json", "snapshot.json", "targets.json", f"{PRODUCT}.json", "time.json"}
    assert names >= {"online.json", "newest.targets.json", "roots/2.root.json"}
    for name in names:
        spoil(tuf / name)
    (tuf / "tmp8a2b").write_bytes(b"left by a power cut")
    assert (await device.update(check_only=True)).ok
    assert not (tuf / "tmp8a2b").exists()
    for name in sorted(names):  # and each by itself
        spoil(tuf / name)
        last = await device.update(check_only=True)
        assert last.ok, (name, last.message)


async def test_a_planted_time_on_the_data_partition_is_corrected_by_the_next_signature(
    device: Device, fleet: Fleet, published: Release
) -> None:
    assert (await device.update(check_only=True)).ok
    ahead = datetime.now(UTC) + timedelta(days=300)
    (device.folder / "data" / "tuf" / "time.json").write_text(json.dumps({"signed": ahead.isoformat()}))
    fleet.serve()
    await recovers(device)


async def test_another_role_in_a_files_place_is_refused(device: Device, fleet: Fleet, published: Release) -> None:
    fleet.metadata["timestamp.json"] = fleet.metadata[f"{fleet.version}.snapshot.json"]
    await attacked(device, "bad_metadata", "timestamp.json")


async def test_dates_and_numbers_out_of_reason_do_no_harm(device: Device, fleet: Fleet, published: Release) -> None:
    timestamp = Metadata[Timestamp].from_bytes(fleet.metadata["timestamp.json"])
    timestamp.signed.expires = datetime(9999, 12, 31, tzinfo=UTC)
    timestamp.signed.version += 1
    timestamp.signed.unrecognized_fields["signed_at"] = "9999-12-30T00:00:00Z"
    fleet.metadata["timestamp.json"] = tufrepo.sign(timestamp, [fleet.keys["timestamp"]]).to_bytes()
    await attacked(device, "expired", "signed metadata has expired")
    for nonsense in ("soon", 7, None, "2026-13-45T00:00:00Z", "9" * 5000):
        timestamp.signed.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        timestamp.signed.version += 1
        timestamp.signed.unrecognized_fields["signed_at"] = nonsense
        fleet.metadata["timestamp.json"] = tufrepo.sign(timestamp, [fleet.keys["timestamp"]]).to_bytes()
        assert (await device.update(check_only=True)).ok, nonsense
