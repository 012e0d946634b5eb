"""Uploading bundles: everything is checked, anything wrong is refused with its reason and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import Targets  # type: ignore[attr-defined]

from scripts.provision_tool.fleet import delegate_product, make_fleet
from tests.server.conftest import StartDms
from tests.server.helpers import PRODUCT, Answer, Dms, Person
from tests.server.making import Publisher, flip, payload, zb
from zentrid.update.metadata import MAX_METADATA_BYTES


async def upload(person: Person, data: bytes, query: str = "") -> Answer:
    """Upload a bundle."""
    return await person.api("POST", f"bundles{query}", data=data)


async def nothing_kept(dms: Dms, person: Person) -> None:
    """Nothing of a refused bundle is left: no row, no payload, no metadata, no temporary file."""
    assert (await person.api("GET", f"bundles/{PRODUCT}")).body == {"bundles": []}
    data = dms.settings.data
    kept = await asyncio.to_thread(lambda: [p for d in ("payloads", "uploads") for p in (data / d).rglob("*.*")])
    assert kept == []
    assert not list((data / "tuf").rglob("*manifest*"))
    assert not list((data / "tuf" / "metadata").glob(f"*.{PRODUCT}.json"))


async def test_publish(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    answer = await upload(owner, publisher.make("1.0.0", notes="first"))
    assert answer.status == 201
    assert answer.body["version"] == "1.0.0"
    assert answer.body["state"] == "published"
    assert answer.body["notes"] == "first"
    assert answer.body["items"][0]["size"] == 300_000
    tagged = await owner.api("POST", f"bundles/{PRODUCT}/1.0.0/tag", json={"tag": "release"})
    assert tagged.body["tags"] == ["release"]
    assert (await owner.api("GET", "products")).body["products"][0]["release"] == "1.0.0"


@pytest.mark.parametrize(
    ("where", "offset", "reason"),
    [
        (b'"format":1', 10, "manifest"),
        (b'"keytype"', 3, ""),
        (f"{PRODUCT}/1.0.0/manifest.json".encode(), 5, ""),
        (b'"sig"', 12, "fleet's"),
        (b"ZPS1", 0, "payload"),
        (b"ZPS1", 45, "payload"),
        (b"ZPS1", 100, "payload"),
        (b"ZPS1", 3000, "payload"),
        (b"ZPS1", 20_000, "payload"),
    ],
)
async def test_one_flipped_bit_is_refused(dms: Dms, fleet: Path, where: bytes, offset: int, reason: str) -> None:
    owner = await dms.owner()
    answer = await upload(owner, flip(Publisher(fleet, PRODUCT).make("1.0.0"), where, offset))
    assert answer.status == 422
    assert answer.body["title"] == "upload_refused"
    assert reason in answer.body["message"]
    await nothing_kept(dms, owner)


async def test_a_flipped_bit_in_every_signed_file_is_refused(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    for name in ("1.root.json", "targets.json", f"{PRODUCT}.json"):

        def spoil(metadata: dict[str, bytes], name: str = name) -> None:
            document = json.loads(metadata[name])
            document["signed"]["version"] += 1
            metadata[name] = json.dumps(document).encode()

        answer = await upload(owner, Publisher(fleet, PRODUCT).make("1.0.0", spoil_metadata=spoil))
        assert answer.status == 422, name
        await nothing_kept(dms, owner)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _longer(data: bytes) -> bytes:
    return data + b"x"


def _garbage(_data: bytes) -> bytes:
    return b"not a bundle at all" * 100


@pytest.mark.parametrize("spoil", [_cut, _longer, _garbage])
async def test_damaged_file_is_refused(dms: Dms, fleet: Path, spoil: Callable[[bytes], bytes]) -> None:
    owner = await dms.owner()
    assert (await upload(owner, spoil(Publisher(fleet, PRODUCT).make("1.0.0")))).status == 422
    await nothing_kept(dms, owner)


async def test_empty_body_is_refused(dms: Dms) -> None:
    assert (await upload(await dms.owner(), b"")).status == 400


async def test_unsigned_bundle_is_refused(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    contents = {"rootfs": payload("1.0.0")}
    answer = await upload(owner, zb(publisher.manifest("1.0.0", contents).to_bytes(), {}, contents))
    assert answer.status == 422
    assert "not signed" in answer.body["message"]


async def test_signed_by_another_key_is_refused(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    stranger = Publisher(fleet, PRODUCT, Ed25519PrivateKey.generate())
    answer = await upload(owner, stranger.make("1.0.0"))
    assert answer.status == 422
    assert "not signed by the release key" in answer.body["message"]
    await nothing_kept(dms, owner)


async def test_bundle_of_another_fleet_is_refused(dms: Dms, tmp_path: Path) -> None:
    owner = await dms.owner()
    other = make_fleet(tmp_path / "other")
    delegate_product(other, PRODUCT)
    answer = await upload(owner, Publisher(other, PRODUCT).make("1.0.0"))
    assert answer.status == 422
    assert "not this fleet's" in answer.body["message"]
    await nothing_kept(dms, owner)


async def test_release_that_the_key_did_not_sign_is_refused(dms: Dms, fleet: Path) -> None:
    """Everything is signed, but the manifest in the file is another one than the signed one."""
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    contents = {"rootfs": payload("1.0.0")}
    publisher.make("1.0.0", contents)
    other = publisher.manifest("1.0.0", contents, notes="changed after signing").to_bytes()
    answer = await upload(owner, zb(other, publisher.chain(publisher.role), contents))
    assert answer.status == 422
    assert "not the one" in answer.body["message"]


async def test_expired_metadata_is_refused(dms: Dms, fleet: Path) -> None:
    def expire(role: Targets) -> None:
        role.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)

    answer = await upload(await dms.owner(), Publisher(fleet, PRODUCT).make("1.0.0", spoil_role=expire))
    assert answer.status == 422
    assert "expired" in answer.body["message"]


async def test_product_without_delegation_is_refused(start_dms: StartDms, tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    dms = await start_dms(fleet=fleet)
    owner = await dms.owner()
    answer = await upload(owner, Publisher(fleet, PRODUCT, Ed25519PrivateKey.generate()).make("1.0.0"))
    assert answer.status == 422
    assert "scripts/provision delegate" in answer.body["message"]


async def test_delegation_made_while_the_server_runs(start_dms: StartDms, tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    dms = await start_dms(fleet=fleet)
    owner = await dms.owner()
    assert (await owner.api("POST", "metadata/targets")).body["newer"] is False
    delegate_product(fleet, PRODUCT)
    assert (await owner.api("POST", "metadata/targets")).body["newer"] is True
    assert (await upload(owner, Publisher(fleet, PRODUCT).make("1.0.0"))).status == 201


async def test_bundle_brings_the_newer_delegation_along(start_dms: StartDms, tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    dms = await start_dms(fleet=fleet)
    owner = await dms.owner()
    delegate_product(fleet, PRODUCT)
    assert (await upload(owner, Publisher(fleet, PRODUCT).make("1.0.0"))).status == 201


async def test_targets_not_signed_by_the_fleet_are_refused(dms: Dms, tmp_path: Path) -> None:
    owner = await dms.owner()
    other = make_fleet(tmp_path / "other")
    delegate_product(other, PRODUCT)
    data = (other / "public" / "targets.json").read_bytes()
    answer = await owner.api("POST", "metadata/targets", data=data)
    assert answer.status == 422
    assert "not signed" in answer.body["message"]


async def test_metadata_larger_than_a_device_reads_is_refused(dms: Dms) -> None:
    owner = await dms.owner()
    sent = [await owner.api("POST", "metadata/targets", data=b" " * (MAX_METADATA_BYTES + more)) for more in (0, 1)]
    assert [answer.status for answer in sent] == [422, 413]


async def test_version_already_there_is_refused(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    first = publisher.make("1.0.0")
    assert (await upload(owner, first)).status == 201
    assert (await upload(owner, first)).status == 409
    changed = publisher.make("1.0.0", {"rootfs": payload("another")})
    answer = await upload(owner, changed)
    assert answer.status == 409
    assert "never changes" in answer.body["message"]


async def test_two_uploads_of_one_version_at_once_give_one_bundle(dms: Dms, fleet: Path) -> None:
    owner, data = await dms.owner(), Publisher(fleet, PRODUCT).make("1.0.0")
    answers = await asyncio.gather(upload(owner, data), upload(owner, data), upload(owner, data))
    assert sorted(answer.status for answer in answers) == [201, 409, 409]


async def test_release_on_the_server_cannot_be_changed_by_a_later_one(dms: Dms, fleet: Path) -> None:
    """A new release whose metadata signs an old version anew would change what a tag points to."""
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    assert (await upload(owner, publisher.make("1.0.0"))).status == 201
    publisher.make("1.0.0", {"rootfs": payload("changed")})
    answer = await upload(owner, publisher.make("1.1.0"))
    assert answer.status == 422
    assert "1.0.0, which is on the server" in answer.body["message"]


async def test_release_on_the_server_cannot_be_left_out_by_a_later_one(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    assert (await upload(owner, Publisher(fleet, PRODUCT).make("1.0.0"))).status == 201
    forgetful = Publisher(fleet, PRODUCT)
    forgetful.role.version = 5
    answer = await upload(owner, forgetful.make("1.1.0"))
    assert answer.status == 422
    assert "leaves out 1.0.0" in answer.body["message"]


async def test_other_metadata_with_the_same_number_is_refused(dms: Dms, fleet: Path) -> None:
    owner = await dms.owner()
    assert (await upload(owner, Publisher(fleet, PRODUCT).make("1.0.0"))).status == 201
    answer = await upload(owner, Publisher(fleet, PRODUCT).make("1.1.0"))
    assert answer.status == 422
    assert "version 1 already" in answer.body["message"]


async def test_bundles_may_arrive_out_of_order(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    first, second = publisher.make("1.0.0"), publisher.make("1.1.0")
    assert (await upload(owner, second)).status == 201
    assert (await upload(owner, first)).status == 201
    versions = [entry["version"] for entry in (await owner.api("GET", f"bundles/{PRODUCT}")).body["bundles"]]
    assert versions == ["1.1.0", "1.0.0"]


async def test_tagged_bundle_is_immutable(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    await upload(owner, publisher.make("1.0.0"))
    await owner.api("POST", f"bundles/{PRODUCT}/1.0.0/tag", json={"tag": "beta"})
    answer = await owner.api("POST", f"bundles/{PRODUCT}/1.0.0/archive")
    assert answer.status == 409
    assert "tag beta" in answer.body["message"]
    assert (await owner.api("DELETE", f"bundles/{PRODUCT}/1.0.0/tag/beta")).body["tags"] == []
    assert (await owner.api("POST", f"bundles/{PRODUCT}/1.0.0/archive")).body["state"] == "archived"
    assert (await owner.api("POST", f"bundles/{PRODUCT}/1.0.0/tag", json={"tag": "beta"})).status == 409


async def test_a_tag_is_on_one_bundle(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    for version in ("1.0.0", "1.1.0"):
        await upload(owner, publisher.make(version))
        await owner.api("POST", f"bundles/{PRODUCT}/{version}/tag", json={"tag": "release"})
    tags = {b["version"]: b["tags"] for b in (await owner.api("GET", f"bundles/{PRODUCT}")).body["bundles"]}
    assert tags == {"1.0.0": [], "1.1.0": ["release"]}
    assert (await owner.api("POST", f"bundles/{PRODUCT}/1.1.0/tag", json={"tag": "stable"})).status == 400


async def test_draft_is_published_by_its_tag(dms: Dms, fleet: Path) -> None:
    owner, publisher = await dms.owner(), Publisher(fleet, PRODUCT)
    assert (await upload(owner, publisher.make("1.0.0"), "?draft=1")).body["state"] == "draft"
    answer = await owner.api("POST", f"bundles/{PRODUCT}/1.0.0/tag", json={"tag": "alpha"})
    assert answer.body["state"] == "published"


async def test_upload_over_the_limit_is_refused(start_dms: StartDms, fleet: Path) -> None:
    dms = await start_dms(bundle_max_bytes=50_000)
    owner, data = await dms.owner(), Publisher(fleet, PRODUCT).make("1.0.0")
    answer = await upload(owner, data)
    assert answer.status == 413
    assert "50000 bytes" in answer.body["message"]

    async def unannounced() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 8192):
            yield data[start : start + 8192]

    assert (await owner.api("POST", "bundles", data=unannounced())).status == 413
    await nothing_kept(dms, owner)


async def test_scope_publish_is_needed(dms: Dms, fleet: Path) -> None:
    await dms.owner("bob")
    reader = await dms.person("ann", scopes=("read",))
    answer = await upload(reader, Publisher(fleet, PRODUCT).make("1.0.0"))
    assert answer.status == 403
    assert "`publish`" in answer.body["message"]


async def test_bundle_for_another_persons_product_is_refused(dms: Dms, fleet: Path) -> None:
    owner, stranger = await dms.owner(), await dms.person("eve")
    assert (await upload(stranger, Publisher(fleet, PRODUCT).make("1.0.0"))).status == 404
    await nothing_kept(dms, owner)
