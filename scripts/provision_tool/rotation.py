"""Changing a fleet's keys: root signed step by step by its holders, other roles rotated, everything signed again in time.

A root is proposed (unsigned), carried to each holder, signed there with nothing but the proposal and a key, and finished when
the thresholds of the old root and of the new one are reached. No key is ever written over: new ones get the root's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Key  # type: ignore[attr-defined]  # not listed by the package
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Targets  # type: ignore[attr-defined]  # the same

from scripts.bundle_tool import chain, keys, tufrepo
from scripts.bundle_tool.files import whole_or_nothing, write_new
from scripts.bundle_tool.release import read_metadata, read_roots
from scripts.provision_tool.errors import ProvisionError

PLACES = {"root": "offline", "targets": "offline", "snapshot": "online", "timestamp": "online"}
TOP_ROLES = tuple(PLACES)


@dataclass(frozen=True)
class Wish:
    """What the next root changes; empty: only its expiry."""

    rotate: tuple[str, ...] = ()
    """Roles that get a new key, made in the fleet folder."""
    root_keys: tuple[Path, ...] = ()
    """Public keys of the holders of root from now on; empty: as before."""
    threshold: int | None = None
    """So many of the root keys must sign; None: as before."""
    days: float = tufrepo.ROOT_DAYS


@dataclass(frozen=True)
class Progress:
    """How far a proposed root is signed."""

    path: Path
    version: int
    missing_old: int
    """Signatures that the root before it still demands."""
    missing_new: int
    """Signatures that it demands itself."""

    @property
    def complete(self) -> bool:
        """Whether it can be finished."""
        return not self.missing_old and not self.missing_new


def newest_root(fleet: Path) -> Metadata[Root]:
    """Return the fleet's newest root, its chain verified. Raises ReleaseError, ChainError."""
    roots = list(read_roots(fleet / "public").values())
    return chain.verify_roots(roots[0], roots[1:])


def proposal_path(fleet: Path, version: int) -> Path:
    """Return where the proposal of a root version lies."""
    return fleet / "proposed" / f"{version}.root.json"


def propose_root(fleet: Path, wish: Wish) -> Progress:
    """Write the next root, unsigned, for its holders. Raises ProvisionError when a proposal is under way."""
    old = newest_root(fleet)
    path = proposal_path(fleet, old.signed.version + 1)
    if path.exists():
        raise ProvisionError(f"{path} waits for signatures already; sign and finish it, or remove it to start over")
    new = _wished(fleet, old, wish)
    path.parent.mkdir(mode=0o755, exist_ok=True)
    write_new(path, tufrepo.to_bytes(new), secret=False)
    return progress(old, new, path)


def _wished(fleet: Path, old: Metadata[Root], wish: Wish) -> Metadata[Root]:
    """Return the next root, unsigned. Makes the keys that it needs and the folder lacks."""
    version = old.signed.version + 1
    for role in wish.rotate:
        if role not in TOP_ROLES:
            raise ProvisionError(f"{role!r} is no role; choose {', '.join(TOP_ROLES)}")
    if wish.root_keys and "root" in wish.rotate:
        raise ProvisionError("give the root's new public keys, or let a new one be made, not both")
    roles: dict[str, tuple[Sequence[Key], int]] = {}
    for role in wish.rotate:
        made = _new_key(fleet / PLACES[role] / f"{role}.{version}.key")
        threshold = (wish.threshold or 1) if role == "root" else 1
        roles[role] = ([made], threshold)
    if wish.root_keys or (wish.threshold and "root" not in wish.rotate):
        holders = [keys.public_key_of(keys.load_public_key(path)) for path in wish.root_keys]
        current = [old.signed.keys[keyid] for keyid in old.signed.roles["root"].keyids]
        roles["root"] = (holders or current, wish.threshold or old.signed.roles["root"].threshold)
    return tufrepo.proposed_root(old, roles=roles, days=wish.days)


def _new_key(path: Path) -> Key:
    """Return the public part of the key at `path`, made if it is not there: a proposal that was cut short goes on with it."""
    if not path.exists():
        keys.save_private_key(path, keys.new_key())
    return keys.load_signer(path).public_key


def sign_root(path: Path, key: Path) -> int:
    """Add a holder's signature to a proposal; return how many it has. Signing twice with one key changes nothing."""
    proposed = chain.parse(read_metadata(path), Root)
    proposed.sign(keys.load_signer(key), append=True)
    with whole_or_nothing(path) as stream:
        stream.write(tufrepo.to_bytes(proposed))
    return len(proposed.signatures)


def progress(old: Metadata[Root], new: Metadata[Root], path: Path) -> Progress:
    """Return how many signatures are missing."""
    result = new.signed.get_root_verification_result(old.signed, new.signed_bytes, new.signatures)
    missing_old = max(result.first.threshold - len(result.first.signed), 0)
    missing_new = max(result.second.threshold - len(result.second.signed), 0)
    return Progress(path, new.signed.version, missing_old, missing_new)


