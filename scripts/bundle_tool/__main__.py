"""Command line: keygen, build, sign, inspect, verify, publish, resign, send-metadata."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from scripts.board_driver.chosen import BOARD
from scripts.bundle_tool import keys, tufrepo
from scripts.bundle_tool.build import (
    BuildError,
    BuildOptions,
    Source,
    build_bundle,
    parse_removal,
    parse_source,
    read_libraries,
)
from scripts.bundle_tool.elfcheck import libraries_of
from scripts.bundle_tool.publish import PublishError, publish_bundle, publish_metadata
from scripts.bundle_tool.release import RELEASE_KEY, read_metadata, resign_product, sign_bundle, verify_bundle
from scripts.bundle_tool.report import (
    bars,
    bundle_facts,
    release_facts,
    run_app,
    show_bundle,
    symbols_facts,
    symbols_sentence,
    tell,
)
from scripts.bundle_tool.symbols import beside, find_symbols, publish_symbols
from zentrid.bundle.encode import FULL_LEVEL
from zentrid.bundle.manifest import PRODUCT_PATTERN
from zentrid.bundle.zbfile import open_bundle
from zentrid.core.version import Version, parse_version

TOKEN_VARIABLE = "ZENTRI_TOKEN"  # noqa: S105  # the variable's name

app = typer.Typer(
    help="Bundles (.zb files): build, sign, check and publish releases.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object; no progress bars.")]
BundleFile = Annotated[Path, typer.Argument(help="The .zb file.")]
MaybeVersion = Annotated[str | None, typer.Option(help="A version, as in 1.2.0.")]


def _version(text: str | None) -> Version | None:
    return None if text is None else parse_version(text)


@app.command()
def keygen(
    out: Annotated[Path, typer.Option(help="Folder for the key pair; existing keys are never overwritten.")],
    product: Annotated[str | None, typer.Option(help="Product code: the pair goes into a folder of that name.")] = None,
    as_json: Json = False,
) -> None:
    """Make a release key pair (Ed25519): `release.key`, which is yours alone, and `release.pub` for the fleet's owner."""
    if product is not None and not PRODUCT_PATTERN.fullmatch(product):
        raise BuildError(f"--product {product[:80]!r}: write a product code like DEMO-VIRT_SENSOR")
    folder = out / product if product else out
    key = keys.new_key()
    keys.save_private_key(folder / RELEASE_KEY, key)
    keys.save_public_key(folder / "release.pub", key.public_key())
    keyid = keys.public_key_of(key.public_key()).keyid
    tell(
        as_json,
        f"key {keyid[:16]}… made in {folder}; hand release.pub to scripts/provision delegate --key, keep {RELEASE_KEY} safe",
        {"keyid": keyid, "key": str(folder / RELEASE_KEY), "pub": str(folder / "release.pub")},
    )


