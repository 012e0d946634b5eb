"""A device's identity: key, certificate, where its server is, whom it trusts; as a folder and as an ext4 image."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from scripts.bundle_tool.files import write_new
from scripts.provision_tool import pki
from scripts.provision_tool.errors import ProvisionError
from zentrid.core.names import partition

HOST_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}|[0-9A-Fa-f:.]{2,45}", re.ASCII)
"""A host name, an IPv4 or an IPv6 address."""
KEY_PATTERN = re.compile(rb"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}( .*)?")
MAX_KEYS_BYTES = 64 * 1024
MAC_PATTERN = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}")
IMAGE_NAME = "identity.img"
IMAGE_BYTES = partition("identity").size_bytes
IMAGE_TIME = 1_577_836_800
"""2020-01-01: one time for everything in the image, so that the same identity gives the same image."""


@dataclass(frozen=True)
class DeviceOptions:
    """What a device's identity is made from; None: chosen at random."""

    uuid: str | None = None
    mac: str | None = None
    dms_host: str = "10.0.2.2"
    dms_port: int = 8443
    authorized_keys: Path | None = None
    """Public SSH keys for development boards; production boards get none."""
    days: int = pki.DEVICE_DAYS


@dataclass(frozen=True)
class DeviceIdentity:
    """What was made."""

    uuid: str
    mac: str
    folder: Path
    image: Path


def make_device(fleet: Path, out: Path, options: DeviceOptions) -> DeviceIdentity:
    """Make the identity of one device in the folder `out`, which must be empty or absent. Raises ProvisionError."""
    uuid, mac = _checked_uuid(options.uuid), _checked_mac(options.mac)
    if out.exists() and any(out.iterdir()):
        raise ProvisionError(f"{out} is not empty; choose a new folder, so that no identity is lost")
    if not 1 <= options.dms_port <= 65535:
        raise ProvisionError(f"{options.dms_port} is no port; choose 1 to 65535")
    if not HOST_PATTERN.fullmatch(options.dms_host):
        raise ProvisionError(f"{options.dms_host[:80]!r} is no host; write a name or an address, without a port")
    authorized_keys = _checked_keys(options.authorized_keys)
    authority = load_authority(fleet, "device_ca")
    key = pki.new_key()
    certificate = pki.device_certificate(authority, uuid, key.public_key(), options.days)
    made = certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    identity = {"uuid": uuid, "mac": mac, "dms_host": options.dms_host, "dms_port": options.dms_port, "made": made}
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(out / "identity.json", json.dumps(identity, indent=2).encode() + b"\n", secret=False)
    write_new(out / "device.key", pki.key_pem(key), secret=True)
    write_new(out / "device.crt", pki.certificate_pem(certificate), secret=False)
    write_new(out / "dms_ca.crt", read_public(fleet, "dms_ca.crt"), secret=False)
    write_new(out / "root.json", read_public(fleet, "1.root.json"), secret=False)
    if authorized_keys is not None:
        write_new(out / "authorized_keys", authorized_keys, secret=False)
    make_image(out, uuid)
    return DeviceIdentity(uuid, mac, out, out / IMAGE_NAME)


def load_authority(fleet: Path, name: str) -> pki.Authority:
    """Return an authority of the fleet (`device_ca` or `dms_ca`). Raises ProvisionError."""
    try:
        certificate = (fleet / "public" / f"{name}.crt").read_bytes()
        return pki.Authority.load(certificate, (fleet / "offline" / f"{name}.key").read_bytes())
    except (OSError, ValueError) as error:
        raise ProvisionError(f"{fleet} is no complete fleet folder ({error}); make one with `fleet`") from error


def read_public(fleet: Path, name: str) -> bytes:
    """Return a public file of the fleet. Raises ProvisionError."""
    try:
        return (fleet / "public" / name).read_bytes()
    except OSError as error:
        raise ProvisionError(f"{fleet} lacks public/{name}; make a fleet with `fleet`") from error


