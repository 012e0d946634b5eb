"""`make run`: a board with a DMS beside it, in this terminal or in the background."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from scripts.board_driver.board import Board, BoardOptions
from scripts.board_driver.serial import LogReader, SerialLink
from scripts.board_driver.terminal import attach
from scripts.lab.dms import LabDms
from scripts.lab.places import DEMO, PRODUCT, Places
from scripts.lab.world import FACTORY_VERSION, World

NEWER_VERSION: Final = "1.1.0"
BOARD_NAME: Final = "main"
HEALTHY_TIMEOUT_S: Final = 180.0


class Progress:
    """Says what is being done, with the seconds since the start."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    def __call__(self, sentence: str) -> None:
        """Say a sentence on standard error."""
        print(f"[{time.monotonic() - self._start_s:6.1f} s] {sentence}", file=sys.stderr, flush=True)


def prepare(say: Callable[[str], None], places: Places = DEMO) -> tuple[World, LabDms]:
    """Build and make what is missing; return the world and its (not yet started) server."""
    world = World(places, say)
    world.image()
    if world.changed():
        LabDms(places.dms, places.fleet).stop()
        world.begin_anew()
    dms = LabDms(places.dms, world.fleet())
    dms.set_up()
    world.identity(dms.device_port)
    end_as_by_ctrl_c()
    return world, dms


def end_as_by_ctrl_c() -> None:
    """Take a request to end, or the terminal's end, as Ctrl-C from here on: what is started now is stopped again."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def publish_once(world: World, dms: LabDms, version: str) -> None:
    """Publish a release unless the server has it already."""
    mark = dms.data / f"published-{version}"
    bundle = world.bundle(version)
    state = f"{bundle.stat().st_mtime_ns}"
    if mark.is_file() and mark.read_text() == state:
        return
    world.say(f"publishing {PRODUCT}-{version}")
    world.publish(version, dms.web_url, dms.account["token"])
    mark.write_text(state)


def web_app(http_port: int) -> str:
    """Return where the device's Web App is."""
    return f"The device's Web App: http://127.0.0.1:{http_port}/"


def banner(dms: LabDms, http_port: int) -> str:
    """Return what a person needs to know, in a few lines."""
    account = dms.account
    return (
        f"\nThe board's serial console. Its command language: try `help`, `version`, `slots`, `get all`.\n"
        f"Update it to {NEWER_VERSION}:\n"
        f"    dms claim {account['user']} {account['password']}\n"
        f"    dms activate {account['product']}\n"
        f"    ota\n"
        f"{web_app(http_port)}\n"
        f"The DMS: {dms.web_url} (the same name and password).\n"
        f"Leave with Ctrl-]; board and DMS then stop.\n"
    )


def places_of(name: str) -> Places:
    """Return the places of the lab beside the board `name`."""
    return DEMO if name == BOARD_NAME else Places(DEMO.root.with_name(f"demo-{name}"))


def run(name: str = BOARD_NAME) -> int:
    """Do what `make run` promises, with the board `name`; return the exit status."""
    say = Progress()
    world, dms = prepare(say, places_of(name))
    foreground = sys.stdin.isatty()
    options = BoardOptions(
        image=world.places.image, identity=world.places.identity, key=world.ssh_key(), bound=foreground
    )
    board = Board(name, options)
    say(f"starting the board (release {FACTORY_VERSION} when it is new) and the DMS")
    state = board.up(fresh=not board.disk.is_made_from(world.places.image, world.places.identity))
    try:
        dms.start(detached=not foreground)
        publish_once(world, dms, NEWER_VERSION)
        if foreground:
            print(banner(dms, state.http_port))
            with SerialLink(board.run) as link:
                # What the board has said so far, its prompt included: it did not wait for the server to be ready.
                print(
                    LogReader(board.run.serial_log, state.log_offset).read().decode(errors="replace"),
                    end="",
                    flush=True,
                )
                attach(link)
            return 0
        answer = board.wait_for_healthy(HEALTHY_TIMEOUT_S, say)
        print(f"The board is healthy and runs {answer.body.strip()}")
        print('    scripts/board send "version"    scripts/board console    scripts/board ssh    scripts/board log')
        print(f"    {web_app(state.http_port)}")
        print(f"    DMS: {dms.web_url}, account {dms.account['user']}, password {dms.account['password']}")
        print("    make stop ends both")
        return 0
    except BaseException:
        foreground = True  # what was begun must not stay behind
        raise
    finally:
        if foreground:
            with contextlib.suppress(KeyboardInterrupt):
                board.down()
                dms.stop()


def stop(name: str = BOARD_NAME) -> int:
    """End what `run` left in the background; return the exit status."""
    stopped = Board(name).down()
    places = places_of(name)
    dms = LabDms(places.dms, places.fleet)
    served = dms.pid() is not None
    dms.stop()
    print(f"board: {'stopped' if stopped else 'was not running'}; DMS: {'stopped' if served else 'was not running'}")
    return 0
