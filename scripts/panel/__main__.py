"""`python -m scripts.panel`: serve the panel of a board; starts board and DMS as `make run` does when the board is down."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from scripts.board_driver.board import Board, BoardOptions
from scripts.board_driver.errors import BoardAssertionError, MachineError
from scripts.board_driver.serial import SerialLink
from scripts.board_driver.ssh import COMMAND_USER, check_key, ssh_command
from scripts.lab import run
from scripts.panel.app import Panel, create_app
from scripts.panel.desk import Desk
from scripts.panel.packages import fetched
from scripts.panel.status import Status

PORT: Final = 8900
ADDRESS: Final = "127.0.0.1"


def make_panel(board: Board) -> Panel:
    """Wire the panel of a board."""
    watched = asyncio.Event()

    def session() -> Sequence[str] | None:
        state = board.state()
        if state is None or state.process is None:
            return None
        return ssh_command(state.ssh_port, check_key(board.options.key), COMMAND_USER, [])

    desk = Desk(board, lambda: SerialLink(board.run))
    return Panel(board.name, desk, Status(session, watched), watched, board.run.serial_log)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.panel", description=__doc__)
    parser.add_argument("--name", default=run.BOARD_NAME, help="which board (%(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="where the page is, on this machine only (%(default)s)")
    options = parser.parse_args(argv)
    try:
        files = fetched()
        board_options = BoardOptions(key=run.places_of(options.name).ssh_key, bound=False)
        board = Board(options.name, board_options)
        if board.state() is None:
            command = [sys.executable, "-m", "scripts.lab", "run", "--name", options.name]
            if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
                return 1
            board = Board(options.name, board_options)
        print(f"The panel: http://{ADDRESS}:{options.port}/   Ctrl-C ends it; `make stop` ends the board.", flush=True)
        web.run_app(
            create_app(lambda: make_panel(board), files),
            host=ADDRESS,
            port=options.port,
            print=lambda *_: None,
            access_log=None,
        )
    except (MachineError, BoardAssertionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; another --port may be free", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
