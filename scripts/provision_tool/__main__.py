"""Command line: fleet, delegate, device; key changes are in `keycommands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts.bundle_tool.report import run_app, tell
from scripts.provision_tool.device import DeviceOptions, make_device
from scripts.provision_tool.fleet import delegate_product, make_fleet
from scripts.provision_tool.keycommands import add_to

app = typer.Typer(
    help="Keys and certificates: of a fleet, its products and its devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
FleetFolder = Annotated[Path, typer.Option("--fleet", help="Fleet folder.")]


@app.command()
def fleet(
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    host: Annotated[list[str] | None, typer.Option(help="One more name or address of the DMS.")] = None,
    as_json: Json = False,
) -> None:
    """Make a fleet: all keys, both certificate authorities, the DMS's certificate, first signed metadata."""
    made = make_fleet(out, tuple(host or ()))
    tell(as_json, f"fleet made in {made}; keep {made / 'offline'} in a safe place", {"fleet": str(made)})


@app.command()
def delegate(
    fleet_folder: FleetFolder,
    product: Annotated[str, typer.Option(help="Product code.")],
    key: Annotated[Path | None, typer.Option(help="The publisher's public key; without it a pair is made.")] = None,
    as_json: Json = False,
) -> None:
    """Let a release key sign a product's releases."""
    made = delegate_product(fleet_folder, product, key)
    sentence = f"{product} delegated to key {made.keyid[:16]}… in targets.json version {made.targets_version}"
    if made.made_key is not None:
        sentence += f"; release key: {made.made_key}"
    made_key = str(made.made_key) if made.made_key else None
    facts = {"product": product, "keyid": made.keyid, "targets_version": made.targets_version, "key": made_key}
    tell(as_json, sentence, facts)


@app.command()
def device(
    fleet_folder: FleetFolder,
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    uuid: Annotated[str | None, typer.Option(help="The device's UUID; without it a random one.")] = None,
    mac: Annotated[str | None, typer.Option(help="MAC address; without it a random local one.")] = None,
    dms_host: Annotated[str, typer.Option(help="Where the device finds the DMS.")] = "10.0.2.2",
    dms_port: Annotated[int, typer.Option(help="Its device port.", min=1, max=65535)] = 8443,
    authorized_keys: Annotated[Path | None, typer.Option(help="SSH keys, development boards only.")] = None,
    as_json: Json = False,
) -> None:
    """Make the identity of one device: key, certificate, server; a folder and an ext4 image of it."""
    options = DeviceOptions(uuid=uuid, mac=mac, dms_host=dms_host, dms_port=dms_port, authorized_keys=authorized_keys)
    made = make_device(fleet_folder, out, options)
    sentence = f"device {made.uuid} ({made.mac}) in {made.folder}"
    facts = {"uuid": made.uuid, "mac": made.mac, "folder": str(made.folder), "image": str(made.image)}
    tell(as_json, sentence, facts)


add_to(app)


def main() -> None:
    """Run the command line; an error is one sentence (and, with --json, a JSON object) and exit status 1."""
    run_app(app, "provision")


if __name__ == "__main__":
    main()
