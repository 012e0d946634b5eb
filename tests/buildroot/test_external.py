"""The external tree in a real Buildroot tree (`BUILDROOT=<checkout>`), and its fragments in real sources."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.board_driver.boards import BOARDS, BoardKind
from scripts.buildroot import driver, output, pinned
from scripts.image import boardfiles
from scripts.image.compile import lost_options
from tests.buildroot.conftest import TOP, VARIANT_NAMES, VARIANTS

pytestmark = pytest.mark.timeout(900)

EXTERNAL = TOP / "buildroot_external"
EACH_VARIANT = pytest.mark.parametrize("variant", VARIANTS, ids=VARIANT_NAMES)
EACH_BOARD = pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
ADDED = ("gpiod", "pydbus", "securesystemslib", "tuf", "zstandard")


@EACH_VARIANT
def test_every_line_of_the_configuration_survives(buildroot, variant):
    config, _ = buildroot(variant)
    final = config.read_text().splitlines()
    name = driver.defconfig(variant[0], production=variant[1])
    wanted = [line for line in (EXTERNAL / "configs" / name).read_text().splitlines() if line]
    assert len(wanted) > 40
    assert [line for line in wanted if line not in final] == []


@EACH_VARIANT
def test_every_package_resolves(buildroot, variant):
    _, printed = buildroot(variant, "show-info")
    known = json.loads(printed)
    listed = {entry["name"] for entry in output.packages_of(known, variant[0].debian)}
    assert {f"python-{name}" for name in ADDED} <= listed
    assert {"linux", "u-boot", "busybox", "dbus", "dropbear", "e2fsprogs", "python3", "python-gobject"} <= listed
    for name in ("zentrid", "zentri-listenfds"):
        assert known[name]["install_target"] is (name == "zentrid")


def test_the_pinned_tree_is_the_one_that_was_checked(tree):
    if (tree / ".git").exists() or (tree / ".config").exists() or (tree / "output").exists():
        pytest.skip(
            "the tree has files beside those of the release (a checkout or a build): only its version was checked"
        )
    from scripts.image.cache import hash_files

    assert hash_files([tree], tree) == pinned.TREE_SHA256


def test_buildroot_s_own_check_has_nothing_to_say(tree):
    python = next((path for path in (sys.executable, "python3") if _has(path, "magic", "flake8")), None)
    if python is None:
        pytest.skip("check-package needs the Python packages python-magic and flake8, which are not installed")
    files = [str(path.relative_to(EXTERNAL)) for path in sorted(EXTERNAL.rglob("*")) if path.is_file()]
    words = [python, tree / "utils/check-package", "--br2-external", *files]
    done = subprocess.run(words, cwd=EXTERNAL, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 warnings generated" in done.stdout + done.stderr


def _has(python: str, *modules: str) -> bool:
    code = f"import {', '.join(modules)}"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def _configured(source: Path, base: Path | str, fragments: list[Path], make: list[str], merge: Path) -> str:
    """Return the configuration that a base and its fragments end in. `base`: a target of make, or a file."""
    start = [*make, base] if isinstance(base, str) else ["cp", str(base), ".config"]
    for words in (start, [str(merge), "-m", ".config", *map(str, fragments)], [*make, "olddefconfig"]):
        subprocess.run(words, cwd=source, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"})
    return (source / ".config").read_text()


def _nothing_is_lost(fragments: list[Path], config: str) -> bool:
    return not [line for fragment in fragments for line in lost_options(fragment.read_text(), config)]


@EACH_BOARD
def test_the_kernel_is_configured_as_in_the_other_build(tree, linux, board):
    """Buildroot cannot be told `tinyconfig` for every architecture, so its saved form is the base there."""
    make = ["make", f"ARCH={board.linux_arch}", f"CROSS_COMPILE={_cross(board)}"]
    fragments = boardfiles.fragments_of(TOP, board, "linux.fragment")
    base = boardfiles.file_of(TOP, board, "linux-tiny.config")
    theirs = _configured(linux, base, fragments, make, tree / "support/kconfig/merge_config.sh")
    ours = _configured(linux, "tinyconfig", fragments, make, linux / "scripts/kconfig/merge_config.sh")
    assert theirs == ours
    assert _nothing_is_lost(fragments, theirs)


@EACH_BOARD
def test_the_boot_loader_is_configured_as_in_the_other_build(tree, uboot, board):
    make = ["make", f"CROSS_COMPILE={_cross(board)}"]
    fragments = boardfiles.fragments_of(TOP, board, "u-boot.fragment")
    theirs = _configured(uboot, board.uboot_defconfig, fragments, make, tree / "support/kconfig/merge_config.sh")
    ours = _configured(uboot, board.uboot_defconfig, fragments, make, uboot / "scripts/kconfig/merge_config.sh")
    assert theirs == ours
    assert _nothing_is_lost(fragments, theirs)


def _cross(board: BoardKind) -> str:
    if shutil.which(f"{board.cross}gcc") is None:
        pytest.skip(f"the compiler of board {board.name} is not installed: `make host-packages BOARD={board.name}`")
    return board.cross
