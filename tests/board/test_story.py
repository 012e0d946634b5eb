"""The stories of `make demo`, as tests: each step holds, on the real board, with the real server."""

import io
from pathlib import Path

import pytest

from scripts.board_driver.board import BoardOptions
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.dms import LabDms
from scripts.lab.narrate import Narrator
from scripts.lab.stories import STORIES
from scripts.lab.world import World
from tests.board.conftest import keep_logs

pytestmark = [pytest.mark.board, pytest.mark.timeout(1500)]


@pytest.mark.parametrize("name", STORIES)
def test_every_step_of_the_story_holds(world: World, tmp_path: Path, name: str):
    story = STORIES[name]
    for version in story.versions:
        world.bundle(version)
    dms = LabDms(tmp_path / "dms", world.fleet())
    dms.set_up()
    identity = world.identity(dms.device_port, tmp_path / "identity")
    options = BoardOptions(image=world.places.image, identity=identity, key=world.ssh_key())
    board = WatchedBoard(f"t-story-{name}", options, tmp_path / "board")
    voice = io.StringIO()
    try:
        dms.start()
        with board:
            story(world, dms, board, Narrator(voice)).play()
    except BaseException:
        print(voice.getvalue())
        print(f"logs: {keep_logs(board, f'story-{name}')}; server: {dms.log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        dms.stop()
