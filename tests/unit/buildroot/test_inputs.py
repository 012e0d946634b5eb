"""Both builds are made from the same things. No Buildroot tree is needed here; tests/buildroot does more with one."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from scripts.board_driver.boards import BOARDS, DEFAULT, BoardKind
from scripts.buildroot import driver, target
from scripts.image import boardfiles, bootenv, disk
from zentrid.core import names

TOP = Path(__file__).resolve().parents[3]
EXTERNAL = TOP / "buildroot_external"
SHARED = EXTERNAL / "board/common"
EACH = pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)

COUNTERPARTS = {
    "busybox-static": "BUSYBOX",
    "dbus-daemon": "DBUS",
    "dropbear-bin": "DROPBEAR",
    "e2fsprogs": "E2FSPROGS",
    "python3": "PYTHON3",
    "python3-aiohttp": "PYTHON_AIOHTTP",
    "python3-cryptography": "PYTHON_CRYPTOGRAPHY",
    "python3-libgpiod": "PYTHON_GPIOD",
    "python3-pydbus": "PYTHON_PYDBUS",
    "python3-securesystemslib": "PYTHON_SECURESYSTEMSLIB",
    "python3-tuf": "PYTHON_TUF",
    "python3-urllib3": "PYTHON_URLLIB3",
    "python3-zstandard": "PYTHON_ZSTANDARD",
}
"""Debian's packages of the image, and Buildroot's symbols of the same."""
NOT_IN_BUILDROOT = {"base-files"}
"""Buildroot's skeleton is in its place."""
ON_BY_DEFAULT = {"BUSYBOX"}
OWN = {"ZENTRID", "ZENTRI_LISTENFDS"}
FROM_DEPENDENCIES = {"LIBGPIOD2", "PYTHON_GOBJECT"}
"""In Debian they come along with what needs them; in Buildroot they are chosen by hand."""


def options(name: str) -> dict[str, str]:
    found = {}
    for line in (EXTERNAL / "configs" / name).read_text().splitlines():
        if line.startswith("# ") and line.endswith(" is not set"):
            found[line.split()[1]] = "n"
        else:
            symbol, _, value = line.partition("=")
            found[symbol] = value.strip('"')
    return found


def selected(board: BoardKind) -> set[str]:
    """Return the packages that the device's own package and the board's configuration ask for."""
    recipe = (EXTERNAL / "package/zentrid/Config.in").read_text()
    asked = set(re.findall(r"select BR2_PACKAGE_([A-Z0-9_]+)", recipe))
    asked |= {
        name.removeprefix("BR2_PACKAGE_")
        for name, value in options(driver.defconfig(board, production=False)).items()
        if name.startswith("BR2_PACKAGE_") and not name.startswith("BR2_PACKAGE_HOST_") and value == "y"
    }
    return {name for name in asked if not name.startswith("PYTHON3_")}


