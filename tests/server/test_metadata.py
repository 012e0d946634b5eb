"""Roots, keys and signatures that change while the server runs, and what it says when they end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp  # type: ignore[attr-defined]

from dms_server.bundles import metadata as metadata_module
from dms_server.files import write_durably
from scripts.bundle_tool import keys
from scripts.bundle_tool.publish import publish_metadata
from scripts.bundle_tool.release import resign_product
from scripts.provision_tool import rotation
from scripts.provision_tool.fleet import delegate_product, make_fleet
from scripts.provision_tool.rotation import Wish
from tests.server.conftest import StartDms
from tests.server.helpers import PRODUCT, Answer, Browser, Dms, ask
from tests.server.making import Publisher


@pytest.fixture
def own_fleet(tmp_path: Path) -> Path:
    """A fleet of this test alone."""
    made = make_fleet(tmp_path / "own")
    delegate_product(made, PRODUCT)
    return made


def served(dms: Dms) -> tuple[Metadata[Root], Metadata[Timestamp], Metadata[Snapshot]]:
    """What devices get: newest root, timestamp, snapshot; both signed as the root demands."""
    folder = dms.settings.data / "tuf" / "metadata"
    newest = 1
    while (folder / f"{newest + 1}.root.json").exists():  # as a device walks
        newest += 1
    root = Metadata[Root].from_bytes((folder / f"{newest}.root.json").read_bytes())
    timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes())
    root.signed.verify_delegate("timestamp", timestamp.signed_bytes, timestamp.signatures)
    number = timestamp.signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes((folder / f"{number}.snapshot.json").read_bytes())
    root.signed.verify_delegate("snapshot", snapshot.signed_bytes, snapshot.signatures)
    return root, timestamp, snapshot


async def ready(dms: Dms) -> Answer:
    """Ask whether it can do its work."""
    return await ask(dms.session, "GET", f"{dms.web_url}/readyz")


@pytest.mark.parametrize("roles", [("root",), ("targets",), ("snapshot",), ("timestamp",), rotation.TOP_ROLES])
async def test_a_new_root_in_the_fleet_folder_is_taken_over_while_it_runs(
    start_dms: StartDms, own_fleet: Path, roles: tuple[str, ...]
) -> None:
    dms = await start_dms(fleet=own_fleet, resign_interval_s=0.05)
    await dms.owner()
    before = (await asyncio.to_thread(served, dms))[1].signed
    await asyncio.to_thread(rotation.rotate, own_fleet, Wish(roles))
    async with asyncio.timeout(10):
        while (dms.settings.data / "tuf" / "metadata" / "2.root.json").exists() is False:
            await asyncio.sleep(0.02)
        await dms.core.bundles.take_over(None)
    root, timestamp, _ = await asyncio.to_thread(served, dms)
    assert root.signed.version == 2
    assert timestamp.signed.version >= before.version
    assert (await ready(dms)).status == 200
    folder = dms.settings.data / "tuf" / "metadata"
    assert (folder / "1.root.json").exists()  # every version is served for ever


def texts(fleet: Path, *names: str) -> Mapping[str, object]:
    """The body of the API."""
    return {"files": {name: (fleet / "public" / name).read_text() for name in names}}


async def test_new_metadata_by_the_api_is_all_or_nothing(start_dms: StartDms, own_fleet: Path, tmp_path: Path) -> None:
    there = shutil.copytree(own_fleet, tmp_path / "on-the-server")
    dms = await start_dms(fleet=there)
    owner = await dms.owner()
    rotation.rotate(own_fleet, Wish(("targets", "snapshot")))
    no_key = await owner.api("POST", "metadata", json=texts(own_fleet, "2.root.json", "targets.json"))
    assert no_key.status == 422
    assert "online/snapshot.key is not the key that the newest root names" in no_key.body["message"]
    shutil.copy(own_fleet / "online" / "snapshot.2.key", there / "online")
    no_targets = await owner.api("POST", "metadata", json=texts(own_fleet, "2.root.json"))
    assert no_targets.status == 422
    assert "give it along" in no_targets.body["message"]
    assert (await asyncio.to_thread(served, dms))[0].signed.version == 1
    whole = texts(own_fleet, "2.root.json", "targets.json")
    assert (await owner.api("POST", "metadata", json=whole)).body["newer"] is True
    assert (await owner.api("POST", "metadata", json=whole)).body["newer"] is False
    assert (await asyncio.to_thread(served, dms))[0].signed.version == 2


@pytest.mark.parametrize("writes", range(4))
async def test_taking_over_that_is_cut_at_each_write_is_all_or_nothing(
    start_dms: StartDms, own_fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Two roots and new targets by the API, the power goes: the next start serves the old chain whole, and takes the new."""
    there = shutil.copytree(own_fleet, tmp_path / "on-the-server")
    dms = await start_dms(fleet=there)
    for roles in (("root", "targets"), ("targets", "timestamp")):
        await asyncio.to_thread(rotation.rotate, own_fleet, Wish(roles))
    for path in (own_fleet / "online").iterdir():
        shutil.copy(path, there / "online")
    public = own_fleet / "public"
    files = {name: (public / name).read_bytes() for name in ("2.root.json", "3.root.json", "targets.json")}
    left = [writes]

    def write(path: Path, data: bytes) -> None:
        if not left[0]:
            raise OSError(5, "the power is off")
        left[0] -= 1
        write_durably(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(metadata_module, "write_durably", write)
        with pytest.raises(OSError, match="power is off"):
            await dms.core.bundles.take_over(files)
    copy = shutil.copytree(dms.settings.data, tmp_path / "restarted")
    again = await start_dms(fleet=there, data=copy)
    assert (await asyncio.to_thread(served, again))[0].signed.version == (3 if writes == 3 else 1)
    await again.core.bundles.take_over(files)
    assert (await asyncio.to_thread(served, again))[0].signed.version == 3


async def test_a_folder_that_is_behind_or_has_expired_does_no_harm(
    start_dms: StartDms, own_fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server got new targets by the API; its folder still has those of the old key, and they end."""
    there = shutil.copytree(own_fleet, tmp_path / "on-the-server")
    dms = await start_dms(fleet=there)
    owner = await dms.owner()
    rotation.rotate(own_fleet, Wish(("targets",)))
    whole = texts(own_fleet, "2.root.json", "targets.json")
    assert (await owner.api("POST", "metadata", json=whole)).body["newer"] is True
    over = datetime.now(UTC) + timedelta(days=400)
    monkeypatch.setattr(metadata_module, "now", lambda: over)
    await dms.core.bundles.refresh_metadata()
    assert not [sentence for sentence in dms.core.bundles.warnings if "not taken over" in sentence]
    assert (await asyncio.to_thread(served, dms))[1].signed.expires > over
    fresh = await asyncio.to_thread(rotation.resign, own_fleet, ("root", "targets"), 800)
    assert fresh == {"root": 3, "targets": 4}
    whole = texts(own_fleet, "2.root.json", "3.root.json", "targets.json")
    assert (await owner.api("POST", "metadata", json=whole)).body["newer"] is True
    assert (await ready(dms)).status == 200


async def test_a_root_of_others_and_other_names_are_refused(dms: Dms, tmp_path: Path) -> None:
    owner = await dms.owner()
    other = make_fleet(tmp_path / "other")
    rotation.rotate(other, Wish(("root",)))
    answer = await owner.api("POST", "metadata", json=texts(other, "2.root.json", "targets.json"))
    assert (answer.status, "not signed by the root keys before it" in answer.body["message"]) == (422, True)
    for name in ("timestamp.json", "../x.json", "0.root.json", "1.snapshot.json"):
        assert (await owner.api("POST", "metadata", json={"files": {name: "{}"}})).status == 400
    assert (await owner.api("POST", "metadata", json={"files": {}})).status == 400
    reader = await dms.person("eve", scopes=("read",))
    assert (await reader.api("POST", "metadata")).status == 403


async def test_a_products_signatures_are_renewed_without_a_release(start_dms: StartDms, own_fleet: Path) -> None:
    dms = await start_dms(fleet=own_fleet)
    owner, publisher = await dms.owner(), Publisher(own_fleet, PRODUCT)
    assert (await owner.api("POST", "bundles", data=publisher.make("1.0.0"))).status == 201
    metadata = own_fleet / "public"
    signed = Metadata(publisher.role)
    signed.sign(publisher.signer)
    (metadata / f"{PRODUCT}.json").write_bytes(signed.to_bytes())
    # The release key is replaced; its successor signs what was released.
    key = keys.new_key()
    keys.save_private_key(own_fleet / "next" / "release.key", key)
    keys.save_public_key(own_fleet / "next" / "release.pub", key.public_key())
    delegate_product(own_fleet, PRODUCT, own_fleet / "next" / "release.pub")
    assert resign_product(PRODUCT, own_fleet / "next", metadata) == 2
    send = (metadata, dms.web_url, owner.token)
    assert await asyncio.to_thread(lambda: publish_metadata(*send, products=(PRODUCT,))) is True
    assert await asyncio.to_thread(lambda: publish_metadata(*send, products=(PRODUCT,))) is False
    _, _, snapshot = await asyncio.to_thread(served, dms)
    assert snapshot.signed.meta[f"{PRODUCT}.json"].version == 2


async def test_numbers_raised_by_a_thief_end_with_the_stolen_keys(start_dms: StartDms, own_fleet: Path) -> None:
    """Whoever had the server signed numbers that leave no room above; the new keys begin below."""
    dms = await start_dms(fleet=own_fleet)
    folder = dms.settings.data / "tuf" / "metadata"
    _, timestamp, snapshot = await asyncio.to_thread(served, dms)
    signers = {role: keys.load_signer(own_fleet / "online" / f"{role}.key") for role in ("snapshot", "timestamp")}
    snapshot.signed.version = timestamp.signed.version = 999_999_999
    snapshot.sign(signers["snapshot"])
    (folder / "999999999.snapshot.json").write_bytes(snapshot.to_bytes())
    timestamp.signed.snapshot_meta.version = 999_999_999
    timestamp.sign(signers["timestamp"])
    (folder / "timestamp.json").write_bytes(timestamp.to_bytes())
    rotation.rotate(own_fleet, Wish(("snapshot", "timestamp")))
    await dms.core.bundles.take_over(None)
    _, timestamp, snapshot = await asyncio.to_thread(served, dms)
    assert (timestamp.signed.version, snapshot.signed.version) == (1, 2)


async def test_a_timestamp_that_cannot_be_signed_fails_readiness_before_it_expires(
    start_dms: StartDms, own_fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dms = await start_dms(fleet=own_fleet, timestamp_lifetime_s=100)
    await dms.owner()
    assert (await ready(dms)).body["problems"] == []
    late = datetime.now(UTC) + timedelta(seconds=80)
    monkeypatch.setattr(metadata_module, "now", lambda: late)
    answer = await ready(dms)
    assert (answer.status, answer.body["timestamp_fresh"]) == (503, False)
    assert "expires in " in answer.body["problems"][0]
    async with Browser(dms) as browser:
        await browser.sign_in()
        assert (
            "Devices cannot update now: the timestamp for devices expires in " in (await browser.get("/devices")).body
        )
        await dms.core.bundles.refresh_metadata()
        assert "Devices cannot update now" not in (await browser.get("/devices")).body
    await dms.core.bundles.refresh_metadata()
    assert (await ready(dms)).status == 200


async def test_offline_signatures_are_warned_of_and_their_end_does_not_stop_the_server(
    start_dms: StartDms, own_fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = datetime.now(UTC) + timedelta(days=340)
    dms = await start_dms(fleet=own_fleet)
    monkeypatch.setattr(metadata_module, "now", lambda: soon)
    await dms.core.bundles.refresh_metadata()
    answer = await ready(dms)
    assert answer.status == 200
    assert [sentence.split(" ")[0] for sentence in answer.body["warnings"]] == ["root", "targets"]
    over = datetime.now(UTC) + timedelta(days=400)
    monkeypatch.setattr(metadata_module, "now", lambda: over)
    second = await start_dms(fleet=own_fleet, data=own_fleet / "data")
    answer = await ready(second)
    assert answer.status == 503
    assert answer.body["problems"][0].startswith("root version 1 has expired")
