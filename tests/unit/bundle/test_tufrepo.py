"""TUF metadata: the reference client accepts what is made here, and the chain check refuses everything else."""

import copy
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp  # type: ignore[attr-defined]
from tuf.ngclient import FetcherInterface, Updater  # type: ignore[attr-defined]

from scripts.bundle_tool import tufrepo
from scripts.bundle_tool.chain import ChainError, parse, verify_chain, verify_roots
from scripts.bundle_tool.keys import new_key, signer_of
from tests.unit.bundle.making import PRODUCT, item, manifest
from zentrid.bundle.zbfile import MAX_METADATA_BYTES

OTHER = "DEMO-VIRT_OTHER"
KEYS = {name: signer_of(new_key()) for name in ("root", "root2", "targets", "targets2", "snapshot", "timestamp",
                                                "release", "release2", "other")}  # fmt: skip
RELEASE = manifest(item())
NOW = datetime.now(UTC).replace(microsecond=0)


def public(*names: str):
    return [KEYS[name].public_key for name in names]


class Fleet:
    """A repository as provisioning, publisher and server make it together, all in memory."""

    def __init__(self):
        self.roots = [
            tufrepo.new_root(
                root=[KEYS["root"]],
                targets=public("targets"),
                snapshot=public("snapshot"),
                timestamp=public("timestamp"),
            )
        ]
        targets = tufrepo.new_targets([KEYS["targets"]])
        targets = tufrepo.delegate(targets, PRODUCT, public("release"), [KEYS["targets"]])
        self.targets = tufrepo.delegate(targets, OTHER, public("other"), [KEYS["targets"]])
        self.delegated = tufrepo.add_release(None, RELEASE, [KEYS["release"]])
        self.version = 1

    @property
    def chain(self):
        """Root, targets, delegated, manifest: what a bundle carries."""
        targets, delegated = tufrepo.to_bytes(self.targets), tufrepo.to_bytes(self.delegated)
        return [tufrepo.to_bytes(self.roots[-1]), targets, delegated, RELEASE.to_bytes()]

    def served(self):
        """Return every file that the server gives, by path."""
        targets, delegated = tufrepo.to_bytes(self.targets), tufrepo.to_bytes(self.delegated)
        version = self.version
        snapshot = tufrepo.to_bytes(
            tufrepo.new_snapshot(targets, {PRODUCT: delegated}, [KEYS["snapshot"]], version=version)
        )
        timestamp = tufrepo.new_timestamp(snapshot, [KEYS["timestamp"]], version=version)
        content = RELEASE.to_bytes()
        files = {
            "/metadata/timestamp.json": tufrepo.to_bytes(timestamp),
            f"/metadata/{version}.snapshot.json": snapshot,
            f"/metadata/{self.targets.signed.version}.targets.json": targets,
            f"/metadata/{self.delegated.signed.version}.{PRODUCT}.json": delegated,
            f"/targets/{tufrepo.served_target_name(RELEASE.target_path, content)}": content,
        }
        for root in self.roots:
            files[f"/metadata/{root.signed.version}.root.json"] = tufrepo.to_bytes(root)
        return files


class Server(FetcherInterface):
    """Gives files from memory to the reference client."""

    def __init__(self, files):
        self.files = files

    def _fetch(self, url):
        path = urlsplit(url).path
        if path not in self.files:
            raise DownloadHTTPError(path, 404)
        yield self.files[path]


@pytest.fixture
def fleet():
    return Fleet()


def client(fleet, folder):
    """Return the reference client, as a device with the fleet's first root has it."""
    metadata, targets = folder / "metadata", folder / "targets"
    metadata.mkdir(exist_ok=True)
    targets.mkdir(exist_ok=True)
    if not (metadata / "root.json").exists():
        (metadata / "root.json").write_bytes(tufrepo.to_bytes(fleet.roots[0]))
    server = Server(fleet.served())
    return Updater(str(metadata), "http://dms/metadata/", str(targets), "http://dms/targets/", fetcher=server)


# --- the reference client -------------------------------------------------------------------------------------------