def make_image(folder: Path, uuid: str) -> None:
    """Make `identity.img`, an ext4 file system with the folder's other files. The same files give the same image.

    Raises ProvisionError when mke2fs is missing or fails.
    """
    image = folder / IMAGE_NAME
    names = sorted(path.name for path in folder.iterdir())
    stage = folder / f".stage-{secrets.token_hex(4)}"
    stage.mkdir(mode=0o755)
    try:
        for name in names:
            mode = (folder / name).stat().st_mode & 0o777
            (stage / name).write_bytes((folder / name).read_bytes())
            (stage / name).chmod(mode)
            os.utime(stage / name, (IMAGE_TIME, IMAGE_TIME))
        os.utime(stage, (IMAGE_TIME, IMAGE_TIME))
        _run_mke2fs(stage, image, uuid, names)
    except BaseException:
        image.unlink(missing_ok=True)
        raise
    finally:
        for name in names:
            (stage / name).unlink(missing_ok=True)
        stage.rmdir()


def _run_mke2fs(stage: Path, image: Path, uuid: str, names: list[str]) -> None:
    file_system_uuid = str(uuid5(NAMESPACE_URL, f"urn:uuid:{uuid}/identity"))
    environment = {
        **os.environ,
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        "E2FSPROGS_FAKE_TIME": str(IMAGE_TIME),
        "SOURCE_DATE_EPOCH": str(IMAGE_TIME),
    }
    write_new(image, b"", secret=True)
    os.truncate(image, IMAGE_BYTES)
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-m", "0", "-O", "^has_journal,^resize_inode"]
    make += ["-L", "identity", "-U", file_system_uuid]
    make += ["-E", f"hash_seed={file_system_uuid},root_owner=0:0,lazy_itable_init=0", "-d", str(stage), str(image)]
    _run(make, environment)
    # Whoever ran this, on the device the files belong to root.
    commands = "".join(f"sif /{name} uid 0\nsif /{name} gid 0\n" for name in names)
    # Every change by debugfs sets times; these are set back to the one time.
    commands += "".join(
        f"sif /{name} {field} @{IMAGE_TIME}\n" for name in [*names, ""] for field in ("atime", "ctime", "crtime")
    )
    _run(["debugfs", "-w", "-f", "/dev/stdin", str(image)], environment, commands)


def _run(command: list[str], environment: dict[str, str], text: str | None = None) -> None:
    try:
        subprocess.run(command, env=environment, input=text, check=True, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise ProvisionError(f"{command[0]} is missing; install e2fsprogs") from error
    except subprocess.CalledProcessError as error:
        raise ProvisionError(f"{command[0]} failed: {error.stderr.strip()[:200]}; the disk may be full") from error


def _checked_uuid(text: str | None) -> str:
    try:
        return str(uuid4() if text is None else UUID(text))
    except ValueError as error:
        raise ProvisionError(f"{text!r} is no UUID; leave it out for a random one") from error


def _checked_mac(text: str | None) -> str:
    if text is None:
        # Locally administered, one device: bit 1 of the first byte set, bit 0 clear.
        first, *rest = secrets.token_bytes(6)
        return ":".join(f"{byte:02X}" for byte in [first & 0xFC | 0x02, *rest])
    if not MAC_PATTERN.fullmatch(text.upper()):
        raise ProvisionError(f"{text!r} is no MAC address; write six hexadecimal pairs with colons")
    return text.upper()


def _checked_keys(path: Path | None) -> bytes | None:
    """Return the public SSH keys in a file; a private key must never come onto a device."""
    if path is None:
        return None
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_KEYS_BYTES + 1)
    except OSError as error:
        raise ProvisionError(f"--authorized-keys {path}: cannot be read ({error.strerror}); check the path") from error
    lines = [line.strip() for line in data.splitlines() if line.strip() and not line.startswith(b"#")]
    if len(data) > MAX_KEYS_BYTES or not lines or not all(KEY_PATTERN.fullmatch(line) for line in lines):
        raise ProvisionError(
            f"--authorized-keys {path}: is no list of public SSH keys; give a file like id_ed25519.pub"
        )
    return data
