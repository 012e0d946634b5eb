"""The rows of `docs/threats.md` about signed metadata, played against the device's own code and a real TLS server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
from tuf.api.metadata import Metadata, MetaFile, Snapshot  # type: ignore[attr-defined]

from scripts.bundle_tool import tufrepo
from scripts.bundle_tool.chain import ChainError
from tests.support.attacks import attacked, flip, recovers
from tests.support.device import Device
from tests.support.doorman import Doorman
from tests.support.fleet import PRODUCT, Fleet, Release, make_release
from zentrid.ports import UpdateOptions


def stolen(fleet: Fleet, *roles: str) -> dict[str, CryptoSigner]:
    """Copies of keys, as a thief has them."""
    return {role: fleet.keys[role] for role in roles}


# --- arbitrary software ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("position", [0, 30, 200, -3])
@pytest.mark.parametrize("name", ["2.root", "timestamp", "snapshot", "targets", PRODUCT])
async def test_arbitrary_software_a_bit_flipped_in_each_signed_file(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, name: str, position: int
) -> None:
    fleet.rotate("root")
    fleet.serve()
    doorman.habits.tamper = flip(f"{name}.json", position)
    last = await device.update(check_only=True)
    if last.ok:
        # A bit of the JSON that means nothing, as a blank's: what is signed is the same, and it installs the same.
        assert position in (30, -3)
        return
    await attacked(device, last_reason(last.message), f"{name}.json")
    doorman.habits.tamper = lambda _path, data: data
    await recovers(device)


def last_reason(message: str) -> str:
    """The reason that belongs to the sentence."""
    return "bad_metadata" if " is damaged (" in message else "replayed" if "older than" in message else "bad_signature"


# --- rollback, replay ----------------------------------------------------------------------------------------------------
async def test_replay_of_each_older_file(device: Device, fleet: Fleet, published: Release) -> None:
    old = dict(fleet.metadata)
    fleet.rotate("root")
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    fleet.metadata |= {"timestamp.json": old["timestamp.json"]}
    await attacked(device, "replayed", "older than what this device has seen")
    fleet.serve()
    await recovers(device)


async def test_rollback_of_metadata_does_not_come_with_garbage_on_the_data_partition(
    device: Device, fleet: Fleet, published: Release
) -> None:
    """The snapshot is lost to a damaged sector: the timestamp still knows its number."""
    old = dict(fleet.metadata)
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    (device.folder / "data" / "tuf" / "snapshot.json").write_bytes(b"\0" * 300)
    fleet.metadata |= old
    await attacked(device, "replayed", "older than what this device has seen")


async def test_mix_and_match_of_metadata(device: Device, fleet: Fleet, published: Release) -> None:
    """New timestamp, old snapshot; new snapshot, old targets."""
    first = dict(fleet.metadata)
    fleet.top = tufrepo.next_targets(fleet.top, [fleet.keys["targets"]])
    fleet.serve()
    good = dict(fleet.metadata)
    fleet.metadata[f"{fleet.version}.snapshot.json"] = first[f"{fleet.version - 1}.snapshot.json"]
    await attacked(device, "bad_signature", "snapshot.json")
    fleet.metadata = dict(good)
    fleet.metadata["3.targets.json"] = first["2.targets.json"]
    await attacked(device, "bad_signature", "targets.json")


# --- fast-forward --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("roles", [("snapshot", "timestamp"), ("timestamp",), ("snapshot",)])
async def test_fast_forward_ends_with_the_stolen_keys(
    device: Device, fleet: Fleet, published: Release, roles: tuple[str, ...]
) -> None:
    honest = fleet.version
    fleet.serve(version=2**31 - 1)
    assert (await device.update(check_only=True)).ok
    fleet.serve(version=honest + 1)
    await attacked(device, "replayed", "older than what this device has seen")
    fleet.rotate(*roles)
    fleet.serve(version=honest + 2)
    await recovers(device)


async def test_fast_forward_of_the_list_of_targets_ends_with_the_stolen_keys(
    device: Device, fleet: Fleet, published: Release
) -> None:
    """The thief's snapshot says that targets are at 2³¹: the device keeps it, though nothing can be fetched after it."""
    keys = stolen(fleet, "snapshot", "timestamp")
    snapshot = Metadata[Snapshot].from_bytes(fleet.metadata[f"{fleet.version}.snapshot.json"])
    snapshot.signed.version = fleet.version + 1
    snapshot.signed.meta["targets.json"] = MetaFile(2**31)
    data = tufrepo.sign(snapshot, [keys["snapshot"]]).to_bytes()
    fleet.metadata[f"{fleet.version + 1}.snapshot.json"] = data
    fleet.metadata["timestamp.json"] = tufrepo.new_timestamp(
        data, [keys["timestamp"]], version=fleet.version + 1
    ).to_bytes()
    await attacked(device, None, "there is no such thing")
    fleet.serve(version=fleet.version + 2)
    await attacked(device, "replayed", "older than what this device has seen")
    fleet.rotate("snapshot", "timestamp")
    fleet.serve()
    await recovers(device)


