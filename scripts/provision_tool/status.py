"""What a fleet's keys and signatures are, where each key lies, and when each thing ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from tuf.api.metadata import Metadata, Targets  # type: ignore[attr-defined]  # not listed by the package

from scripts.bundle_tool import chain, keys, tufrepo
from scripts.bundle_tool.release import read_metadata
from scripts.provision_tool.rotation import PLACES, TOP_ROLES, newest_root
from zentrid.bundle.manifest import PRODUCT_PATTERN


@dataclass(frozen=True)
class Ending:
    """Something that ends one day."""

    name: str
    version: int | None
    expires: str
    """ISO 8601, UTC."""
    days_left: int
    """Negative: it has ended."""


@dataclass(frozen=True)
class RoleKeys:
    """Who may sign for a role."""

    role: str
    threshold: int
    keys: dict[str, str]
    """Key id → the file in the fleet folder, or `elsewhere`."""


def endings(fleet: Path, now: datetime | None = None) -> list[Ending]:
    """Return everything that ends, the soonest first. Raises ReleaseError, ChainError, OSError."""
    return sorted(_endings(fleet, now or datetime.now(UTC)), key=lambda ending: ending.days_left)


def _endings(fleet: Path, now: datetime) -> Iterator[Ending]:
    def ending(name: str, version: int | None, expires: datetime) -> Ending:
        return Ending(name, version, expires.strftime("%Y-%m-%dT%H:%M:%SZ"), (expires - now).days)

    root = newest_root(fleet).signed
    yield ending("root", root.version, root.expires)
    targets = chain.parse(read_metadata(fleet / "public" / "targets.json"), Targets).signed
    yield ending("targets", targets.version, targets.expires)
    for path in sorted((fleet / "public").glob("*.json")):
        if PRODUCT_PATTERN.fullmatch(path.stem):
            product: Metadata[Targets] = chain.parse(read_metadata(path), Targets)
            yield ending(path.stem, product.signed.version, product.signed.expires)
    for name in ("public/device_ca.crt", "public/dms_ca.crt", "online/dms.crt"):
        if (fleet / name).exists():
            certificate = x509.load_pem_x509_certificate((fleet / name).read_bytes())
            yield ending(name, None, certificate.not_valid_after_utc)


def role_keys(fleet: Path) -> list[RoleKeys]:
    """Return the keys of every role and product. A key that is not in the folder may lie in a safe: that is its place."""
    root = newest_root(fleet).signed
    found = [
        RoleKeys(role, root.roles[role].threshold, _located(fleet, PLACES[role], role, root.roles[role].keyids))
        for role in TOP_ROLES
    ]
    targets = chain.parse(read_metadata(fleet / "public" / "targets.json"), Targets)
    delegations = targets.signed.delegations
    for product in chain.named_roles(delegations) if delegations is not None else {}:
        ids = list(tufrepo.release_keys(targets, product))
        found.append(RoleKeys(product, 1, _located(fleet, f"products/{product}", "release", ids)))
    return found


def _located(fleet: Path, place: str, role: str, keyids: list[str]) -> dict[str, str]:
    here = {}
    for path in sorted((fleet / place).glob(f"{role}*.key")):
        here[keys.load_signer(path).public_key.keyid] = str(path.relative_to(fleet))
    return {keyid: here.get(keyid, "elsewhere") for keyid in keyids}


def facts(fleet: Path) -> dict[str, object]:
    """Return what `status --json` prints."""
    waiting = sorted(path.name for path in (fleet / "proposed").glob("*.root.json"))
    return {
        "endings": [asdict(ending) for ending in endings(fleet)],
        "keys": [asdict(role) for role in role_keys(fleet)],
        "proposed": waiting,
    }
