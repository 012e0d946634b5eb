"""The external tree in a real Buildroot tree (`BUILDROOT=<checkout>`), and its fragments in real sources."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.buildroot import output, pinned
from scripts.image.compile import CROSS, lost_options
from tests.buildroot.conftest import TOP, VARIANTS

pytestmark = pytest.mark.timeout(900)

EXTERNAL = TOP / "buildroot_external"
BOARD = EXTERNAL / "board/virt"
ADDED = ("gpiod", "pydbus", "securesystemslib", "tuf", "zstandard")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_line_of_the_configuration_survives(buildroot, variant):
    config, _ = buildroot(variant)
    final = config.read_text().splitlines()
    name = "zentri_virt_prod_defconfig" if variant == "production" else "zentri_virt_defconfig"
    wanted = [line for line in (EXTERNAL / "configs" / name).read_text().splitlines() if line]
    assert len(wanted) > 40
    assert [line for line in wanted if line not in final] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_package_resolves(buildroot, variant):
    _, printed = buildroot(variant, "show-info")
    known = json.loads(printed)
    listed = {entry["name"] for entry in output.packages_of(known, "arm64")}
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


def _configured(source: Path, base: Path | str, fragment: Path, make: list[str], merge: Path) -> str:
    """Return the configuration that a base and a fragment end in. `base`: a target of make, or a file."""
    start = [*make, base] if isinstance(base, str) else ["cp", str(base), ".config"]
    for words in (start, [str(merge), "-m", ".config", str(fragment)], [*make, "olddefconfig"]):
        subprocess.run(words, cwd=source, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"})
    return (source / ".config").read_text()


def test_the_kernel_is_configured_as_in_the_other_build(tree, linux):
    """Buildroot has no name for arm64's `tinyconfig`, so its saved form is the base there; the fragment is one file."""
    make = ["make", "ARCH=arm64", f"CROSS_COMPILE={CROSS}"]
    fragment = BOARD / "linux.fragment"
    theirs = _configured(linux, BOARD / "linux-tiny.config", fragment, make, tree / "support/kconfig/merge_config.sh")
    ours = _configured(linux, "tinyconfig", fragment, make, linux / "scripts/kconfig/merge_config.sh")
    assert theirs == ours
    assert lost_options(fragment.read_text(), theirs) == []


def test_the_boot_loader_is_configured_as_in_the_other_build(tree, uboot):
    make = ["make", f"CROSS_COMPILE={CROSS}"]
    fragment = BOARD / "u-boot.fragment"
    theirs = _configured(uboot, "qemu_arm64_defconfig", fragment, make, tree / "support/kconfig/merge_config.sh")
    ours = _configured(uboot, "qemu_arm64_defconfig", fragment, make, uboot / "scripts/kconfig/merge_config.sh")
    assert theirs == ours
    assert lost_options(fragment.read_text(), theirs) == []
