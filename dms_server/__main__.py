"""Command line: serve, migrate, user add, demo."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import DatabaseError

from dms_server.app import serve as serve_doors
from dms_server.core import build_core, prepare_data
from dms_server.db import Database
from dms_server.db import migrate as migrate_database
from dms_server.demo import set_up_demo
from dms_server.errors import DmsError, SetupError
from dms_server.logs import set_up_logs
from dms_server.settings import Settings, load_settings

app = typer.Typer(
    help="The Device Management Server.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
users = typer.Typer(help="Accounts.", no_args_is_help=True)
app.add_typer(users, name="user")

Data = Annotated[Path, typer.Option(help="Folder of database, payloads and online metadata.")]
Fleet = Annotated[Path, typer.Option(help="Fleet folder, made by scripts/provision fleet.")]
File = Annotated[Path | None, typer.Option(help="Settings file (TOML).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def _stop_asked() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set from now on: also one that comes while the server starts ends it cleanly."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


@app.command()
def serve(
    data: Data,
    fleet: Fleet,
    device_port: Annotated[int | None, typer.Option(help="Mutual TLS, for devices; 0: any.")] = None,
    web_port: Annotated[int | None, typer.Option(help="Pages and API; 0: any.")] = None,
    bind: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    config: File = None,
) -> None:
    """Serve devices and people until SIGTERM. Writes the ports to DATA/ports.json once both doors listen."""
    settings = load_settings(
        {"data": data, "fleet": fleet, "device_port": device_port, "web_port": web_port, "bind": bind}, file=config
    )
    set_up_logs(pretty=sys.stderr.isatty())
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    """Serve until a signal. What keeps the server from starting was undone before it is told."""
    until = _stop_asked().wait()
    try:
        await serve_doors(settings, until)
    finally:
        until.close()  # never awaited when the server did not start


@app.command()
def migrate(data: Data, config: File = None, as_json: Json = False) -> None:
    """Bring the database to the newest schema (serve does so too)."""
    settings = load_settings({"data": data, "fleet": data}, file=config)
    prepare_data(settings)
    asyncio.run(migrate_database(settings.effective_database_url))
    typer.echo(json.dumps({"result": "ok"}) if as_json else "the database has the newest schema")


@users.command("add")
def user_add(
    name: str,
    data: Data,
    email: Annotated[str, typer.Option(help="E-mail address; counts as confirmed.")],
    config: File = None,
    as_json: Json = False,
) -> None:
    """Make an account; the password is the first line of standard input."""
    settings = load_settings({"data": data, "fleet": data}, file=config)
    password = sys.stdin.readline().rstrip("\n")
    asyncio.run(_user_add(settings, name, email, password))
    typer.echo(json.dumps({"result": "ok", "user": name}) if as_json else f"account {name} made")


async def _user_add(settings: Settings, name: str, email: str, password: str) -> None:
    prepare_data(settings)
    await migrate_database(settings.effective_database_url)
    db = Database(settings.effective_database_url)
    try:
        await build_core(settings, db).accounts.sign_up(name, email, password, confirmed=True)
    finally:
        await db.close()


@app.command()
def demo(
    data: Data,
    fleet: Fleet,
    as_json: Json = False,
) -> None:
    """Set up the account `demo`, its product and an API token; write them to DATA/demo.json (mode 0600)."""
    settings = load_settings({"data": data, "fleet": fleet})
    result = asyncio.run(set_up_demo(settings))
    if as_json:
        typer.echo(json.dumps({"result": "ok", "user": result["user"], "product": result["product"]}))
    else:
        typer.echo(f"account {result['user']} with product {result['product']}: see {data / 'demo.json'}")


def main() -> None:
    """Run the command line; an error that a person can mend is one sentence and exit status 1."""
    try:
        app(prog_name="dms_server")
    except (SetupError, DmsError, DatabaseError, OSError) as error:
        sentence = _sentence(error)
        if "--json" in sys.argv:
            typer.echo(json.dumps({"result": "fail", "message": sentence}))
        typer.echo(f"dms_server: {sentence}", err=True)
        raise SystemExit(1) from None


def _sentence(error: Exception) -> str:
    """Return one sentence: what is wrong and what to do."""
    if isinstance(error, DatabaseError):
        return f"the database cannot be used ({error.orig}); restore it from a copy, or choose another --data folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; check the path and its rights"
    return str(error)


if __name__ == "__main__":
    main()