def test_the_reference_client_finds_and_downloads_a_release(fleet, tmp_path):
    updater = client(fleet, tmp_path)
    info = updater.get_targetinfo(RELEASE.target_path)
    assert info is not None
    updater.download_target(info, str(tmp_path / "manifest.json"))
    assert (tmp_path / "manifest.json").read_bytes() == RELEASE.to_bytes()


def test_the_reference_client_follows_key_rotations_that_it_missed(fleet, tmp_path):
    client(fleet, tmp_path).refresh()
    first = fleet.roots[0]
    second = tufrepo.next_root(first, [KEYS["root"], KEYS["root2"]], roles={"root": (public("root", "root2"), 2)})
    third = tufrepo.next_root(second, [KEYS["root"], KEYS["root2"]], roles={"targets": (public("targets2"), 1)})
    fourth = tufrepo.next_root(third, [KEYS["root"], KEYS["root2"]], roles={"root": (public("root2"), 1)})
    fleet.roots += [second, third, fourth]
    fleet.targets = tufrepo.delegate(fleet.targets, PRODUCT, public("release"), [KEYS["targets2"]])
    fleet.version += 1
    updater = client(fleet, tmp_path)
    assert updater.get_targetinfo(RELEASE.target_path) is not None
    assert verify_roots(*_bytes_of(fleet.roots)).signed.version == 4


def _bytes_of(roots):
    first, *newer = (tufrepo.to_bytes(root) for root in roots)
    return first, newer


def test_the_reference_client_refuses_a_release_signed_with_a_revoked_key(fleet, tmp_path):
    client(fleet, tmp_path).refresh()
    fleet.targets = tufrepo.delegate(fleet.targets, PRODUCT, public("release2"), [KEYS["targets"]])
    fleet.version += 1
    with pytest.raises(RepositoryError):
        client(fleet, tmp_path).get_targetinfo(RELEASE.target_path)


def test_a_product_key_has_no_say_over_another_product(fleet, tmp_path):
    fleet.delegated.signed.targets[f"{OTHER}/1.0.0/manifest.json"] = TargetFile.from_data("x", b"x", ["sha256"])
    tufrepo.sign(fleet.delegated, [KEYS["release"]])
    assert client(fleet, tmp_path).get_targetinfo(RELEASE.target_path) is not None
    with pytest.raises(RepositoryError):  # its own role is not published: asked for, and not replaced by another's word
        client(fleet, tmp_path).get_targetinfo(f"{OTHER}/1.0.0/manifest.json")


def test_lifetimes(fleet):
    files = fleet.served()
    assert _days(parse(files["/metadata/timestamp.json"], Timestamp)) == 1
    assert _days(parse(files["/metadata/1.snapshot.json"], Snapshot)) == 7
    assert {_days(part) for part in (fleet.roots[0], fleet.targets, fleet.delegated)} == {365}
    assert fleet.roots[0].signed.consistent_snapshot


def _days(metadata):
    return round((metadata.signed.expires - NOW) / timedelta(days=1))


def test_the_same_content_gives_the_same_bytes():
    made = [tufrepo.to_bytes(tufrepo.add_release(None, RELEASE, [KEYS["release"]], now=NOW)) for _ in range(2)]
    assert made[0] == made[1]


# --- the chain ------------------------------------------------------------------------------------------------------


def verified(chain, now=NOW):
    root, targets, delegated, content = chain
    return verify_chain(root, targets, delegated, content, now)


def test_the_chain_of_a_release(fleet):
    release = verified(fleet.chain)
    assert release.manifest == RELEASE
    assert release.delegated.signed.version == 1


