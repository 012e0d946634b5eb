"""The description of the boards, the choice of one, and that nothing of two boards mixes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.board_driver import places
from scripts.board_driver.boards import BOARDS, DEFAULT, UnknownBoardError, board_named, folder_name
from scripts.board_driver.chosen import chosen
from scripts.image import boardfiles, fit
from scripts.image.run import BuildError
from zentrid.bundle.manifest import PRODUCT_PATTERN

TOP = places.CHECKOUT
EACH = pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)


def test_without_a_word_it_is_the_ordinary_board():
    assert chosen({}) is chosen({"BOARD": ""}) is DEFAULT is BOARDS["virt"]


def test_a_name_chooses_a_board():
    assert [board_named(name).name for name in BOARDS] == list(BOARDS)
    assert [chosen({"BOARD": name}).name for name in BOARDS] == list(BOARDS)


def test_an_unknown_board_is_refused_with_the_list_of_those_there_are():
    with pytest.raises(
        UnknownBoardError, match=f"BOARD=toaster: there is no such board; there are {', '.join(BOARDS)}"
    ):
        board_named("toaster")


@pytest.mark.parametrize("module", ["scripts.image", "scripts.board_driver", "scripts.lab", "scripts.bundle_tool"])
def test_every_command_line_says_so_in_one_sentence(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=TOP, env={**os.environ, "BOARD": "toaster"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: BOARD=toaster: there is no such board; there are virt")
    assert len(done.stderr.splitlines()) == 1


def test_built_things_of_two_boards_lie_in_folders_of_their_own():
    assert folder_name("image", DEFAULT) == "image"
    folders = {places.built(name, board) for name in ("image", "demo", "boards", "keys") for board in BOARDS.values()}
    assert len(folders) == 4 * len(BOARDS)
    assert all(folder.parent == TOP / "build" for folder in folders)


def test_two_boards_of_one_name_have_sockets_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert len({places.run_folder("main", TOP, board).path for board in BOARDS.values()}) == len(BOARDS)


def test_what_must_differ_differs():
    for field in ("name", "product"):
        assert len({getattr(board, field) for board in BOARDS.values()}) == len(BOARDS)


@EACH
def test_a_description_is_sound(board):
    assert BOARDS[board.name] is board
    assert PRODUCT_PATTERN.fullmatch(board.product)
    assert board.bits in (32, 64)
    assert board.cross == f"{board.triplet}-"
    assert "acpi=off" in board.machine[board.machine.index("-M") + 1], "with ACPI there is no GPIO controller"


@EACH
def test_every_file_that_a_build_needs_is_there(board):
    assert (TOP / boardfiles.FOLDER / board.name).is_dir()
    for name in (
        "boot.script", "reserved-memory.dtsi", "slot.its.in", "linux-tiny.config", "busybox.fragment", "linux.fragment",
        "u-boot.fragment",
    ):  # fmt: skip
        assert boardfiles.file_of(TOP, board, name).is_file()


@EACH
def test_the_shared_fragment_comes_first_and_says_nothing_of_one_processor(board):
    first, *own = boardfiles.fragments_of(TOP, board, "linux.fragment")
    assert first == TOP / "buildroot_external/board/common/linux.fragment"
    assert own == [TOP / f"buildroot_external/board/{board.name}/linux.fragment"]
    options = _options(first)
    assert not {
        name for name in options if "ARM64" in name or name in ("CONFIG_64BIT", "CONFIG_NEON", "CONFIG_ARM_LPAE")
    }
    assert not options & _options(own[0]), "said twice"


def _options(fragment: Path) -> set[str]:
    words = (
        line.removeprefix("# ").split("=")[0].split()[0] for line in fragment.read_text().splitlines() if line.strip()
    )
    return {word for word in words if word.startswith("CONFIG_")}


def test_a_board_s_own_file_replaces_the_shared_one_and_a_missing_one_is_named(tmp_path):
    for folder in ("common", "virt"):
        (tmp_path / boardfiles.FOLDER / folder).mkdir(parents=True)
        (tmp_path / boardfiles.FOLDER / folder / "x").touch()
    (tmp_path / boardfiles.FOLDER / "common/y").touch()
    found = [boardfiles.file_of(tmp_path, DEFAULT, name).parent.name for name in ("x", "y")]
    assert found == ["virt", "common"]
    with pytest.raises(BuildError, match="board/virt has no z"):
        boardfiles.file_of(tmp_path, DEFAULT, "z")


@EACH
def test_the_kernel_lies_above_what_is_reserved_and_below_where_the_fit_is_read(board):
    from scripts.image import bootenv

    reserved_end = bootenv.MAGIC_ADDRESS + 0x1000
    assert reserved_end <= board.load_address < bootenv.STATE_ADDRESS < bootenv.FIT_ADDRESS
    assert f"load = <0x{board.load_address:08x}>" in fit.board_template("load = <@LOAD@>", board)