def debian_packages() -> set[str]:
    lines = (TOP / "scripts/image/packages.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


@EACH
def test_both_builds_have_the_same_packages(board):
    assert debian_packages() - NOT_IN_BUILDROOT == set(COUNTERPARTS)
    assert selected(board) | ON_BY_DEFAULT == set(COUNTERPARTS.values()) | OWN | FROM_DEPENDENCIES


def test_every_module_that_zentrid_imports_is_looked_for_in_the_target():
    imported = set()
    for path in (TOP / "zentrid").rglob("*.py"):
        if "debug" not in path.parts:
            imported |= set(re.findall(r"^\s*(?:import|from) ([a-z0-9_]+)", path.read_text(), re.MULTILINE))
    foreign = {"aiohttp", "gi", "gpiod", "pydbus", "securesystemslib", "tuf", "urllib3", "zstandard"} & imported
    assert foreign <= set(target.MODULES)
    assert {"aiohttp", "pydbus", "tuf", "urllib3"} <= foreign


def test_the_target_has_what_the_overlay_starts():
    inittab = (TOP / "rootfs_overlay/etc/inittab").read_text()
    started = set(re.findall(r":(/sbin/[a-z]+)", inittab))
    started |= set(re.findall(r"(/sbin/udhcpc)", (TOP / "rootfs_overlay/usr/sbin/zentri-dhcp").read_text()))
    assert started == {"/sbin/reboot", "/sbin/udhcpc"}
    assert {f"usr{path}" for path in started} <= set(target.PROGRAMS)


@EACH
def test_the_overlay_is_the_same_folder_and_its_users_are_the_only_ones(board):
    chosen = options(driver.defconfig(board, production=False))
    assert chosen["BR2_ROOTFS_OVERLAY"] == "$(BR2_EXTERNAL_ZENTRI_PATH)/../rootfs_overlay"
    assert (EXTERNAL / "../rootfs_overlay/etc/passwd").is_file()
    tables = [name for name in chosen if "TABLE" in name]
    assert not tables, "users, modes and devices come from the overlay and from rootfs.normalize_modes, in both builds"
    for recipe in EXTERNAL.glob("package/*/*.mk"):
        assert not re.search(r"_(USERS|PERMISSIONS|DEVICES)\b", recipe.read_text()), recipe


def test_every_user_has_a_number_of_its_own_and_a_group():
    rows = [line.split(":") for line in (TOP / "rootfs_overlay/etc/passwd").read_text().splitlines()]
    groups = {line.split(":")[2] for line in (TOP / "rootfs_overlay/etc/group").read_text().splitlines()}
    assert len({row[2] for row in rows}) == len(rows)
    assert {row[3] for row in rows} <= groups


@EACH
def test_the_production_configuration_differs_in_one_line(board):
    development, production = (
        (EXTERNAL / "configs" / driver.defconfig(board, production=which)).read_text().splitlines()
        for which in (False, True)
    )
    assert set(production) ^ set(development) == {"BR2_ZENTRI_PRODUCTION=y"}


def test_the_ordinary_board_s_configurations_keep_their_names():
    assert driver.defconfig(DEFAULT, production=True) == "zentri_virt_prod_defconfig"
    assert driver.defconfig(DEFAULT, production=False) == "zentri_virt_defconfig"


def test_the_boards_configurations_differ_only_in_what_a_board_is():
    one, other = (set(options(driver.defconfig(board, production=False)).items()) for board in BOARDS.values())
    words = ("KERNEL", "UBOOT_BOARD", "UBOOT_CONFIG", "TOOLCHAIN", "ZENTRI", "BR2_arm", "aarch64", "cortex", "ARM_FPU")
    assert [name for name, _ in one ^ other if not any(word in name for word in words)] == []


@EACH
def test_fragments_and_hooks_that_the_configuration_names_are_those_of_the_board(board):
    name = driver.defconfig(board, production=False)
    named = re.findall(r"\$\(BR2_EXTERNAL_ZENTRI_PATH\)/([^\" ]+)", (EXTERNAL / "configs" / name).read_text())
    for path in named:
        assert path.startswith("../build/") or (EXTERNAL / path).exists(), f"{path}: even `make show-info` would stop"
    chosen = options(name)
    for option, file in (("LINUX_KERNEL", "linux.fragment"), ("TARGET_UBOOT", "u-boot.fragment")):
        paths = (
            chosen[f"BR2_{option}_CONFIG_FRAGMENT_FILES"].replace("$(BR2_EXTERNAL_ZENTRI_PATH)", str(EXTERNAL)).split()
        )
        assert [Path(path) for path in paths] == boardfiles.fragments_of(TOP, board, file)
    tiny = chosen["BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE"]
    assert tiny.endswith(f"board/{board.name}/linux-tiny.config")
    assert f"{chosen['BR2_TARGET_UBOOT_BOARD_DEFCONFIG']}_defconfig" == board.uboot_defconfig
    # What the option says when the configuration does not name it.
    assert chosen.get("BR2_ZENTRI_BOARD", "virt") == board.name


def test_the_hooks_take_the_board_from_the_configuration(tmp_path):
    """The shell hook sets BOARD for the tools, whatever the caller's says."""
    hook = tmp_path / "top/buildroot_external/board/common/hook"
    python = tmp_path / "top/.venv/bin/python"
    for path, text in ((hook, (SHARED / "hook").read_text()), (python, '#!/bin/sh\necho "$BOARD $*"\n')):
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / ".config").write_text('BR2_arm=y\nBR2_ZENTRI_BOARD="virt32"\n')
    environment = {**os.environ, "BOARD": "virt", "BR2_CONFIG": str(tmp_path / ".config")}
    done = subprocess.run([hook, "post-build", "x"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "virt32 -m scripts.buildroot post-build x\n"
    del environment["BR2_CONFIG"]
    done = subprocess.run([hook, "environment", "x"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "virt -m scripts.buildroot environment x\n"
    assert (
        "BOARD=$(BR2_ZENTRI_BOARD) $(BR2_EXTERNAL_ZENTRI_PATH)/board/common/hook environment"
        in (EXTERNAL / "external.mk").read_text()
    )


def test_downloads_are_pinned_by_hash_and_come_from_no_package_registry():
    assert options("zentri_virt_defconfig")["BR2_DOWNLOAD_FORCE_CHECK_HASHES"] == "y"
    for recipe in sorted(EXTERNAL.glob("package/python-*/*.mk")):
        text, hashes = recipe.read_text(), recipe.with_suffix(".hash").read_text()
        version = re.search(r"_VERSION = (\S+)", text)
        assert version
        assert re.search(r"_SITE = https://github\.com/\S+\.git$", text, re.MULTILINE)
        assert f"{recipe.stem}-{version[1]}-git4.tar.gz" in hashes
        licences = re.search(r"_LICENSE_FILES = (.+)", text)
        assert licences
        known = {line.split()[2] for line in hashes.splitlines() if line.startswith("sha256")}
        assert set(licences[1].split()) <= known, f"{recipe.stem}: the licence report would warn"


def test_the_boot_script_reaches_the_boot_loader_by_the_same_function(tmp_path):
    from scripts.buildroot.__main__ import main

    for production in (False, True):
        words = ["environment", *(["--production"] if production else []), str(tmp_path / "zentri.env")]
        assert main(words) == 0
        expected = bootenv.environment((SHARED / "boot.script").read_text(), production=production)
        assert (tmp_path / "zentri.env").read_text() == expected
    assert 'CONFIG_DEFAULT_ENV_FILE="zentri.env"' in (SHARED / "u-boot.fragment").read_text()
    recipe = (EXTERNAL / "external.mk").read_text()
    assert "$(@D)/zentri.env" in recipe
    assert "UBOOT_MAKE_TARGET = u-boot-nodtb.bin" in recipe, "the target `all` refuses a tree of the board's own"


def test_the_partition_table_has_one_source():
    """Buildroot's own disk image is not made: the disk comes from genimage's description that the names make."""
    assert not list(EXTERNAL.rglob("genimage*.cfg"))
    assert all(f"partition {part.name} {{" in disk.genimage_config() for part in names.PARTITIONS)
    chosen = options("zentri_virt_defconfig")
    assert [name for name in chosen if name.startswith("BR2_TARGET_ROOTFS_")] == ["BR2_TARGET_ROOTFS_TAR"]