def refused(reason, chain, now=NOW):
    with pytest.raises(ChainError) as caught:
        verified(chain, now)
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_any_changed_part_is_refused(fleet, part):
    chain = fleet.chain
    chain[part] = chain[part].replace(b'"expires":"20', b'"expires":"21')
    refused("bad_signature", chain)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_part_without_signature_is_refused(fleet, part):
    chain = fleet.chain
    metadata = Metadata.from_bytes(chain[part])
    metadata.signatures.clear()
    chain[part] = metadata.to_bytes()
    refused("bad_signature", chain)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[" * 100_000, b"x" * (MAX_METADATA_BYTES + 1)])
def test_rubbish_is_refused(fleet, part, data):
    chain = fleet.chain
    chain[part] = data
    refused("bad_metadata", chain)


def test_parts_in_the_wrong_place_are_refused(fleet):
    root, targets, delegated, content = fleet.chain
    refused("bad_metadata", [targets, targets, delegated, content])
    refused("bad_signature", [root, delegated, delegated, content])
    refused("bad_signature", [root, targets, targets, content])


def test_another_manifest_is_refused(fleet):
    chain = fleet.chain
    chain[3] = manifest(item(), notes="changed").to_bytes()
    assert "not the one that was signed" in refused("bad_signature", chain)
    chain[3] = manifest(item(), version="1.2.4").to_bytes()
    refused("not_signed", chain)
    chain[3] = manifest(item(), product="DEMO-VIRT_NEW").to_bytes()
    assert "provision delegate" in refused("not_delegated", chain)
    chain[3] = manifest(item(), product=OTHER).to_bytes()
    refused("bad_signature", chain)
    chain[3] = b"{}"
    refused("bad_manifest", chain)


def test_a_delegation_that_does_not_cover_the_release_is_refused(fleet):
    delegations = fleet.targets.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles[PRODUCT].paths = [f"{PRODUCT}/2.*/manifest.json"]
    tufrepo.sign(fleet.targets, [KEYS["targets"]])
    refused("not_delegated", fleet.chain)


def test_another_fleet_is_refused(fleet):
    other = tufrepo.new_root(
        root=[KEYS["root"]],
        targets=public("targets2"),
        snapshot=public("snapshot"),
        timestamp=public("timestamp"),
    )
    refused("bad_signature", [tufrepo.to_bytes(other), *fleet.chain[1:]])


def test_freshness_is_looked_at_only_with_a_clock(fleet):
    late = NOW + timedelta(days=366)
    assert verified(fleet.chain, None).manifest == RELEASE
    assert "sign it again" in refused("expired", fleet.chain, late)
    fleet.roots = [tufrepo.next_root(fleet.roots[0], [KEYS["root"]], days=1000)]
    assert "targets" in refused("expired", fleet.chain, late)
    fleet.targets = tufrepo.delegate(fleet.targets, PRODUCT, public("release"), [KEYS["targets"]], days=1000)
    assert PRODUCT in refused("expired", fleet.chain, late)
    fleet.delegated = tufrepo.add_release(fleet.delegated, RELEASE, [KEYS["release"]], days=1000)
    assert verified(fleet.chain, late).delegated.signed.version == 2


def test_a_threshold_of_release_keys(fleet):
    keys = public("release", "release2")
    fleet.targets = tufrepo.delegate(fleet.targets, PRODUCT, keys, [KEYS["targets"]], threshold=2)
    refused("bad_signature", fleet.chain)
    fleet.delegated = tufrepo.sign(fleet.delegated, [KEYS["release"], KEYS["release2"]])
    assert verified(fleet.chain).manifest == RELEASE
    with pytest.raises(ChainError, match="too few"):
        tufrepo.delegate(fleet.targets, PRODUCT, public("release", "release"), [KEYS["targets"]], threshold=2)


# --- roots ----------------------------------------------------------------------------------------------------------


def test_a_root_that_the_one_before_did_not_sign_is_refused(fleet):
    first = fleet.roots[0]
    stolen = copy.deepcopy(first)
    stolen.signed.version = 2
    tufrepo.sign(stolen, [KEYS["root2"]])
    with pytest.raises(ChainError) as caught:
        verify_roots(tufrepo.to_bytes(first), [tufrepo.to_bytes(stolen)])
    assert caught.value.reason == "bad_signature"


def test_roots_must_follow_each_other(fleet):
    first = fleet.roots[0]
    second = tufrepo.next_root(first, [KEYS["root"]])
    third = tufrepo.next_root(second, [KEYS["root"]])
    data = [tufrepo.to_bytes(root) for root in (first, second, third)]
    assert verify_roots(data[0], data[1:]).signed.version == 3
    assert verify_roots(data[2], data).signed.version == 3, "older roots in a bundle are passed over"
    with pytest.raises(ChainError, match="root version 2 is missing"):
        verify_roots(data[0], [data[2]])
    with pytest.raises(ChainError, match="expired"):
        verify_roots(data[0], data[1:], NOW + timedelta(days=366))


def test_a_new_root_needs_the_old_keys_and_the_new_ones(fleet):
    roles = {"root": (public("root2"), 1)}
    for signers in (["root"], ["root2"]):
        with pytest.raises(ChainError, match="not signed as version 1 demands"):
            tufrepo.next_root(fleet.roots[0], [KEYS[name] for name in signers], roles=roles)
    assert tufrepo.next_root(fleet.roots[0], [KEYS["root"], KEYS["root2"]], roles=roles).signed.version == 2


def test_a_threshold_above_the_number_of_keys_is_refused():
    with pytest.raises(ChainError, match="too few"):
        tufrepo.new_root(
            root=[KEYS["root"]], root_threshold=2, targets=public("targets"), snapshot=public("snapshot"),
            timestamp=public("timestamp"),
        )  # fmt: skip


# --- delegations and releases ---------------------------------------------------------------------------------------


def test_delegating_again_replaces_the_keys(fleet):
    assert set(tufrepo.release_keys(fleet.targets, PRODUCT)) == {KEYS["release"].public_key.keyid}
    targets = tufrepo.delegate(fleet.targets, PRODUCT, public("release2"), [KEYS["targets"]])
    assert set(tufrepo.release_keys(targets, PRODUCT)) == {KEYS["release2"].public_key.keyid}
    assert KEYS["release"].public_key.keyid.encode() not in tufrepo.to_bytes(targets)
    assert KEYS["release"].public_key.keyid.encode() in tufrepo.to_bytes(fleet.targets), "the old one stays as it was"
    assert targets.signed.version == fleet.targets.signed.version + 1
    assert tufrepo.release_keys(targets, OTHER)


def test_revoking_a_delegation(fleet):
    fleet.targets = tufrepo.revoke_delegation(fleet.targets, PRODUCT, [KEYS["targets"]])
    refused("not_delegated", fleet.chain)
    with pytest.raises(ChainError, match="nothing to revoke"):
        tufrepo.revoke_delegation(fleet.targets, PRODUCT, [KEYS["targets"]])


@pytest.mark.parametrize("product", ["", "../x", "demo", "DEMO-VIRT_*"])
def test_what_is_no_product_code_cannot_be_delegated(fleet, product):
    with pytest.raises(ChainError, match="product code"):
        tufrepo.delegate(fleet.targets, product, public("release"), [KEYS["targets"]])


def test_a_release_is_never_changed_by_accident(fleet):
    changed = manifest(item(), notes="changed")
    with pytest.raises(ChainError) as caught:
        tufrepo.add_release(fleet.delegated, changed, [KEYS["release"]])
    assert caught.value.reason == "release_exists"
    replaced = tufrepo.add_release(fleet.delegated, changed, [KEYS["release"]], replace=True)
    assert tufrepo.has_release(replaced, changed)
    assert not tufrepo.has_release(replaced, RELEASE)


def test_releases_are_kept(fleet):
    second = tufrepo.add_release(fleet.delegated, manifest(item(), version="1.3.0"), [KEYS["release"]])
    assert sorted(second.signed.targets) == [f"{PRODUCT}/1.2.3/manifest.json", f"{PRODUCT}/1.3.0/manifest.json"]
    assert second.signed.version == 2


def test_parse_knows_kinds(fleet):
    data = tufrepo.to_bytes(fleet.roots[0])
    assert parse(data, Root).signed.version == 1
    with pytest.raises(ChainError, match="type root is where targets"):
        parse(data, Targets)