async def test_fast_forward_of_targets_ends_with_the_stolen_key(
    device: Device, fleet: Fleet, published: Release
) -> None:
    honest = fleet.top
    fleet.top = tufrepo.next_targets(fleet.top, [fleet.keys["targets"]])
    fleet.top.signed.version = 2**31 - 1
    tufrepo.sign(fleet.top, [fleet.keys["targets"]])
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    fleet.top = honest
    fleet.rotate("targets", "snapshot", "timestamp")
    fleet.serve()
    await recovers(device)


# --- freeze ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("offered", [True, False])
async def test_freeze_is_noticed_and_stays_visible_until_it_ends(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, offered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The server keeps an old timestamp; also one that says that there is nothing new is not believed then."""
    if not offered:
        doorman.offer = None
    fleet.serve_expired()
    await attacked(device, "expired", "signed metadata has expired (timestamp.json is expired)")
    assert "update: ALERT: since " in caplog.text
    device.boot()
    assert "timestamp.json is expired" in (await device.manager.dms.status())["alert"]
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    assert "alert" not in await device.manager.dms.status()
    device.boot()
    assert "alert" not in await device.manager.dms.status()


# --- stolen online keys ------------------------------------------------------------------------------------------------------
async def test_stolen_online_keys_install_nothing_new(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, tmp_path: Path
) -> None:
    """The whole server is the attacker's: TLS key, snapshot and timestamp keys, every file. The device runs what it ran."""
    evil = make_release("6.6.6")
    thief = Fleet(tmp_path / "thief")
    thief.keys |= stolen(fleet, "snapshot", "timestamp")
    doorman.offer = "6.6.6"
    honest = dict(fleet.metadata)
    thief.root, thief.roots, thief.version = fleet.root, fleet.roots, fleet.version
    thief.top.signed.version = fleet.top.signed.version
    tufrepo.sign(thief.top, [thief.keys["targets"]])
    thief.publish(evil)
    fleet.payloads |= thief.payloads
    fleet.targets |= thief.targets
    # His own targets and product keys.
    fleet.metadata = dict(thief.metadata)
    await attacked(device, "bad_signature", "targets.json is not signed as it must be")
    # The true targets, his product key.
    thief.top = fleet.top
    thief.serve()
    fleet.metadata = dict(thief.metadata)
    await attacked(device, "bad_signature", f"{PRODUCT}.json is not signed as it must be")
    # A root of his own, signed with what he has.
    forged = tufrepo.proposed_root(fleet.root, roles={"targets": ([thief.keys["targets"].public_key], 1)})
    tufrepo.sign(forged, [thief.keys["timestamp"], thief.keys["snapshot"], thief.keys["root"]])
    fleet.metadata["2.root.json"] = forged.to_bytes()
    await attacked(device, "bad_signature", "2.root.json is not signed as it must be")
    # Another release's content under an old name.
    fleet.metadata, doorman.offer = honest, published.version
    for name in list(fleet.targets):
        if "/1.1.0/" in name:
            fleet.targets[name] = evil.manifest.to_bytes()
    fleet.serve(version=thief.version + 1)
    await attacked(device, "bad_manifest", "is not the one that was signed")


# --- keys lost, keys taken away ------------------------------------------------------------------------------------------
async def test_root_rotated_over_skipped_versions_of_which_some_have_expired(
    device: Device, fleet: Fleet, published: Release
) -> None:
    """The device was off for years: four roots were made meanwhile, three of them have expired, each with other keys."""
    past = datetime.now(UTC) - timedelta(days=900)
    for number in range(3):
        fleet.rotate(
            "root", "snapshot", "timestamp", *(("targets",) if number == 1 else ()), now=past, days=30 + number
        )
    fleet.rotate("root")
    fleet.serve()
    await recovers(device)
    kept = device.folder / "data" / "tuf" / "roots"
    assert sorted(path.name for path in kept.iterdir()) == [f"{number}.root.json" for number in (2, 3, 4, 5)]


async def test_an_expired_newest_root_is_refused(device: Device, fleet: Fleet, published: Release) -> None:
    fleet.rotate("root", now=datetime.now(UTC) - timedelta(days=30), days=29)
    fleet.serve()
    await attacked(device, "expired", "root.json is expired")


@pytest.mark.parametrize(("signing", "followed"), [((0, 1), True), ((1, 2), True), ((0,), False), ((0, 0), False)])
async def test_root_threshold_of_two_holders_of_three(
    tmp_path: Path, doorman: Doorman, old: Release, new: Release, fleet: Fleet, signing: tuple[int, ...], followed: bool
) -> None:
    """The fleet's roots are signed by three people, any two of whom are enough and no one alone is."""
    holders = [CryptoSigner.generate_ed25519() for _ in range(3)]
    public = [holder.public_key for holder in holders]
    fleet.root = tufrepo.next_root(fleet.root, [fleet.keys["root"], *holders], roles={"root": (public, 2)})
    fleet.roots.append(fleet.root.to_bytes())
    device = Device(tmp_path / "device", fleet, doorman)
    device.flash("a", old)
    device.boot()
    fleet.publish(new)
    doorman.offer = new.version
    assert (await device.update(check_only=True)).ok
    following = tufrepo.proposed_root(fleet.root, roles={})
    signers = [holders[index] for index in dict.fromkeys(signing)]
    fleet.roots.append(tufrepo.sign(following, signers).to_bytes())
    fleet.serve()
    if followed:
        await recovers(device)
    else:
        await attacked(device, "bad_signature", "3.root.json is not signed as it must be")
        with pytest.raises(ChainError):
            tufrepo.next_root(fleet.root, signers)


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
async def test_a_key_of_every_role_is_replaced_and_the_old_one_is_worth_nothing(
    device: Device, fleet: Fleet, published: Release, role: str
) -> None:
    assert (await device.update(check_only=True)).ok
    lost = fleet.keys[role]
    fleet.rotate(role)
    fleet.serve()
    assert (await device.update(check_only=True)).ok
    successor, fleet.keys[role] = fleet.keys[role], lost
    if role == "root":
        forged = tufrepo.proposed_root(fleet.root, roles={})
        fleet.roots.append(tufrepo.sign(forged, [lost]).to_bytes())
    elif role == "targets":
        fleet.top = tufrepo.next_targets(fleet.top, [lost])
    fleet.serve()
    await attacked(device, "bad_signature", f"{'3.root' if role == 'root' else role}.json is not signed as it must be")
    fleet.keys[role] = successor
    if role == "root":
        fleet.roots.pop()
        del fleet.metadata["3.root.json"]
    elif role == "targets":
        fleet.top = tufrepo.next_targets(fleet.top, [successor])
    fleet.serve(version=fleet.version + 1)
    await recovers(device)


async def test_release_key_lost_the_next_one_signs(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release
) -> None:
    fleet.replace_release_key()
    fleet.publish(make_release("1.2.0"))
    doorman.offer = "1.2.0"
    await recovers(device)


async def test_delegation_revoked_online(device: Device, fleet: Fleet, published: Release, tmp_path: Path) -> None:
    bundle = fleet.bundle(published, tmp_path / "before.zb")
    fleet.revoke()
    fleet.serve()
    await attacked(device, "not_signed", "no trusted key signs")
    await attacked(device, "not_signed", "has not allowed anybody to sign", source=str(bundle))


async def test_delegation_revoked_by_a_bundle_file_stays_revoked(
    device: Device, fleet: Fleet, doorman: Doorman, published: Release, tmp_path: Path
) -> None:
    """A device without a server learns from a file that the release key was replaced; nothing the thief signed counts then."""
    thief_key, honest_top = fleet.keys[PRODUCT], fleet.top
    before = fleet.bundle(make_release("1.1.5"), tmp_path / "by-the-thief.zb")
    fleet.replace_release_key()
    after = fleet.bundle(make_release("1.2.0"), tmp_path / "after.zb")
    assert (await device.update(source=str(after), check_only=True)).ok
    await attacked(device, "bad_signature", f"{PRODUCT}.json is not signed as it must be", source=str(before))
    # The server does not know it yet, or serves the old targets on purpose: the thief's release is refused online too.
    fleet.keys[PRODUCT], fleet.top = thief_key, honest_top
    fleet.publish(make_release("1.1.6"))
    doorman.offer = "1.1.6"
    await attacked(device, "bad_signature", f"{PRODUCT}.json is not signed as it must be")
    device.boot()
    await attacked(device, "bad_signature", f"{PRODUCT}.json is not signed as it must be", source=str(before))


# --- what the server says ---
async def test_the_result_is_known_by_its_name(device: Device, doorman: Doorman, published: Release) -> None:
    """`dms.ota_result` after the server's answers: 7 for 403, 8 for 400, 9 for 404."""
    from zentrid.commands.getters import GETTERS

    for status, result in ((403, "7"), (400, "8"), (404, "9"), (500, "3")):
        doorman.habits.refuse = {"check": (status, "no")}
        async for _ in device.manager.run(UpdateOptions()):
            pass
        context = type("Ctx", (), {"updates": device.manager})()
        assert GETTERS["dms.ota_result"](context) == result
