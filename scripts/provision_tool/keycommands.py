"""Command line of key changes: newkey, root propose/sign/finish, rotate, resign, revoke, status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from scripts.bundle_tool import keys, tufrepo
from scripts.bundle_tool.report import tell
from scripts.provision_tool import rotation, status
from scripts.provision_tool.rotation import Progress, Wish

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
FleetFolder = Annotated[Path, typer.Option("--fleet", help="Fleet folder.")]
Days = Annotated[float, typer.Option(help="Valid for so many days from now.", min=1, max=3650)]

root_app = typer.Typer(help="A new root, signed step by step by its holders.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to `provision`."""
    app.add_typer(root_app, name="root")
    for command in (newkey, rotate, resign, revoke):
        app.command()(command)
    app.command(name="status")(show_status)


def newkey(
    out: Annotated[Path, typer.Option(help="The key file to make, as holder-1/root.key; never written over.")],
    as_json: Json = False,
) -> None:
    """Make a key pair for a holder of root: the private file, and beside it the public one (.pub)."""
    key = keys.new_key()
    keys.save_private_key(out, key)
    public = out.with_suffix(".pub")
    keys.save_public_key(public, key.public_key())
    keyid = keys.public_key_of(key.public_key()).keyid
    facts = {"key": str(out), "public": str(public), "keyid": keyid}
    tell(as_json, f"{out} is yours alone; give {public} to the fleet's owner", facts)


@root_app.command()
def propose(
    fleet_folder: FleetFolder,
    root_key: Annotated[list[Path] | None, typer.Option(help="A holder's public key; once for each holder.")] = None,
    threshold: Annotated[int | None, typer.Option(help="So many holders must sign.", min=1, max=20)] = None,
    rotate_role: Annotated[
        list[str] | None, typer.Option("--rotate", help="root, targets, snapshot, timestamp: gets a new key.")
    ] = None,
    days: Days = tufrepo.ROOT_DAYS,
    as_json: Json = False,
) -> None:
    """Write the next root, unsigned, into the folder `proposed`."""
    wish = Wish(tuple(rotate_role or ()), tuple(root_key or ()), threshold, days)
    _tell_progress(as_json, rotation.propose_root(fleet_folder, wish), "proposed")


@root_app.command()
def sign(
    proposal: Annotated[Path, typer.Argument(help="The proposed <n>.root.json.")],
    key: Annotated[Path, typer.Option(help="A root key, of the old holders or the new ones.")],
    as_json: Json = False,
) -> None:
    """Sign a proposal with one key; needs nothing else, so it can be done on a computer without a network."""
    count = rotation.sign_root(proposal, key)
    tell(as_json, f"{proposal} has {count} signatures now", {"proposal": str(proposal), "signatures": count})


@root_app.command()
def finish(fleet_folder: FleetFolder, as_json: Json = False) -> None:
    """Publish the proposed root when enough holders have signed; the server takes it over by itself."""
    _tell_progress(as_json, rotation.finish_root(fleet_folder), "published")


def rotate(
    fleet_folder: FleetFolder,
    role: Annotated[list[str], typer.Option(help="root, targets, snapshot or timestamp; may be repeated.")],
    as_json: Json = False,
) -> None:
    """Give roles new keys in one step, where the root keys lie in `offline`."""
    _tell_progress(as_json, rotation.rotate(fleet_folder, Wish(tuple(role))), "published")


def resign(
    fleet_folder: FleetFolder,
    role: Annotated[list[str] | None, typer.Option(help="root or targets; without it both.")] = None,
    days: Days = tufrepo.ROOT_DAYS,
    as_json: Json = False,
) -> None:
    """Sign root and targets again before they expire; nothing else changes."""
    versions = rotation.resign(fleet_folder, tuple(role or ("root", "targets")), days)
    sentence = ", ".join(f"{name} version {version}" for name, version in versions.items())
    tell(as_json, f"signed again: {sentence}", {"versions": dict(versions)})


def revoke(
    fleet_folder: FleetFolder,
    product: Annotated[str, typer.Option(help="Product code.")],
    as_json: Json = False,
) -> None:
    """Take a product's release key away: nothing that it signed is installed any more. `delegate` gives another."""
    version = rotation.revoke_product(fleet_folder, product)
    tell(
        as_json, f"{product} has no release key any more (targets.json version {version})", {"targets_version": version}
    )


def show_status(fleet_folder: FleetFolder, as_json: Json = False) -> None:
    """Show when each signature and certificate ends, and where each key lies."""
    if as_json:
        tell(as_json, "", status.facts(fleet_folder))
        return
    console, ends = Console(), Table("what", "version", "ends", "days left")
    for ending in status.endings(fleet_folder):
        ends.add_row(ending.name, str(ending.version or "-"), ending.expires, str(ending.days_left))
    places = Table("role", "threshold", "key", "file")
    for entry in status.role_keys(fleet_folder):
        for keyid, place in entry.keys.items():
            places.add_row(entry.role, str(entry.threshold), f"{keyid[:16]}…", place)
    console.print(ends, places, markup=False)


def _tell_progress(as_json: bool, found: Progress, what: str) -> None:
    facts = {"root_version": found.version, "missing_old": found.missing_old, "missing_new": found.missing_new}
    sentence = f"root {found.version} {what}"
    if what == "proposed":
        sentence += (
            f" in {found.path}: {found.missing_old} signatures of old holders and {found.missing_new} of new ones to go"
        )
    tell(as_json, sentence, {**facts, "proposal": str(found.path)})