@app.command()
def build(
    product: Annotated[str, typer.Option(help="Product code, as in DEMO-VIRT_SENSOR.")],
    version: Annotated[str, typer.Option(help="The release's version, as in 1.2.0.")],
    out: Annotated[Path, typer.Option(help="The .zb file to write.")],
    kernel: Annotated[Path | None, typer.Option(help="Kernel FIT image.")] = None,
    rootfs: Annotated[Path | None, typer.Option(help="Root file system image (EROFS).")] = None,
    app_file: Annotated[
        list[str] | None, typer.Option("--app", help="NAME=FILE or NAME@VERSION=FILE, a program or a tar; repeatable.")
    ] = None,
    entry: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH, the program to start inside the tar of an app; repeatable.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(help="PATH=FILE or PATH@VERSION=FILE, PATH as on the device, relative; repeatable."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(help="app:NAME or file:PATH, what an earlier release brought and goes now; repeatable."),
    ] = None,
    compatible: Annotated[
        list[str] | None, typer.Option(help=f"Board that it runs on ({BOARD.name}, if none is given); repeatable.")
    ] = None,
    min_version: MaybeVersion = None,
    boot_floor: MaybeVersion = None,
    allow_downgrade_to: MaybeVersion = None,
    notes: Annotated[str, typer.Option(help="Release notes, plain text.")] = "",
    rootfs_dir: Annotated[
        Path | None, typer.Option(help="The image's folder: libraries are checked against it.")
    ] = None,
    libs: Annotated[
        Path | None, typer.Option(help="Text file of library names that the image has, one a line.")
    ] = None,
    level: Annotated[
        int, typer.Option(min=1, max=22, help="zstd level: 19 is 10 % smaller, 7 times slower.")
    ] = FULL_LEVEL,
    as_json: Json = False,
) -> None:
    """Build a bundle, not signed yet. The same inputs give the same file."""
    entries = dict(_pair(text) for text in entry or [])
    sources = [
        *(Source("kernel", "kernel", path) for path in [kernel] if path is not None),
        *(Source("rootfs", "rootfs", path) for path in [rootfs] if path is not None),
        *(parse_source("app", text, entries) for text in app_file or []),
        *(parse_source("file", text, entries) for text in file or []),
    ]
    if entries:
        raise BuildError(f"--entry {next(iter(entries))}: there is no --app of that name")
    options = BuildOptions(
        product=product,
        version=parse_version(version),
        sources=sources,
        compatible=tuple(compatible or (BOARD.name,)),
        min_version=_version(min_version),
        boot_floor=_version(boot_floor),
        allow_downgrade_to=_version(allow_downgrade_to),
        notes=notes,
        remove=[parse_removal(text) for text in remove or []],
        libraries=_libraries(rootfs_dir, libs),
        level=level,
    )
    with bars(as_json) as shown:
        manifest = build_bundle(options, out, shown.update)
    size_bytes = out.stat().st_size
    tell(
        as_json,
        f"{out}: {manifest.product} {manifest.version}, {len(manifest.items)} items, {size_bytes:,} bytes, not signed yet",
        {"file": str(out), "size": size_bytes, "manifest": manifest.to_json()},
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise BuildError(f"--entry {text!r}: write NAME=PATH")
    return name, value


def _libraries(rootfs_dir: Path | None, libs: Path | None) -> frozenset[str] | None:
    if rootfs_dir is None and libs is None:
        return None
    if rootfs_dir is not None and not rootfs_dir.is_dir():
        raise BuildError(f"--rootfs-dir {rootfs_dir}: is no folder")
    found: frozenset[str] = frozenset()
    if rootfs_dir is not None:
        found |= libraries_of(rootfs_dir)
    if libs is not None:
        found |= read_libraries(libs)
    return found


@app.command()
def sign(
    bundle: BundleFile,
    key_folder: Annotated[Path, typer.Option("--keys", help=f"Folder with the product's {RELEASE_KEY}.")],
    metadata: Annotated[
        Path, typer.Option(help="Metadata folder: *.root.json, targets.json; the product's file is kept here.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Sign other content for a version never published.")
    ] = False,
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days until the signature expires.")
    ] = tufrepo.DELEGATED_DAYS,
    as_json: Json = False,
) -> None:
    """Sign a bundle with the product's release key and put the whole chain into it."""
    done = sign_bundle(bundle, key_folder, metadata, replace=replace, days=days)
    how = "signed" if done.changed else "was signed already"
    tell(
        as_json,
        f"{bundle}: {done.product} {done.version} {how}; the product's metadata has version {done.role_version}",
        {
            "file": str(bundle),
            "product": done.product,
            "version": done.version,
            "role_version": done.role_version,
            "keyid": done.keyid,
            "changed": done.changed,
        },
    )


@app.command()
def inspect(bundle: BundleFile, as_json: Json = False) -> None:
    """Show what a bundle says it holds. Nothing is verified; see verify."""
    found = open_bundle(bundle)
    if as_json:
        tell(as_json, "", bundle_facts(found))
    else:
        show_bundle(found)


