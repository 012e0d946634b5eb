"""A Buildroot tree for the tests, configured for the board; the trees of Linux and U-Boot, unpacked."""

import os
import subprocess
from pathlib import Path

import pytest

from scripts.buildroot import driver, pinned
from scripts.image.cache import default_cache_dir

TOP = Path(__file__).resolve().parents[2]
VARIANTS = {"development": False, "production": True}


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
    folder = tmp_path_factory.mktemp("buildroot")

    def make(variant: str, *targets: str) -> str:
        words = driver.make_command(TOP, tree, folder / variant, folder / "dl", "-s", "--no-print-directory", *targets)
        done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def configured(variant: str, *targets: str) -> tuple[Path, str]:
        if not (folder / variant / ".config").is_file():
            make(variant, driver.defconfig(production=VARIANTS[variant]))
        return folder / variant / ".config", make(variant, *targets) if targets else ""

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
