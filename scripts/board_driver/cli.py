"""`scripts/board`: the board's verbs for people and scripts.

Exit status: 0 done; `send`: the code of the board's answer (0 to 9); 20 the machinery failed; 21 the board did not do what
it should; 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from scripts.board_driver import places, report
from scripts.board_driver.board import Board, BoardOptions
from scripts.board_driver.errors import BoardAssertionError, MachineError
from scripts.board_driver.machine_mode import SafeModeError
from scripts.board_driver.serial import LogReader, SerialLink
from scripts.board_driver.ssh import SHELL_USER, check_key, ssh_command
from scripts.board_driver.terminal import attach

EXIT_MACHINE: Final = 20
EXIT_BOARD: Final = 21
EXIT_USAGE: Final = 2
FOLLOW_S: Final = 0.1

app = typer.Typer(
    help="The virtual board: power, button, lamp, console.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

Name = Annotated[str, typer.Option("--name", help="Which board; several may be up at once.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Key = Annotated[Path, typer.Option("--key", help="SSH key of the developer.")]
Hold = Annotated[
    float, typer.Option("--button-hold", min=0, max=600, metavar="S", help="Hold the button from the start.")
]


class PowerVerb(Enum):
    """What to do with the plug."""

    CUT = "cut"
    ON = "on"
    CYCLE = "cycle"


def _say(data: dict[str, Any], text: str, *, as_json: bool) -> None:
    print(json.dumps(data) if as_json else text)


def _board(name: str, *, key: Path = places.DEFAULT_KEY) -> Board:
    return Board(name, BoardOptions(key=key, bound=False))


@app.command()
def up(
    name: Name = "main",
    as_json: Json = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin with a new disk; identity stays.")] = False,
    image: Annotated[
        Path | None, typer.Option("--image", help=f"Folder of rom.bin and disk.img [${places.IMAGE_ENV}, build/image].")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", help="Folder from `scripts/provision device`, for a new disk.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Folder of the disk [build/boards/NAME].")
    ] = None,
    ssh_port: Annotated[int | None, typer.Option("--ssh-port", min=1, max=65535, help="[a free one]")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", min=1, max=65535, help="[a free one]")] = None,
    button_hold: Hold = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the board is healthy.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=1, max=3600, metavar="S", help="For --wait.")] = 180,
) -> None:
    """Switch the board on and wait until it is healthy."""
    options = BoardOptions(image=image, identity=identity, ssh_port=ssh_port, http_port=http_port, bound=False)
    board = Board(name, options, state_dir)
    began_s = time.monotonic()

    def progress(message: str) -> None:
        # Standard output belongs to the result.
        print(f"[{time.monotonic() - began_s:6.1f} s] {message}", file=sys.stderr, flush=True)

    state = board.up(fresh=fresh, button_hold_s=button_hold)
    if board.disk.is_outdated(image):
        progress("note: this board was made from another image, and keeps it until `up --fresh`")
    progress(f"board {name} has power; its console is logged in {board.run.serial_log}")
    version = _wait_up(board, timeout, progress) if wait else None
    result = report.status(board) | {"version": version, "elapsed_s": round(time.monotonic() - began_s, 1)}
    _say(result, report.how_to_reach(name, state.http_port), as_json=as_json)


def _wait_up(board: Board, timeout_s: float, progress: Callable[[str], None]) -> str:
    """Return what the board says its version is. In safe mode too: the board is up, and says why it is there."""
    try:
        answer = board.wait_for_healthy(timeout_s, progress)
    except SafeModeError as error:
        answer = error.version
        progress("the board is in SAFE MODE; `scripts/board send faults_print` tells why")
    except BoardAssertionError as error:
        raise BoardAssertionError(f"{error}\nIt is still up: `scripts/board log`, `scripts/board console`") from error
    progress(f"ready: {answer.body}")
    return answer.body


@app.command()
def down(name: Name = "main", as_json: Json = False) -> None:
    """Switch the board off and put it away; its disk stays."""
    was_up = _board(name).down()
    _say({"name": name, "was_up": was_up}, f"{name} is down" if was_up else f"{name} was down already", as_json=as_json)


@app.command()
def status(name: Name = "main", as_json: Json = False) -> None:
    """Show whether the board runs, and where its ports and files are."""
    found = report.status(_board(name))
    _say(found, report.as_text(found), as_json=as_json)


@app.command()
def send(
    command: Annotated[str, typer.Argument(help="One line of the command language, in quotes.")],
    name: Name = "main",
    as_json: Json = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=86400, metavar="S")] = 60,
    key: Key = places.DEFAULT_KEY,
) -> None:
    """Run a command on the board; print its answer and end with its code (0 to 9)."""
    answer = _board(name, key=key).send(command, timeout)
    for line in answer.log:
        if not as_json:
            print(report.printable(line), file=sys.stderr)
    data = {"code": answer.code, "body": answer.body, "log": list(answer.log), "safe_mode": answer.safe_mode}
    _say(data, report.printable(answer.body), as_json=as_json)
    raise typer.Exit(answer.code)


@app.command()
def console(name: Name = "main", as_json: Json = False) -> None:
    """Attach this terminal to the serial console; leave with Ctrl-]."""
    board = _board(name)
    if not board.powered:
        raise MachineError(f"board {name} has no power; `scripts/board up --name {name}`")
    with SerialLink(board.run) as link:
        attach(link)
    if as_json:
        _say({"name": name}, "", as_json=True)


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(
    command: Annotated[list[str] | None, typer.Argument(help="A shell command; without one: a shell.")] = None,
    name: Name = "main",
    as_json: Json = False,
    key: Key = places.DEFAULT_KEY,
) -> None:
    """Log into the board as root (development builds). With --json: output and exit status of the command."""
    board = _board(name, key=key)
    if as_json:
        if not command:
            raise typer.BadParameter("--json needs a command")
        done = board.shell(" ".join(command), timeout_s=3600)
        _say({"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}, "", as_json=True)
        raise typer.Exit(done.returncode)
    state = board.state()
    if state is None or state.process is None:
        raise MachineError(f"board {name} has no power; `scripts/board up --name {name}`")
    words = ["--", *command] if command else []
    line = ssh_command(state.ssh_port, check_key(key), SHELL_USER, words, interactive=not command)
    os.execvp(line[0], line)  # noqa: S606 - ssh takes this process's place, so that it has the terminal


@app.command()
def log(
    name: Name = "main",
    as_json: Json = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print what the serial console has printed since `up`."""
    board = _board(name)
    if not board.run.serial_log.exists():
        raise MachineError(f"board {name} has no log; it has not been up")
    reader = LogReader(board.run.serial_log)
    if as_json:
        text = board.run.serial_log.read_bytes().decode(errors="replace")
        _say({"name": name, "log": text}, "", as_json=True)
        return
    with suppress(KeyboardInterrupt):
        while True:
            while data := reader.read():
                sys.stdout.write(report.printable(data.decode(errors="replace")))
                sys.stdout.flush()
            if not follow:
                return
            time.sleep(FOLLOW_S)


