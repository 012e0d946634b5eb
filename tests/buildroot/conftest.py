"""A Buildroot tree for the tests, configured for the board; the trees of Linux and U-Boot, unpacked."""

import os
import subprocess
from pathlib import Path

import pytest

from scripts.board_driver.boards import BOARDS, BoardKind
from scripts.buildroot import driver, pinned
from scripts.image.cache import default_cache_dir

TOP = Path(__file__).resolve().parents[2]
VARIANTS = [(board, production) for board in BOARDS.values() for production in (False, True)]
VARIANT_NAMES = [f"{board.name}-{'production' if production else 'development'}" for board, production in VARIANTS]
Variant = tuple[BoardKind, bool]


@pytest.fixture(scope="session")
def tree() -> Path:
    named = driver.tree_from(os.environ)
    if named is None:
        pytest.skip(
            f"BUILDROOT is not set: name a checkout of Buildroot {pinned.VERSION} to check the external tree with it"
        )
    return pinned.check(named)


@pytest.fixture(scope="session")
def buildroot(tree, tmp_path_factory):
    """Give a function that runs Buildroot's make for a variant; returns what it printed."""
    folder: Path = tmp_path_factory.mktemp("buildroot")

    def _out(variant: Variant) -> Path:
        return folder / VARIANT_NAMES[VARIANTS.index(variant)]

    def make(variant: Variant, *targets: str) -> str:
        words = driver.make_command(TOP, tree, _out(variant), folder / "dl", "-s", "--no-print-directory", *targets)
        done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def configured(variant: Variant, *targets: str) -> tuple[Path, str]:
        config = _out(variant) / ".config"
        if not config.is_file():
            make(variant, driver.defconfig(variant[0], production=variant[1]))
        return config, make(variant, *targets) if targets else ""

    return configured


def _unpacked(pattern: str, folder: Path) -> Path:
    tars = sorted((default_cache_dir() / "sources").glob(f"*/{pattern}"))
    if not tars:
        pytest.skip("the build cache has no sources of Linux and U-Boot: `make image` fetches them")
    subprocess.run(["tar", "xf", tars[-1], "-C", folder, "--strip-components=1"], check=True)
    return folder


@pytest.fixture(scope="session")
def linux(tmp_path_factory) -> Path:
    return _unpacked("linux.tar.xz", tmp_path_factory.mktemp("linux"))


@pytest.fixture(scope="session")
def uboot(tmp_path_factory) -> Path:
    return _unpacked("u-boot.tar.*", tmp_path_factory.mktemp("u-boot"))
