"""Provisioning: what a fleet, a delegation and a device's identity hold, and what is refused."""

from __future__ import annotations

import hashlib
import json
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from tuf.api.metadata import Metadata, Root, Targets  # type: ignore[attr-defined]

from scripts.bundle_tool.keys import load_private_key, new_key, public_key_of, save_public_key
from scripts.provision_tool import pki
from scripts.provision_tool.device import IMAGE_BYTES, DeviceOptions, load_authority, make_device, make_image
from scripts.provision_tool.errors import ProvisionError
from scripts.provision_tool.fleet import delegate_product, make_fleet

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = "DEMO-VIRT_SENSOR"
UUID_TEXT = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet."""
    return make_fleet(tmp_path_factory.mktemp("provision") / "fleet", ("dms.example", "192.0.2.7"))


def run(*arguments: str) -> tuple[int, Any]:
    """Run the command line with `--json`; return status and answer."""
    done = subprocess.run(
        [str(ROOT / "scripts" / "provision"), *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else done.stderr


def debugfs(image: Path, command: str) -> str:
    """Ask the file system in an image."""
    done = subprocess.run(["/sbin/debugfs", "-R", command, str(image)], capture_output=True, text=True, check=True)
    return done.stdout


# --- fleet --------------------------------------------------------------------------------------------------------------
def test_every_private_key_is_for_the_owner_only(fleet: Path) -> None:
    keys = sorted(str(path.relative_to(fleet)) for path in fleet.rglob("*.key"))
    assert keys == [
        *(f"offline/{name}.key" for name in ("device_ca", "dms_ca", "root", "targets")),
        *(f"online/{name}.key" for name in ("dms", "snapshot", "timestamp")),
    ]
    for name in keys:
        assert stat.S_IMODE((fleet / name).stat().st_mode) == 0o600
    for folder in ("offline", "online"):
        assert stat.S_IMODE((fleet / folder).stat().st_mode) == 0o700


def test_public_folder_holds_no_secret(fleet: Path) -> None:
    assert all(b"PRIVATE" not in path.read_bytes() for path in (fleet / "public").iterdir())


def test_server_certificate_is_good_for_all_its_names(fleet: Path) -> None:
    store = Store([x509.load_pem_x509_certificate((fleet / "public" / "dms_ca.crt").read_bytes())])
    leaf = x509.load_pem_x509_certificate((fleet / "online" / "dms.crt").read_bytes())
    for name in ("localhost", "dms.zentri.local", "dms.example"):
        PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name)).verify(leaf, [])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(a) for a in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "10.0.2.2", "192.0.2.7"}


def test_root_names_one_key_for_each_role(fleet: Path) -> None:
    root = Metadata[Root].from_bytes((fleet / "public" / "1.root.json").read_bytes())
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    assert root.signed.consistent_snapshot
    assert len({keyid for role in root.signed.roles.values() for keyid in role.keyids}) == 4
    for role, place in (("root", "offline"), ("targets", "offline"), ("snapshot", "online"), ("timestamp", "online")):
        key = public_key_of(load_private_key(fleet / place / f"{role}.key").public_key())
        assert root.signed.roles[role].keyids == [key.keyid]


def test_a_fleet_is_never_written_over(fleet: Path) -> None:
    before = {path: path.read_bytes() for path in fleet.rglob("*") if path.is_file()}
    with pytest.raises(ProvisionError, match="never written over"):
        make_fleet(fleet)
    assert {path: path.read_bytes() for path in fleet.rglob("*") if path.is_file()} == before


def test_a_fleet_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("scripts.provision_tool.fleet._make_metadata", fail)
    with pytest.raises(OSError, match="disk full"):
        make_fleet(tmp_path / "fleet")
    assert list(tmp_path.iterdir()) == []


# --- delegation ---------------------------------------------------------------------------------------------------------
def targets_of(fleet: Path) -> Targets:
    """Return the current targets, checked against root."""
    root = Metadata[Root].from_bytes((fleet / "public" / "1.root.json").read_bytes()).signed
    targets = Metadata[Targets].from_bytes((fleet / "public" / "targets.json").read_bytes())
    root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    return targets.signed


def test_delegation_and_rotation_of_the_release_key(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    first = delegate_product(fleet, PRODUCT)
    assert first.made_key == fleet / "products" / PRODUCT / "release.key"
    assert stat.S_IMODE(first.made_key.stat().st_mode) == 0o600
    delegate_product(fleet, "DEMO-VIRT_OTHER")
    save_public_key(tmp_path / "new.pub", new_key().public_key())
    rotated = delegate_product(fleet, PRODUCT, tmp_path / "new.pub")
    assert rotated.made_key is None
    targets = targets_of(fleet)
    assert targets.version == rotated.targets_version == 4
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    role = targets.delegations.roles[PRODUCT]
    assert (role.keyids, role.terminating, role.paths) == ([rotated.keyid], True, [f"{PRODUCT}/*/manifest.json"])
    assert first.keyid not in targets.delegations.keys
    assert "DEMO-VIRT_OTHER" in targets.delegations.roles
    assert sorted(path.name for path in (fleet / "public").glob("*.targets.json"))[-1] == "4.targets.json"


@pytest.mark.parametrize("code", ["demo", "DEMO-VIRT", "../../X", "DEMO-VIRT_SENSOR\n", ""])
def test_bad_product_code_is_refused(fleet: Path, code: str) -> None:
    with pytest.raises(ProvisionError, match="no product code"):
        delegate_product(fleet, code)


def test_a_certificate_key_is_no_release_key(fleet: Path) -> None:
    before = (fleet / "public" / "targets.json").read_bytes()
    status, said = run(
        "delegate", "--fleet", str(fleet), "--product", PRODUCT, "--key", str(fleet / "public" / "dms_ca.crt")
    )
    assert status == 1
    assert said["result"] == "fail"
    assert (fleet / "public" / "targets.json").read_bytes() == before


# --- devices ------------------------------------------------------------------------------------------------------------
def test_identity_folder(fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("ssh-ed25519 AAAA dev\n")
    options = DeviceOptions(
        uuid=UUID_TEXT.upper(), mac="02:aa:bb:cc:dd:ee", dms_port=9443, authorized_keys=tmp_path / "keys"
    )
    made = make_device(fleet, tmp_path / "device", options)
    names = {"identity.json", "device.key", "device.crt", "dms_ca.crt", "root.json", "authorized_keys", "identity.img"}
    assert {path.name for path in made.folder.iterdir()} == names
    certificate = x509.load_pem_x509_certificate((made.folder / "device.crt").read_bytes())
    assert json.loads((made.folder / "identity.json").read_text()) == {
        "uuid": UUID_TEXT,
        "mac": "02:AA:BB:CC:DD:EE",
        "dms_host": "10.0.2.2",
        "dms_port": 9443,
        "made": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assert (made.folder / "root.json").read_bytes() == (fleet / "public" / "1.root.json").read_bytes()
    for secret in ("device.key", "identity.img"):
        assert stat.S_IMODE((made.folder / secret).stat().st_mode) == 0o600


def test_device_certificate(fleet: Path, tmp_path: Path) -> None:
    made = make_device(fleet, tmp_path / "device", DeviceOptions(uuid=UUID_TEXT))
    leaf = x509.load_pem_x509_certificate((made.folder / "device.crt").read_bytes())
    assert leaf.subject.rfc4514_string() == f"CN={UUID_TEXT}"
    store = Store([x509.load_pem_x509_certificate((fleet / "public" / "device_ca.crt").read_bytes())])
    verified = PolicyBuilder().store(store).build_client_verifier().verify(leaf, [])
    assert verified.subjects == [x509.UniformResourceIdentifier(f"urn:uuid:{UUID_TEXT}")]
    ssl.create_default_context().load_cert_chain(made.folder / "device.crt", made.folder / "device.key")
    server_store = Store([x509.load_pem_x509_certificate((fleet / "public" / "dms_ca.crt").read_bytes())])
    with pytest.raises(x509.verification.VerificationError):
        PolicyBuilder().store(server_store).build_client_verifier().verify(leaf, [])


def test_random_identities_differ(fleet: Path, tmp_path: Path) -> None:
    first, second = (make_device(fleet, tmp_path / name, DeviceOptions()) for name in ("1", "2"))
    assert first.uuid != second.uuid
    assert first.mac != second.mac
    assert UUID(first.uuid).version == 4
    assert int(first.mac[:2], 16) & 3 == 2, "locally administered, one device"


def test_image_holds_the_folder_and_belongs_to_root(fleet: Path, tmp_path: Path) -> None:
    made = make_device(fleet, tmp_path / "device", DeviceOptions())
    assert made.image.stat().st_size == IMAGE_BYTES
    for name in ("identity.json", "device.crt", "root.json"):
        assert debugfs(made.image, f"cat /{name}") == (made.folder / name).read_text()
    lines = {line.split()[-1]: line.split() for line in debugfs(made.image, "ls -l /").splitlines() if line.strip()}
    for name in ("identity.json", "device.key"):
        assert lines[name][3:5] == ["0", "0"]
    assert lines["device.key"][1] == "100600"
    assert subprocess.run(["/sbin/e2fsck", "-fn", str(made.image)], capture_output=True, check=False).returncode == 0


def test_same_files_give_the_same_image(fleet: Path, tmp_path: Path) -> None:
    made = make_device(fleet, tmp_path / "device", DeviceOptions())
    before = hashlib.sha256(made.image.read_bytes()).hexdigest()
    made.image.unlink()
    for path in made.folder.iterdir():
        path.touch()
    make_image(made.folder, made.uuid)
    assert hashlib.sha256(made.image.read_bytes()).hexdigest() == before


@pytest.mark.parametrize(
    "options",
    [
        DeviceOptions(uuid="x"),
        DeviceOptions(mac="02:00"),
        DeviceOptions(mac="zz"),
        DeviceOptions(dms_port=0),
        DeviceOptions(dms_host="a b"),
        DeviceOptions(dms_host="dms.example:8443"),
        DeviceOptions(dms_host=""),
        DeviceOptions(authorized_keys=Path("/no/such/file")),
        DeviceOptions(authorized_keys=Path(__file__)),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(fleet: Path, tmp_path: Path, options: DeviceOptions) -> None:
    with pytest.raises(ProvisionError):
        make_device(fleet, tmp_path / "device", options)
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize("host", ["10.0.2.2", "dms.zentri.local", "fd00::2"])
def test_hosts_of_every_kind_are_taken(fleet: Path, tmp_path: Path, host: str) -> None:
    made = make_device(fleet, tmp_path / "device", DeviceOptions(dms_host=host))
    assert json.loads((made.folder / "identity.json").read_text())["dms_host"] == host


def test_a_private_ssh_key_never_comes_onto_a_device(fleet: Path, tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, stdin=subprocess.DEVNULL
    )
    with pytest.raises(ProvisionError, match="no list of public SSH keys"):
        make_device(fleet, tmp_path / "device", DeviceOptions(authorized_keys=key))
    assert not (tmp_path / "device").exists()
    public = key.with_suffix(".pub")
    made = make_device(fleet, tmp_path / "device", DeviceOptions(authorized_keys=public))
    assert (made.folder / "authorized_keys").read_bytes() == public.read_bytes()


def test_an_identity_is_never_written_over(fleet: Path, tmp_path: Path) -> None:
    made = make_device(fleet, tmp_path / "device", DeviceOptions())
    key = (made.folder / "device.key").read_bytes()
    with pytest.raises(ProvisionError, match="not empty"):
        make_device(fleet, tmp_path / "device", DeviceOptions())
    assert (made.folder / "device.key").read_bytes() == key


def test_a_ca_key_of_another_fleet_is_noticed(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    (fleet / "offline" / "device_ca.key").write_bytes(pki.key_pem(pki.new_key()))
    with pytest.raises(ProvisionError, match="do not belong together"):
        load_authority(fleet, "device_ca")


def test_a_folder_that_is_no_fleet_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="no complete fleet folder"):
        make_device(tmp_path, tmp_path / "device", DeviceOptions())


# --- command line -------------------------------------------------------------------------------------------------------
def test_command_line(tmp_path: Path) -> None:
    fleet, device = tmp_path / "fleet", tmp_path / "device"
    assert run("fleet", "--out", str(fleet)) == (0, {"result": "ok", "fleet": str(fleet)})
    status, said = run("delegate", "--fleet", str(fleet), "--product", PRODUCT)
    assert (status, said["targets_version"]) == (0, 2)
    status, said = run("device", "--fleet", str(fleet), "--out", str(device), "--uuid", UUID_TEXT)
    assert (status, said["uuid"], said["image"]) == (0, UUID_TEXT, str(device / "identity.img"))
    status, said = run("fleet", "--out", str(fleet))
    assert (status, said["result"]) == (1, "fail")
