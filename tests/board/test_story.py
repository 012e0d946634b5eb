"""The whole story of `make demo`, as a test: claimed, updated, a bad update that travels back, tampering, damage, a cut."""

import io
from pathlib import Path

import pytest

from scripts.board_driver.board import BoardOptions
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.dms import LabDms
from scripts.lab.narrate import Narrator
from scripts.lab.story import Story
from scripts.lab.world import World
from tests.board.conftest import keep_logs

pytestmark = [pytest.mark.board, pytest.mark.timeout(1500)]


def test_a_signed_update_travels_to_the_board_and_a_bad_one_travels_back(world: World, tmp_path: Path):
    for version in ("1.1.0", "1.2.0", "1.3.0", "1.4.0"):
        world.bundle(version)
    dms = LabDms(tmp_path / "dms", world.fleet())
    dms.set_up()
    identity = world.identity(dms.device_port, tmp_path / "identity")
    options = BoardOptions(image=world.places.image, identity=identity, key=world.ssh_key())
    board = WatchedBoard("t-story", options, tmp_path / "board")
    voice = io.StringIO()
    try:
        dms.start()
        with board:
            Story(world, dms, board, Narrator(voice)).play()
    except BaseException:
        print(voice.getvalue())
        print(f"logs: {keep_logs(board, 'story')}; server: {dms.log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        dms.stop()
