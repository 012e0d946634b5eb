"""A board whose ROM is a stand-in of this folder, built in a moment: for trying the driver itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from scripts.board_driver.board import BoardOptions
from scripts.board_driver.chosen import BOARD
from scripts.board_driver.watched import WatchedBoard
from tests.support.disks import make_disk

FLAGS = [
    "-O1",
    "-ffreestanding",
    "-fno-builtin",
    "-nostdlib",
    "-static",
    "-mgeneral-regs-only",
    "-mstrict-align",
    "-fno-pie",
]


@pytest.fixture(scope="session")
def stand_in_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: the stand-in firmware as the ROM, a disk with the board's partitions."""
    if BOARD.bits != 64:
        pytest.skip("the stand-in firmware is a 64-bit program; the driver is the same for every board")
    folder = tmp_path_factory.mktemp("image")
    elf = folder / "firmware.elf"
    source = Path(__file__).with_name("firmware.c")
    link = ["-no-pie", "-Wl,-N,-Ttext=0x1000,--section-start=.start=0,--build-id=none,-e0,--no-warn-rwx-segments"]
    subprocess.run([f"{BOARD.cross}gcc", *FLAGS, *link, "-Wall", "-Werror", "-o", str(elf), str(source)], check=True)
    subprocess.run([f"{BOARD.cross}objcopy", "-O", "binary", str(elf), str(folder / "rom.bin")], check=True)
    make_disk(folder / "disk.img")
    return folder


@pytest.fixture
def name() -> str:
    return f"t-{uuid4().hex[:8]}"


@pytest.fixture
def stand_in(stand_in_image: Path, tmp_path: Path, name: str) -> Iterator[WatchedBoard]:
    """A board that is not up yet; it is down afterwards, whatever happens."""
    with WatchedBoard(name, BoardOptions(image=stand_in_image), tmp_path / "state") as board:
        yield board
    board.remove_run_folder()
