"""`python -m scripts.lab`: run, stop, demo, dms; see `make help`."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys

from scripts.board_driver.board import BoardOptions
from scripts.board_driver.errors import BoardAssertionError, MachineError
from scripts.board_driver.places import built
from scripts.board_driver.watched import WatchedBoard
from scripts.image.run import BuildError
from scripts.lab import run
from scripts.lab.dms import LabDms
from scripts.lab.narrate import Narrator, StepFailedError
from scripts.lab.places import Places
from scripts.lab.stories import STORIES
from scripts.lab.tools import LabError
from zentrid.errors import ZentriError


def demo(name: str) -> int:
    """Play a story on a board and a server of its own; return the exit status."""
    story = STORIES.get(name)
    if story is None:
        print(f"there is no story {name!r}; there are: {', '.join(STORIES)}", file=sys.stderr)
        return 2
    say = run.Progress()
    places = Places(built("story"))
    shutil.rmtree(places.dms, ignore_errors=True)
    world, dms = run.prepare(say, places)
    for version in story.versions:
        world.bundle(version)
    board = WatchedBoard("story", BoardOptions(image=places.image, identity=places.identity, key=world.ssh_key()))
    try:
        dms.start()
        story(world, dms, board, Narrator()).play()
    finally:
        board.close()
        dms.stop()
    return 0


def serve() -> int:
    """Run a server in the foreground until Ctrl-C; return the exit status."""
    world, dms = run.prepare(run.Progress())
    dms.start()
    account = dms.account
    print(f"The DMS: {dms.web_url}, account {account['user']}, password {account['password']}")
    print(
        f"Devices: port {dms.device_port} (mutual TLS). Fleet: {world.places.fleet}. Log: {dms.log}. Ctrl-C stops it."
    )
    return _until_interrupted(dms)


def _until_interrupted(dms: LabDms) -> int:
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        dms.stop()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for verb, text in (
        ("run", "boot the board with a DMS beside it"),
        ("stop", "end what `run` left in the background"),
    ):
        named = commands.add_parser(verb, help=text)
        named.add_argument(
            "--name", default=run.BOARD_NAME, help="which board; each has a DMS of its own (%(default)s)"
        )
    commands.add_parser("dms", help="a DMS in the foreground")
    story = commands.add_parser("demo", help="play a story, each step with its time")
    stories = "; ".join(f"{name}: {told.about}" for name, told in STORIES.items())
    story.add_argument("--story", default="update", help=f"which one (default: %(default)s). {stories}")
    options = parser.parse_args(argv)
    try:
        if options.command == "demo":
            return demo(options.story)
        if options.command == "dms":
            return serve()
        return {"run": run.run, "stop": run.stop}[options.command](options.name)
    except (BuildError, LabError, StepFailedError, MachineError, BoardAssertionError, ZentriError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        print(f"error: {error}; mend what it names, then run the same command again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
