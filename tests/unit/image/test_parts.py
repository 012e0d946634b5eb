"""Small decisions of the image build: options that got lost, package lists, FIT source, disk layout, bill of materials."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from scripts.board_driver.boards import BOARDS
from scripts.image import boardfiles, compile, disk, fit, rootfs, sbom
from scripts.image.__main__ import main
from scripts.image.run import BuildError, run
from zentrid.bundle.tree import HashTree
from zentrid.core import names

TOP = Path(__file__).resolve().parents[3]


def test_options_that_do_not_survive_are_named():
    fragment = "# a comment\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\n# CONFIG_D is not set\nCONFIG_E=n\n"
    config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_D=y\n# CONFIG_E is not set\n"
    assert compile.lost_options(fragment, config) == ["CONFIG_B=y", "CONFIG_C=n", "# CONFIG_D is not set"]


def test_package_listing():
    assert rootfs.parse_listing("b\t2\tarm64\tbs\na\t1\tall\ta\n") == [
        {"name": "a", "version": "1", "architecture": "all", "source": "a"},
        {"name": "b", "version": "2", "architecture": "arm64", "source": "bs"},
    ]


@pytest.mark.parametrize("text", ["", "a\t1\n"])
def test_an_empty_or_malformed_package_listing_stops_the_build(text):
    with pytest.raises(BuildError, match="list of the image's packages"):
        rootfs.parse_listing(text)


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_fit_has_a_configuration_for_each_slot_with_its_own_partition(board):
    tree = HashTree.from_leaves([bytes(32)] * 200)
    template = boardfiles.file_of(TOP, board, "slot.its.in").read_text()
    source = fit.fit_source(template, board, Path("Image"), tree, "DEMO-VIRT_SENSOR", "1.2.3")
    assert "@" not in source.replace("@kernel", "")
    assert f'arch = "{board.fit_arch}"' in source
    assert source.count(f"= <0x{board.load_address:08x}>;") == 2
    for slot in ("a", "b", "r"):
        found = re.search(rf"conf-{slot} {{(.*?)\n\t\t}};", source, re.DOTALL)
        assert found
        block = found[1]
        assert names.partition(f"rootfs_{slot}").partuuid in block
        assert tree.root.hex() in block
        assert "restart_on_corruption" in block
        assert "zentri-version = <0x01020003>;" in block
        assert 'sign-images = "kernel"' in block


def test_a_version_that_the_boot_loader_would_take_for_a_negative_number_is_refused():
    tree = HashTree.from_leaves([bytes(32)])
    fit.fit_source("", BOARDS["virt"], Path("Image"), tree, "A-B_C", "128.0.0")
    fit.fit_source("", BOARDS["virt32"], Path("Image"), tree, "A-B_C", "127.255.65535")
    with pytest.raises(BuildError, match="counts to 127"):
        fit.fit_source("", BOARDS["virt32"], Path("Image"), tree, "A-B_C", "128.0.0")


def test_verity_table_counts_blocks_and_sectors():
    tree = HashTree.from_leaves([bytes(32)] * 200)
    assert f"0 {200 * 8} verity 1 " in fit.kernel_arguments("a", tree)
    assert " 4096 4096 200 200 sha256 " in fit.kernel_arguments("a", tree)
    assert "gpt" in fit.kernel_arguments("a", tree).split(), "the second partition table would not be used"


def test_disk_layout_names_every_partition_once_with_its_guid():
    config = disk.genimage_config()
    for part in names.PARTITIONS:
        assert config.count(f"partition {part.name} {{") == 1
        assert config.count(part.partuuid) == 1
    assert 'image = "identity.part"' not in config, (
        "an image with an identity in it would give every board the same one"
    )


def test_a_new_board_boots_slot_a_and_nothing_else():
    state = disk.factory_state("1.0.0")
    assert (state.a_left, state.b_left, state.a_good, state.b_good) == (names.BOOT_TRIES, 0, True, False)
    assert state.floor == (1, 0, 0)


def test_bill_of_materials_is_reproducible_and_complete(tmp_path):
    entries = [{"name": n, "version": "1", "architecture": "arm64", "source": n} for n in ("linux", "libc6", "zentrid")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sbom.write(entries, "P-Q_R", "1.0.0", tmp_path / name)
    first = (tmp_path / "one/sbom.cdx.json").read_bytes()
    assert first == (tmp_path / "two/sbom.cdx.json").read_bytes()
    document = json.loads(first)
    assert document["bomFormat"] == "CycloneDX"
    assert {c["name"] for c in document["components"]} == {"linux", "libc6", "zentrid"}


def test_a_program_that_fails_says_its_last_words(tmp_path):
    with pytest.raises(BuildError, match="the last word"):
        run(["sh", "-c", "echo the last word; exit 3"], log=tmp_path / "log")


def test_a_program_that_is_missing_says_what_to_do(tmp_path):
    with pytest.raises(BuildError, match="make host-packages"):
        run(["no-such-program-here"], log=tmp_path / "log")


@pytest.mark.parametrize("extra", ["no-equals", "../etc/x=f", "/etc/x=f"])
def test_command_line_refuses_files_outside_the_image(extra, capsys):
    assert main(["release", "--extra", extra]) == 1
    assert "PATH=FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--product", "bad"], "write a product code like"),
        (["--release", "1.0"], "is not a version"),
        (["--extra", "etc/x=/no/such/file"], "cannot be read"),
        (["--extra", "etc/x={binary}"], "only text files"),
    ],
)
def test_command_line_refuses_bad_words_before_anything_is_built(words, sentence, tmp_path, capsys):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    words = [word.replace("{binary}", str(tmp_path / "binary")) for word in words]
    cache, keys = tmp_path / "cache", tmp_path / "keys"
    assert main(["release", "--cache", str(cache), "--keys", str(keys), *words]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not cache.exists()
    assert not keys.exists()


def test_a_file_in_the_place_of_the_output_folder_is_told_before_anything_is_built(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main(["image", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]) == 1
    assert "is no folder" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
    assert (tmp_path / "out").read_text() == "mine"


def test_overlay_is_static_configuration_only():
    overlay = TOP / "rootfs_overlay"
    found = [p for p in overlay.rglob("*") if p.suffix in (".py", ".pyc", ".key", ".pem", ".crt") and p.is_file()]
    assert [p.name for p in found] == ["ca-certificates.crt"]
    assert "BEGIN" not in found[0].read_text()


def test_nobody_has_a_password():
    shadow = TOP / "rootfs_overlay/etc/shadow"
    assert all(line.split(":")[1] == "*" for line in shadow.read_text().splitlines())


def test_scripts_of_the_overlay_are_sound_shell():
    overlay = TOP / "rootfs_overlay"
    scripts = [p for p in overlay.rglob("*") if p.is_file() and p.read_bytes().startswith(b"#!/bin/sh")]
    assert len(scripts) >= 6
    subprocess.run(["shellcheck", "-s", "sh", *scripts], check=True)