@app.command()
def verify(
    bundle: BundleFile,
    root: Annotated[Path, typer.Option(help="The trusted root.json (any version; newer ones come with the bundle).")],
    no_freshness: Annotated[bool, typer.Option("--no-freshness", help="Accept expired metadata.")] = False,
    as_json: Json = False,
) -> None:
    """Check a bundle as a device would: the chain from the root, every hash tree, every block."""
    now = None if no_freshness else tufrepo.utc_now()
    with bars(as_json) as shown:
        _, release = verify_bundle(bundle, read_metadata(root), now=now, progress=shown.update)
    facts = release_facts(release)
    tell(as_json, f"{bundle}: {facts['product']} {facts['version']} is good, signed until {facts['expires']}", facts)


@app.command()
def publish(
    bundle: BundleFile,
    server: Annotated[str, typer.Option(help="Web address of the DMS, as in http://localhost:8080.")],
    token: Annotated[
        str | None,
        typer.Option(help=f"API token; better in the environment as {TOKEN_VARIABLE}, where ps does not show it."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag to give, as in release; repeatable.")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM of the authority of an https server with a private one.")] = None,
    symbols: Annotated[
        Path | None,
        typer.Option(
            help="Folder with .build-id/: symbol files to send too; if none is given, `symbols` beside the bundle."
        ),
    ] = None,
    no_symbols: Annotated[bool, typer.Option("--no-symbols", help="Send no symbol files.")] = False,
    as_json: Json = False,
) -> None:
    """Send a signed bundle to a DMS, and the release's symbol files. Repeating it does no harm."""
    token = token or os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise PublishError(f"no token: make one on the DMS's account page, give it as --token or {TOKEN_VARIABLE}")
    folder = None if no_symbols else symbols or beside(bundle)
    if folder is not None:
        find_symbols(folder)  # a wrong folder is noticed before anything is sent
    with bars(as_json) as shown:
        done = publish_bundle(
            bundle,
            server,
            token,
            tags=tuple(tag or ()),
            ca=ca,
            progress=lambda sent, total: shown.update(bundle.name, sent, total),
        )
        symbols_sent = None
        if folder is not None:
            symbols_sent = publish_symbols(
                folder, server, token, ca=ca, progress=lambda sent, total: shown.update("symbols", sent, total)
            )
    how = "published" if done.sent else "was published already"
    tagged = f", tags: {', '.join(done.tags)}" if done.tags else ""
    tell(
        as_json,
        f"{done.product} {done.version} {how}{tagged}{symbols_sentence(symbols_sent)}",
        {
            "product": done.product,
            "version": done.version,
            "sent": done.sent,
            "tags": list(done.tags),
            "symbols": symbols_facts(symbols_sent),
        },
    )


@app.command()
def resign(
    key: Annotated[Path, typer.Option(help="The folder with release.key.")],
    metadata: Annotated[Path, typer.Option(help="The fleet's public folder.")],
    product: Annotated[str, typer.Option(help="Product code.")],
    as_json: Json = False,
) -> None:
    """Sign a product's releases again, unchanged, before they expire or with a new key; send them with `send-metadata`."""
    version = resign_product(product, key, metadata)
    tell(as_json, f"{product}.json version {version} signed", {"product": product, "role_version": version})


@app.command()
def send_metadata(
    metadata: Annotated[Path, typer.Option(help="The fleet's public folder.")],
    server: Annotated[str, typer.Option(help="The DMS's web address.")],
    product: Annotated[list[str] | None, typer.Option(help="A product signed again by `resign`; repeatable.")] = None,
    token: Annotated[
        str | None, typer.Option(help=f"API token; better in the environment as {TOKEN_VARIABLE}.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The server's own authority (PEM).")] = None,
    as_json: Json = False,
) -> None:
    """Send new roots, targets and products' signatures to a DMS that does not read this fleet folder."""
    token = token or os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise PublishError(f"no token: make one on the DMS's account page, give it as --token or {TOKEN_VARIABLE}")
    newer = publish_metadata(metadata, server, token, products=tuple(product or ()), ca=ca)
    tell(as_json, "the server took over newer metadata" if newer else "the server had all of it", {"newer": newer})


def main() -> None:
    """Run the command line; an error is one sentence (and, with --json, a JSON object) and exit status 1."""
    run_app(app, "bundle")


if __name__ == "__main__":
    main()
