"""Keys that change: thresholds, holders who sign one after another, nothing written over, and when everything ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root, Targets  # type: ignore[attr-defined]

from scripts.bundle_tool import chain, keys
from scripts.bundle_tool.chain import ChainError
from scripts.bundle_tool.keys import KeyFileError
from scripts.provision_tool import rotation, status
from scripts.provision_tool.errors import ProvisionError
from scripts.provision_tool.fleet import delegate_product, make_fleet
from scripts.provision_tool.rotation import Wish

PROVISION = Path(__file__).resolve().parents[3] / "scripts" / "provision"
PRODUCT = "DEMO-VIRT_SENSOR"


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A fleet with one delegated product."""
    made = make_fleet(tmp_path / "fleet")
    delegate_product(made, PRODUCT)
    return made


def files(folder: Path) -> Mapping[str, bytes]:
    """Every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def holders(folder: Path, count: int) -> list[Path]:
    """Make keys of holders, each in a folder of its own."""
    made = []
    for number in range(count):
        key, path = keys.new_key(), folder / f"holder-{number}" / "root.key"
        keys.save_private_key(path, key)
        keys.save_public_key(path.with_suffix(".pub"), key.public_key())
        made.append(path)
    return made


def targets_of(fleet: Path) -> Metadata[Targets]:
    """The newest targets."""
    return chain.parse((fleet / "public" / "targets.json").read_bytes(), Targets)


def test_two_of_three_holders_sign_one_after_another(fleet: Path, tmp_path: Path) -> None:
    people = holders(tmp_path, 3)
    wish = Wish(root_keys=tuple(path.with_suffix(".pub") for path in people), threshold=2)
    proposed = rotation.propose_root(fleet, wish)
    assert (proposed.missing_old, proposed.missing_new) == (1, 2)
    with pytest.raises(ProvisionError, match="lacks 1 of the old holders' signatures and 2 of the new ones'"):
        rotation.finish_root(fleet)
    for key in (people[0], people[0], fleet / "offline" / "root.key"):  # signing twice is signing once
        rotation.sign_root(proposed.path, key)
    with pytest.raises(ProvisionError, match="lacks 0 of the old holders' signatures and 1 of the new ones'"):
        rotation.finish_root(fleet)
    rotation.sign_root(proposed.path, people[2])
    assert rotation.finish_root(fleet).complete
    root = rotation.newest_root(fleet).signed
    assert (root.version, root.roles["root"].threshold, len(root.roles["root"].keyids)) == (2, 2, 3)
    assert not proposed.path.exists()
    # From now on the old key alone is worth nothing, and neither is one holder.
    again = rotation.propose_root(fleet, Wish())
    for key in (fleet / "offline" / "root.key", people[1]):
        rotation.sign_root(again.path, key)
    with pytest.raises(ProvisionError, match="lacks 1 of the old"):
        rotation.finish_root(fleet)


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_every_role_gets_a_new_key_and_no_file_of_before_changes(fleet: Path, role: str) -> None:
    before = files(fleet)
    old = rotation.newest_root(fleet).signed
    rotation.rotate(fleet, Wish((role,)))
    new = rotation.newest_root(fleet).signed
    changed = [name for name in rotation.TOP_ROLES if old.roles[name].keyids != new.roles[name].keyids]
    assert changed == [role]
    after = files(fleet)
    touched = {"public/targets.json"} if role == "targets" else set()
    assert {name for name in before if after[name] != before[name]} == touched
    new.verify_delegate("targets", targets_of(fleet).signed_bytes, targets_of(fleet).signatures)
    assert (fleet / rotation.PLACES[role] / f"{role}.2.key").stat().st_mode & 0o777 == 0o600


def test_after_a_rotation_the_new_keys_do_everything(fleet: Path) -> None:
    rotation.rotate(fleet, Wish(("root", "targets")))
    (fleet / "offline" / "targets.key").unlink()
    (fleet / "offline" / "root.key").unlink()
    assert delegate_product(fleet, "DEMO-VIRT_OVEN").targets_version == 4
    assert rotation.rotate(fleet, Wish(("root",))).version == 3


def test_a_key_that_is_not_here_is_asked_for_before_anything_is_published(fleet: Path) -> None:
    proposed = rotation.propose_root(fleet, Wish(("targets",)))
    rotation.sign_root(proposed.path, fleet / "offline" / "root.key")
    (fleet / "offline" / "targets.2.key").rename(fleet / "elsewhere.key")
    with pytest.raises(ProvisionError, match="has 0 of the 1 targets keys that root 2 demands"):
        rotation.finish_root(fleet)
    assert not (fleet / "public" / "2.root.json").exists()
    (fleet / "elsewhere.key").rename(fleet / "offline" / "targets.2.key")
    assert rotation.finish_root(fleet).version == 2


def test_a_finish_that_was_cut_is_finished_by_the_next(fleet: Path) -> None:
    proposed = rotation.propose_root(fleet, Wish(("targets",)))
    rotation.sign_root(proposed.path, fleet / "offline" / "root.key")
    (fleet / "public" / "2.root.json").write_bytes(proposed.path.read_bytes())  # the power went after this
    assert rotation.finish_root(fleet).version == 2
    rotation.newest_root(fleet).signed.verify_delegate(
        "targets", targets_of(fleet).signed_bytes, targets_of(fleet).signatures
    )


def test_one_proposal_at_a_time(fleet: Path) -> None:
    first = rotation.propose_root(fleet, Wish())
    content = first.path.read_bytes()
    with pytest.raises(ProvisionError, match="waits for signatures already"):
        rotation.propose_root(fleet, Wish(("snapshot",)))
    assert first.path.read_bytes() == content


@pytest.mark.parametrize("wish", [Wish(("timestamp",)), Wish()])
def test_a_proposal_that_waits_with_other_changes_is_not_signed_unseen(fleet: Path, wish: Wish) -> None:
    content = rotation.propose_root(fleet, Wish(("snapshot",))).path.read_bytes()
    with pytest.raises(ProvisionError, match="waits with other changes"):
        rotation.rotate(fleet, wish)
    assert (fleet / "proposed" / "2.root.json").read_bytes() == content
    assert rotation.rotate(fleet, Wish(("snapshot",))).version == 2, "its own, from a run that was cut, goes on"


def test_what_cannot_be_is_refused(fleet: Path, tmp_path: Path) -> None:
    one = holders(tmp_path, 1)[0].with_suffix(".pub")
    with pytest.raises(ChainError, match="too few for threshold 2"):
        rotation.propose_root(fleet, Wish(root_keys=(one,), threshold=2))
    with pytest.raises(ProvisionError, match="is no role"):
        rotation.propose_root(fleet, Wish(("mirrors",)))
    with pytest.raises(ProvisionError, match="no root is proposed"):
        rotation.finish_root(fleet)
    with pytest.raises(KeyFileError, match="there already"):
        keys.save_private_key(fleet / "offline" / "root.key", keys.new_key())


def test_signed_again_before_the_end(fleet: Path) -> None:
    before = targets_of(fleet).signed
    assert rotation.resign(fleet, ("root", "targets"), 730) == {"root": 2, "targets": 3}
    now = datetime.now(UTC)
    for signed in (rotation.newest_root(fleet).signed, targets_of(fleet).signed):
        assert signed.expires - now > timedelta(days=729)
    assert targets_of(fleet).signed.delegations == before.delegations


def test_a_revoked_product(fleet: Path) -> None:
    assert rotation.revoke_product(fleet, PRODUCT) == 3
    assert not chain.named_roles(targets_of(fleet).signed.delegations)  # type: ignore[arg-type]
    with pytest.raises(ChainError, match="nothing to revoke"):
        rotation.revoke_product(fleet, PRODUCT)
    assert delegate_product(fleet, PRODUCT).targets_version == 4


def test_status_tells_every_end_and_every_key(fleet: Path, tmp_path: Path) -> None:
    people = holders(tmp_path, 2)
    rotation.propose_root(fleet, Wish(root_keys=tuple(path.with_suffix(".pub") for path in people), threshold=2))
    facts: Any = json.loads(json.dumps(status.facts(fleet)))
    assert [entry["name"] for entry in facts["endings"]] == [
        "root", "targets", "online/dms.crt", "public/device_ca.crt", "public/dms_ca.crt",
    ]  # fmt: skip
    assert facts["endings"][0]["days_left"] in (364, 365)
    places = {entry["role"]: list(entry["keys"].values()) for entry in facts["keys"]}
    assert places == {
        "root": ["offline/root.key"], "targets": ["offline/targets.key"], "snapshot": ["online/snapshot.key"],
        "timestamp": ["online/timestamp.key"], PRODUCT: [f"products/{PRODUCT}/release.key"],
    }  # fmt: skip
    assert facts["proposed"] == ["2.root.json"]
    ending = status.endings(fleet, datetime.now(UTC) + timedelta(days=400))[0]
    assert ending.days_left < 0


def test_the_command_line(fleet: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        done = subprocess.run([str(PROVISION), *arguments, "--json"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    key = tmp_path / "ann" / "root.key"
    assert run("newkey", "--out", str(key))["public"].endswith("root.pub")
    asked = ("--root-key", str(key.with_suffix(".pub")), "--rotate", "snapshot")
    proposal = run("root", "propose", "--fleet", str(fleet), *asked)["proposal"]
    for signer in (fleet / "offline" / "root.key", key):
        run("root", "sign", proposal, "--key", str(signer))
    assert run("root", "finish", "--fleet", str(fleet))["root_version"] == 2
    found = {entry["role"]: list(entry["keys"].values()) for entry in run("status", "--fleet", str(fleet))["keys"]}
    assert found["root"] == ["elsewhere"]
    assert found["snapshot"] == ["online/snapshot.2.key"]
    assert chain.parse((fleet / "public" / "2.root.json").read_bytes(), Root).signed.version == 2
