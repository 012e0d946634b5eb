"""Shell and command language over SSH, by the driver's verbs, on a development board with an identity."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.board_driver.board import Board, BoardOptions
from scripts.board_driver.errors import BoardAssertionError, DeadlineError
from scripts.board_driver.serial import SerialLink
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.conftest import make_factory

pytestmark = [pytest.mark.board, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def one(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, world: World
) -> Iterator[WatchedBoard]:
    """A healthy board with an identity and a developer's key."""
    folder = tmp_path_factory.mktemp("ssh")
    identity = world.identity(1, folder / "identity")
    for make in make_factory(folder, request.node):
        board = make(identity=identity, key=world.ssh_key())
        board.up()
        board.wait_for_healthy()
        yield board


def test_shell_verbs_tell_success_from_failure(one: WatchedBoard):
    assert one.succeed("echo yes; echo also >&2") == "yes\nalso\n"
    assert one.fail("echo no; exit 3") == "no\n"
    assert one.execute("exit 7") == (7, "")
    with pytest.raises(BoardAssertionError, match="ended with 1 on the board"):
        one.succeed("false")
    with pytest.raises(BoardAssertionError, match="should have failed"):
        one.fail("true")


def test_waiting_for_a_command(one: WatchedBoard):
    one.succeed("(sleep 2; touch /tmp/there) > /dev/null 2>&1 &")
    assert one.wait_until_succeeds("test -e /tmp/there && echo here", 30) == "here\n"
    one.wait_until_fails("rm /tmp/there", 30)
    with pytest.raises(DeadlineError, match="test -e /nowhere"):
        one.wait_until_succeeds("test -e /nowhere", 2)


def test_the_identity_is_on_the_board(one: WatchedBoard):
    record = one.disk.record()
    assert record is not None
    assert record.identity is not None
    wanted = json.loads((Path(record.identity) / "identity.json").read_text())
    assert one.send("get system.uuid").expect_ok().strip() == wanted["uuid"]
    assert one.succeed("cat /sys/class/net/eth0/address").strip() == wanted["mac"].lower()


def test_send_takes_ssh_when_the_console_is_in_use(one: WatchedBoard):
    other = Board(one.name, BoardOptions(key=one.options.key))
    with SerialLink(one.run):
        answer = other.send("version")
        refused = other.send("no_such_command")
    assert answer == one.send("version")
    assert refused.code == 3


def test_without_the_key_there_is_no_way_in(one: WatchedBoard, tmp_path: Path, world: World):
    wrong = tmp_path / "wrong"
    wrong.write_text("not a key\n")
    wrong.chmod(0o600)
    done = Board(one.name, BoardOptions(key=wrong)).shell("true")
    assert done.returncode == 255
