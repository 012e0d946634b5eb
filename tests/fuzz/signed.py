"""The chain of signed metadata as a fuzz target: the check of a bundle and the whole online workflow, over memory.

One input holds six files. Its first byte says which of the two ways is taken and which files are signed anew by the right
keys after the fuzzer has changed them: without that nothing would be read behind the first signature.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # not listed by the package

from scripts.bundle_tool import tufrepo
from zentrid.bundle.manifest import Item, Manifest
from zentrid.core.version import Version
from zentrid.update.errors import DmsError, DmsRefusedError, DmsUnreachableError, UntrustedError
from zentrid.update.metadata import TrustStore, offline_manifest, online_manifest
from zentrid.update.transport import Transport

PRODUCT: Final = "DEMO-VIRT_SENSOR"
FILES: Final = ("2.root.json", "targets.json", f"{PRODUCT}.json", "snapshot.json", "timestamp.json", "manifest.json")
SIGNERS: Final = (("root",), ("targets",), (PRODUCT,), ("snapshot",), ("timestamp",), ())
ONLINE: Final = 0x80
LINK: Final = 0x40
"""Timestamp and snapshot are made to fit the files that they name."""
_MADE: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DAYS: Final = 36_500


def signer(name: str) -> CryptoSigner:
    """Return the key of a role: made from its name, so that the corpus stays valid. It signs nothing else."""
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


@cache
def genuine() -> tuple[bytes, tuple[bytes, ...]]:
    """Return the root of manufacture, and the six files as they should be."""
    keys = {name: signer(name) for name in ("root", "targets", "snapshot", "timestamp", PRODUCT)}
    root = tufrepo.new_root(
        root=[keys["root"]],
        targets=[keys["targets"].public_key],
        snapshot=[keys["snapshot"].public_key],
        timestamp=[keys["timestamp"].public_key],
        now=_MADE,
        days=_DAYS,
    )
    second = tufrepo.next_root(root, [keys["root"]], now=_MADE, days=_DAYS)
    first = tufrepo.new_targets([keys["targets"]], now=_MADE, days=_DAYS)
    release = [keys[PRODUCT].public_key]
    top = tufrepo.delegate(first, PRODUCT, release, [keys["targets"]], now=_MADE, days=_DAYS)
    manifest = Manifest(PRODUCT, Version(1, 1, 0), ("virt",), (Item("kernel", "kernel", 1, "0" * 64),))
    delegated = tufrepo.add_release(None, manifest, [keys[PRODUCT]], now=_MADE, days=_DAYS)
    files = [tufrepo.to_bytes(second), tufrepo.to_bytes(top), tufrepo.to_bytes(delegated)]
    snapshot = tufrepo.to_bytes(
        tufrepo.new_snapshot(files[1], {PRODUCT: files[2]}, [keys["snapshot"]], version=1, now=_MADE, days=_DAYS)
    )
    timestamp = tufrepo.new_timestamp(snapshot, [keys["timestamp"]], version=1, now=_MADE, days=_DAYS)
    return tufrepo.to_bytes(root), (*files, snapshot, tufrepo.to_bytes(timestamp), manifest.to_bytes())


def pack(flags: int, files: tuple[bytes, ...] | list[bytes]) -> bytes:
    """Return the input with these files."""
    return bytes([flags]) + b"".join(len(data).to_bytes(4, "big") + data for data in files)


def unpack(data: bytes) -> tuple[int, list[bytes]]:
    """Return flags and files of an input; what is missing is empty."""
    flags, rest, files = data[0] if data else 0, data[1:], []
    for _ in FILES:
        size = int.from_bytes(rest[:4], "big")
        files.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    return flags, files


def signed_metadata(data: bytes) -> bool:
    """Nothing but the errors that are promised; what is accepted is exactly the manifest that was signed."""
    flags, files = unpack(data)
    signed = [_signed_again(number, one) if flags >> number & 1 else one for number, one in enumerate(files)]
    if flags & LINK:
        _link(signed)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        return _check(flags, signed, folder)
    finally:
        shutil.rmtree(folder)


def _check(flags: int, files: list[bytes], folder: Path) -> bool:
    root, right = genuine()
    store = TrustStore(folder, root, _MADE)
    named = dict(zip(FILES, files, strict=True))
    path = f"{PRODUCT}/1.1.0/manifest.json"
    try:
        if flags & ONLINE:
            found = online_manifest(store, cast("Transport", MemoryTransport(named)), path)
        else:
            offline_manifest(store, named, PRODUCT, path, named["manifest.json"])
            found = named["manifest.json"]
    except (UntrustedError, DmsError) as error:
        assert str(error)  # noqa: PT017 - an invariant, no expectation
        return False
    finally:
        # Whatever came, the device still trusts its own root of trust and can walk on from it.
        assert store.keep_roots([]).signed.version >= 1
    assert found == named["manifest.json"]
    if not flags & (ONLINE - 1):
        assert found == right[5], "a manifest that nobody signed was accepted"
    return True


class MemoryTransport:
    """Serves the files of one input by their names, whatever version or hash is asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        """Return one file, as `Transport.get_bytes` does."""
        name = path.rpartition("/")[2]
        known = name if name in self._files else name.partition(".")[2]
        data = self._files.get(known, b"")
        if not data or (name.endswith(".root.json") and name not in self._files):
            raise DmsRefusedError(404, "there is no such thing")
        if len(data) > max_bytes:
            raise DmsUnreachableError("the server sent more than it may")
        return data


def _signed_again(number: int, data: bytes) -> bytes:
    value = _json(data)
    if value is None or not SIGNERS[number]:
        return data
    try:
        payload = str(encode_canonical(value["signed"])).encode()
    except Exception:  # what cannot be written canonically cannot be signed
        return data
    value["signatures"] = []
    for name in SIGNERS[number]:
        key = signer(name)
        value["signatures"].append({"keyid": key.public_key.keyid, "sig": key.sign(payload).signature})
    return json.dumps(value, separators=(",", ":")).encode()


def _link(files: list[bytes]) -> None:
    """Let the snapshot name the targets, and the timestamp the snapshot, as they are now."""
    for number, names in ((3, (1, 2)), (4, (3,))):
        value = _json(files[number])
        if value is None or not isinstance(value["signed"].get("meta"), dict):
            continue
        for other in names:
            named = _json(files[other])
            version = named["signed"].get("version") if named else None
            value["signed"]["meta"][FILES[other]] = {"version": version}
        files[number] = _signed_again(number, json.dumps(value).encode())


def _json(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("signed"), dict) else None


def seeds() -> Iterator[bytes]:
    """Yield inputs that are accepted, for both ways, signed anew or not."""
    _, files = genuine()
    for flags in (0, ONLINE, 0x1F, ONLINE | 0x1F, ONLINE | LINK | 0x1F):
        yield pack(flags, files)
