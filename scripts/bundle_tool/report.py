"""How the command line talks: one JSON object or sentences and tables on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from tuf.api.metadata import Root, Targets  # type: ignore[attr-defined]  # not listed by the package

from scripts.bundle_tool import tufrepo
from scripts.bundle_tool.chain import VerifiedRelease, parse
from scripts.bundle_tool.symbols import SymbolsSent
from zentrid.bundle.zbfile import Bundle
from zentrid.errors import ZentriError

KIB = 1024


def tell(as_json: bool, sentence: str, facts: Mapping[str, object]) -> None:
    """Print a result: `facts` as one JSON object, or the sentence."""
    typer.echo(json.dumps({"result": "ok", **facts}) if as_json else sentence)


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line; an error is one sentence (and, with --json, a JSON object) and exit status 1."""
    try:
        app(prog_name=name)
    except (ZentriError, OSError) as error:
        sentence = str(error) if isinstance(error, ZentriError) else os_sentence(error)
        if "--json" in sys.argv:
            reason = error.reason if isinstance(error, ZentriError) else "system"
            typer.echo(json.dumps({"result": "fail", "reason": reason, "message": sentence}))
        typer.echo(f"{name}: {sentence}", err=True)
        raise SystemExit(1) from None


def os_sentence(error: OSError) -> str:
    """Return what the system refused, as a sentence: the file, why, and what to look at."""
    if error.filename is None:
        return f"{error.strerror or error}; check the file system's space and rights, then run the same command again"
    return f"{error.filename}: {error.strerror or error}; check the path and its rights"


class Bars:
    """Progress bars on stderr, one a name; silent when nobody watches."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` of `name` is done."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)


@contextmanager
def bars(as_json: bool) -> Iterator[Bars]:
    """Give progress bars for the time of a block."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=as_json or not console.is_terminal
    ) as progress:
        yield Bars(progress)


def bundle_facts(bundle: Bundle) -> dict[str, object]:
    """Return what `inspect --json` prints: manifest, payload sizes, what the chain says of itself."""
    return {
        "file": str(bundle.path),
        "size": bundle.path.stat().st_size,
        "signed": bundle.head.signed,
        "manifest": bundle.manifest.to_json(),
        "payloads": {root_hash: member.size_bytes for root_hash, member in bundle.members.items()},
        "metadata": _chain_facts(bundle),
    }


def _chain_facts(bundle: Bundle) -> dict[str, object]:
    facts: dict[str, object] = {}
    for name, data in bundle.metadata.items():
        metadata = parse(data, Root) if name.endswith(".root.json") else parse(data, Targets)
        facts[name] = {
            "version": metadata.signed.version,
            "expires": metadata.signed.expires.isoformat(),
            "keyids": sorted(metadata.signatures),
        }
    return facts


def show_bundle(bundle: Bundle) -> None:
    """Print a bundle for a person."""
    manifest = bundle.manifest
    console = Console()
    # A bundle from outside may hold anything in its notes: print no escape sequences and no markup of it.
    notes = "".join(char if char.isprintable() or char == "\n" else "?" for char in manifest.notes)
    facts = {
        "product": manifest.product,
        "version": str(manifest.version),
        "boards": ", ".join(manifest.compatible),
        "min. version": str(manifest.min_version or "-"),
        "boot floor": str(manifest.boot_floor or "-"),
        "downgrade to": str(manifest.allow_downgrade_to or "-"),
        "signed": "yes, not checked here (see verify)" if bundle.head.signed else "no",
        "notes": notes or "-",
    }
    for name, value in facts.items():
        console.print(f"{name:>13}  {value}", markup=False, highlight=False)
    table = Table("type", "name", "size", "in the file", "root hash", "more")
    for item in manifest.items:
        stream_bytes = bundle.members[item.root_hash].size_bytes
        more = [str(item.version)] if item.version else []
        more += [item.kind] if item.kind else []
        if item.elf is not None:
            more += ["PIE" if item.elf.pie else "no PIE", f"RELRO {item.elf.relro}", "NX" if item.elf.nx else "no NX"]
        sizes = (f"{item.size_bytes / KIB:,.0f} KiB", f"{stream_bytes / KIB:,.0f} KiB")
        table.add_row(item.type, item.name, *sizes, f"{item.root_hash[:16]}…", ", ".join(more))
    for removal in manifest.remove:
        table.add_row(removal.type, removal.name, "-", "-", "-", "removed")
    console.print(table, markup=False)


def symbols_facts(sent: SymbolsSent | None) -> dict[str, object] | None:
    """Return what `publish --json` prints of the symbol files; None: there were none to send."""
    if sent is None:
        return None
    return {"sent": sent.sent, "there": sent.there, "too_large": [str(path) for path in sent.too_large]}


def symbols_sentence(sent: SymbolsSent | None) -> str:
    """Return the end of the sentence about a published release."""
    if sent is None:
        return ""
    left_out = f", {len(sent.too_large)} left out because they are too large" if sent.too_large else ""
    return f"; symbol files: {sent.sent} sent, {sent.there} there already{left_out}"


def release_facts(release: VerifiedRelease) -> dict[str, object]:
    """Return what `verify --json` prints."""
    return {
        "product": release.manifest.product,
        "version": str(release.manifest.version),
        "items": [{"type": item.type, "name": item.name} for item in release.manifest.items],
        "remove": [{"type": removal.type, "name": removal.name} for removal in release.manifest.remove],
        "targets_version": release.targets.signed.version,
        "role_version": release.delegated.signed.version,
        "expires": min(release.targets.signed.expires, release.delegated.signed.expires).isoformat(),
        "keyids": sorted(tufrepo.release_keys(release.targets, release.manifest.product)),
    }