def finish_root(fleet: Path) -> Progress:
    """Publish the proposed root once it is signed enough; targets are signed again if their key changed. Safe to repeat.

    Raises ProvisionError while signatures are missing.
    """
    numbers = sorted(int(path.name.split(".")[0]) for path in (fleet / "proposed").glob("*.root.json"))
    if not numbers:
        raise ProvisionError("no root is proposed; begin with `root propose`")
    path, public = proposal_path(fleet, numbers[0]), fleet / "public" / f"{numbers[0]}.root.json"
    new = chain.parse(read_metadata(path), Root)
    roots = [data for name, data in read_roots(fleet / "public").items() if name != public.name]
    old = chain.verify_roots(roots[0], roots[1:])
    found = progress(old, new, path)
    if not found.complete:
        raise ProvisionError(
            f"root {found.version} lacks {found.missing_old} of the old holders' signatures and {found.missing_new} of the "
            "new ones'; sign it with `root sign`"
        )
    targets = _targets_for(fleet, new.signed)  # before anything is published: its keys must be here
    if not public.exists():
        write_new(public, read_metadata(path), secret=False)
    elif public.read_bytes() != read_metadata(path):
        raise ProvisionError(f"{public} is there already with other content; remove {path}")
    if targets is not None:
        publish_targets(fleet, targets)
    path.unlink()
    return found


def rotate(fleet: Path, wish: Wish) -> Progress:
    """Propose, sign with every root key in `offline/`, and finish: for fleets whose root keys lie together.

    Goes on with a proposal from a run that was cut. Raises ProvisionError if it says something else than the wish.
    """
    old = newest_root(fleet)
    path = proposal_path(fleet, old.signed.version + 1)
    if not path.exists():
        propose_root(fleet, wish)
    else:
        waiting, wished = chain.parse(read_metadata(path), Root).signed, _wished(fleet, old, wish).signed
        if (waiting.version, waiting.keys, waiting.roles) != (wished.version, wished.keys, wished.roles):
            raise ProvisionError(f"{path} waits with other changes than these; finish it first, or remove it")
    for key in sorted((fleet / "offline").glob("root*.key")):
        sign_root(path, key)
    # Signatures of keys that neither root names say nothing.
    new = chain.parse(read_metadata(path), Root)
    named = {*old.signed.roles["root"].keyids, *new.signed.roles["root"].keyids}
    new.signatures = {keyid: value for keyid, value in new.signatures.items() if keyid in named}
    with whole_or_nothing(path) as stream:
        stream.write(tufrepo.to_bytes(new))
    return finish_root(fleet)


# --- targets ------------------------------------------------------------------------------------------------------------
def signers_of(fleet: Path, root: Root, role: str) -> list[CryptoSigner]:
    """Return signers with the keys in the fleet folder that `root` names for `role`. Raises ProvisionError if too few."""
    wanted = root.roles[role]
    found: dict[str, CryptoSigner] = {}
    for path in sorted((fleet / PLACES[role]).glob(f"{role}*.key")):
        signer = keys.load_signer(path)
        if signer.public_key.keyid in wanted.keyids:
            found[signer.public_key.keyid] = signer
    if len(found) < wanted.threshold:
        raise ProvisionError(
            f"{fleet / PLACES[role]} has {len(found)} of the {wanted.threshold} {role} keys that root {root.version} demands; "
            "bring them there"
        )
    return list(found.values())


def _targets_for(fleet: Path, root: Root) -> Metadata[Targets] | None:
    """Return the next targets if the newest are not signed as `root` demands; None: they are."""
    current = chain.parse(read_metadata(fleet / "public" / "targets.json"), Targets)
    try:
        root.verify_delegate("targets", current.signed_bytes, current.signatures)
    except UnsignedMetadataError:
        return tufrepo.next_targets(current, signers_of(fleet, root, "targets"))
    return None


def change_targets(
    fleet: Path, change: Callable[[Metadata[Targets], Sequence[CryptoSigner]], Metadata[Targets]]
) -> Metadata[Targets]:
    """Make, sign and publish the next targets. Raises ProvisionError, ChainError."""
    root = newest_root(fleet).signed
    current = chain.parse(read_metadata(fleet / "public" / "targets.json"), Targets)
    new = change(current, signers_of(fleet, root, "targets"))
    publish_targets(fleet, new)
    return new


def publish_targets(fleet: Path, targets: Metadata[Targets]) -> None:
    """Write targets under their number and as the newest; a number that is there already from a run that was cut gives way."""
    data = tufrepo.to_bytes(targets)
    for name in (f"{targets.signed.version}.targets.json", "targets.json"):
        with whole_or_nothing(fleet / "public" / name) as stream:
            stream.write(data)


def revoke_product(fleet: Path, product: str) -> int:
    """Take the release key of a product away; return the version of targets that says so."""
    new = change_targets(fleet, lambda current, signers: tufrepo.revoke_delegation(current, product, signers))
    return new.signed.version


def resign(fleet: Path, roles: Sequence[str], days: float) -> Mapping[str, int]:
    """Sign root and targets again for `days` from now, content unchanged; return their new versions."""
    versions = {}
    if "root" in roles:
        versions["root"] = rotate(fleet, Wish(days=days)).version
    if "targets" in roles:
        new = change_targets(fleet, lambda current, signers: tufrepo.next_targets(current, signers, days=days))
        versions["targets"] = new.signed.version
    return versions