@app.command()
def power(
    verb: Annotated[PowerVerb, typer.Argument(help="Pull the plug, put it in, or both.")],
    name: Name = "main",
    as_json: Json = False,
    button_hold: Hold = 0,
    off: Annotated[
        float, typer.Option("--off", min=0, max=3600, metavar="S", help="With cycle: how long without.")
    ] = 0,
) -> None:
    """Cut the board's power, switch it on, or both. The board is not told before."""
    board = _board(name)
    if verb is PowerVerb.CUT:
        board.power_cut()
    elif verb is PowerVerb.ON:
        board.power_on(button_hold_s=button_hold)
    else:
        board.power_cycle(off_s=off, button_hold_s=button_hold)
    found = report.status(board)
    _say(found, f"{name}: {found['state']}", as_json=as_json)


@app.command()
def reset(name: Name = "main", as_json: Json = False) -> None:
    """Pull the board's reset line: a warm start, RAM keeps its content."""
    _board(name).reset()
    _say({"name": name, "reset": True}, f"{name} was reset", as_json=as_json)


@app.command()
def button(
    hold: Annotated[float, typer.Option("--hold", min=0.01, max=600, metavar="S", help="For how many seconds.")],
    name: Name = "main",
    as_json: Json = False,
) -> None:
    """Press the factory-reset button (GPIO 0)."""
    _board(name).hold_button(hold)
    _say({"name": name, "held_s": hold}, f"held the button of {name} for {hold:g} s", as_json=as_json)


@app.command()
def led(name: Name = "main", as_json: Json = False) -> None:
    """Tell whether the lamp (GPIO 1) is lit."""
    lit = _board(name).led()
    _say({"name": name, "led": "on" if lit else "off"}, "on" if lit else "off", as_json=as_json)


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="scripts/board")
    except MachineError as error:
        _fail(error, EXIT_MACHINE)
    except BoardAssertionError as error:
        _fail(error, EXIT_BOARD)
    except ValueError as error:
        _fail(error, EXIT_USAGE)


def _fail(error: Exception, status: int) -> NoReturn:
    """Say what went wrong, as JSON on standard output where that was asked for, and end."""
    if "--json" in sys.argv[1:]:
        print(json.dumps({"result": "fail", "message": str(error)}))
    else:
        print(f"board: {error}", file=sys.stderr)
    sys.exit(status)
