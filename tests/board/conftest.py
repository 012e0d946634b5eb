"""Boards for tests of the product: the real image, a disk of their own, a watched console, logs kept when a test fails."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from scripts.board_driver import places
from scripts.board_driver.board import BoardOptions
from scripts.board_driver.watched import WatchedBoard
from scripts.lab.world import World
from tests.board.disks import board_from, own_lab, preparing, set_and_save
from tests.board.states import copy_slot

LOGS: Final = places.built("test-logs")
_PHASES: Final = pytest.StashKey[dict[str, pytest.TestReport]]()

BoardFactory = Callable[..., WatchedBoard]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Keep each phase's report with its test, so that fixtures know whether it failed."""
    report = yield
    item.stash.setdefault(_PHASES, {})[report.when] = report
    return report


def failed(node: pytest.Item | pytest.Collector) -> bool:
    """Tell whether this test, or one of the tests of this module or session, has failed until now."""
    if isinstance(node, pytest.Item):
        return any(report.failed for report in node.stash.get(_PHASES, {}).values())
    session = node.session
    return any(failed(item) for item in session.items if item.nodeid.startswith(node.nodeid))


def keep_logs(board: WatchedBoard, title: str) -> Path:
    """Copy what the board and QEMU said to build/test-logs/<title>; return the folder."""
    folder = LOGS / re.sub(r"[^\w.=-]+", "_", title)[-120:]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in board.run.path.glob("*.log*"):
        shutil.copy(path, folder)
    return folder


def make_factory(tmp: Path, node: pytest.Item | pytest.Collector) -> Iterator[BoardFactory]:
    """Give a function that makes boards; afterwards each is down, its logs are kept if `node` failed."""
    boards: list[WatchedBoard] = []

    def make(**options: object) -> WatchedBoard:
        """Make a board that is not up yet. `options`: see BoardOptions; bound to this process unless told."""
        name = f"t-{uuid4().hex[:8]}"
        board = WatchedBoard(name, BoardOptions(**options), tmp / name)  # type: ignore[arg-type]
        boards.append(board)
        return board

    yield make
    trouble: list[Exception] = []
    for board in boards:
        try:
            # As leaving its context: down, and what the console showed after the last verb counts.
            board.__exit__(None, None, None)
        except AssertionError as error:
            trouble.append(error)
        if trouble or failed(node):
            title = node.nodeid + (f"-{boards.index(board)}" if len(boards) > 1 else "")
            print(f"\nthe board's logs are in {keep_logs(board, title)}")
        board.remove_run_folder()
        shutil.rmtree(board.disk.folder, ignore_errors=True)
    if trouble:
        raise trouble[0]


@pytest.fixture(scope="session")
def world() -> World:
    """The image, built if it is not in the cache, and a lab of the tests' own: fleet, releases, publisher."""
    made = World(own_lab())
    made.image()
    os.environ[places.IMAGE_ENV] = str(made.places.image)  # for boards that are not told their image
    if made.changed():
        made.begin_anew()
    return made


@pytest.fixture
def board(request: pytest.FixtureRequest, tmp_path: Path, world: World) -> Iterator[BoardFactory]:
    """Make boards for one test."""
    yield from make_factory(tmp_path, request.node)


@pytest.fixture(scope="module")
def module_board(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, world: World
) -> Iterator[WatchedBoard]:
    """One healthy board for all tests of a module that leave it as they found it.

    Its first failure is kept: after that every test that uses it fails with BrokenBoardError, which names the cause.
    """
    factory = make_factory(tmp_path_factory.mktemp("boards"), request.node)
    one = next(factory)()
    try:
        one.up()
        one.wait_for_healthy()
        yield one
    finally:
        for _ in factory:
            raise AssertionError("a factory gives itself once")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Path]:
    """The disk of a board that was healthy once; both slots hold the same release, B never ran."""
    folder = tmp_path_factory.mktemp("prepared") / "disk"
    with preparing(world, folder) as one:
        set_and_save(one, "system.boot.healthy_after 1")
        one.wait_for_healthy()
        one.power_cut()
        copy_slot(one, "a", "b")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cold(board: BoardFactory, prepared: Path, world: World) -> WatchedBoard:
    """A board of its own with a copy of the prepared disk; its power is off."""
    one = board_from(board, world, prepared)
    one.power_cut()  # long before the boot script reads the disk
    return one


@pytest.fixture(autouse=True)
def no_qemu_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every QEMU that this test process started with a function-scoped board has ended with its test."""
    before = children_called_qemu()
    yield
    shared = "module_board" in request.fixturenames
    left = set() if shared else children_called_qemu() - before
    assert not left, f"QEMU processes are left running: {sorted(left)}"


def children_called_qemu() -> set[int]:
    """Return the process numbers of this process's children that are QEMU."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            numbers = (task / "children").read_text().split()
        except FileNotFoundError:
            continue
        found |= {int(number) for number in numbers if "qemu" in _command(number)}
    return found


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except FileNotFoundError:
        return ""
