"""Command line: resolve, backtrace, list."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.board_driver.places import built
from scripts.bundle_tool.report import run_app, tell
from scripts.symbol_tool.store import (
    MAX_INPUT_BYTES,
    Store,
    SymbolToolError,
    parse_address,
    parse_build_id,
    read_frames,
)
from zentrid.debug.symbols import Place, describe
from zentrid.ports import Frame

DEFAULT_FOLDER = built("image") / "symbols"

app = typer.Typer(
    help="Turns addresses of crashed programs into functions and lines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Folder = Annotated[Path, typer.Option("--symbols", help="Folder of symbol files; default: those of the image.")]


@app.command()
def resolve(
    build_id: Annotated[str, typer.Argument(help="The program's build-id, all of it.")],
    addresses: Annotated[list[str], typer.Argument(help="Addresses inside the ELF file, in hexadecimal.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Show function and line of addresses of one program."""
    wanted = parse_build_id(build_id)
    numbers = [parse_address(text) for text in addresses]
    with Store(folder) as store:
        if not store.has(wanted):
            raise SymbolToolError(f"{folder} has no symbol file for build-id {wanted}; `list` shows which there are")
        places = [(number, store.resolve(wanted, number)) for number in numbers]
    tell(
        as_json,
        "\n".join(f"0x{number:x} {_shown(place)}" for number, place in places),
        {"build_id": wanted, "places": [{"address": number, "place": _facts(place)} for number, place in places]},
    )


@app.command()
def backtrace(
    file: Annotated[str, typer.Argument(help="A fault report or a crash file (JSON); - for standard input.")],
    folder: Folder = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Show the frames of a crash, innermost first."""
    frames = read_frames(_read(file))
    with Store(folder) as store:
        found = [(frame, store.resolve(frame.build_id, frame.address), store.has(frame.build_id)) for frame in frames]
    lines = [_line(number, *entry) for number, entry in enumerate(found)]
    tell(
        as_json,
        "\n".join(lines) or "the crash has no frames",
        {"frames": [{**asdict(frame), "place": _facts(place)} for frame, place, _ in found], "lines": lines},
    )


@app.command("list")
def list_files(folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """List the symbol files: build-id, whether source lines are known, the program's path on the device."""
    with Store(folder) as store:
        entries = store.entries()
    lines = [f"{entry.build_id}  {'lines' if entry.lines else 'names'}  {entry.file or '-'}" for entry in entries]
    tell(as_json, "\n".join(lines), {"files": [asdict(entry) for entry in entries]})


def _read(file: str) -> bytes:
    if file == "-":
        data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    else:
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise SymbolToolError(f"{file}: has more than {MAX_INPUT_BYTES} bytes, which no report has")
    return data


def _line(number: int, frame: Frame, place: Place | None, known: bool) -> str:
    missing = " (no symbol file)" if frame.build_id and not known else ""
    return describe(frame, place, number) + missing


def _shown(place: Place | None) -> str:
    if place is None:
        return "is in no function that has a name"
    return f"{place.function}+0x{place.offset:x}" + (f" ({place.file}:{place.line})" if place.file else "")


def _facts(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else asdict(place)


def main() -> None:
    """Run the command line; an error is one sentence (and, with --json, a JSON object) and exit status 1."""
    run_app(app, "symbols")


if __name__ == "__main__":
    main()
