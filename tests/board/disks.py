"""Disks that several tests begin with: a board is prepared once, each test gets a copy."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from scripts.board_driver import places
from scripts.board_driver.board import BoardOptions
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.places import Places
from scripts.lab.world import World


def own_lab() -> Places:
    """Return the lab of this test process: its own when several share the work, so that none rebuilds what another uses."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    root = places.built(f"test-lab-{worker}" if worker else "test-lab")
    return Places(root, image=root / "image")


@contextmanager
def preparing(world: World, folder: Path) -> Iterator[WatchedBoard]:
    """Give a board that answers, its disk in `folder`; afterwards it has lost its power, and only the disk is left."""
    identity = world.identity(8443, folder.parent / "identity")
    options = BoardOptions(image=world.places.image, identity=identity, key=world.ssh_key())
    with WatchedBoard(f"t-{uuid4().hex[:8]}", options, folder) as one:
        one.up()
        one.wait_for_answer()
        yield one
        if one.powered:
            one.power_cut()
    one.remove_run_folder()


def set_and_save(board: WatchedBoard, *settings: str) -> None:
    """Set variables (`name value`) and save them."""
    for setting in settings:
        board.send(f"set {setting}").expect_ok()
    board.send("save").expect_ok()


def board_from(make: Callable[..., WatchedBoard], world: World, disk: Path) -> WatchedBoard:
    """Return a board of a test's own with a copy of the disk; its power is on since a moment."""
    one = make(key=world.ssh_key())
    shutil.copytree(disk, one.disk.folder)
    one.up()
    return one
