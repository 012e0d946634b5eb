"""Small decisions of the product build: which tree, what a finished build says, what is built again, what the target has."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.buildroot import driver, output, pinned, target
from scripts.buildroot.__main__ import main
from scripts.buildroot.builder import BuildrootBuilder, finished
from scripts.image import select
from scripts.image.cache import Cache, hash_files
from scripts.image.release import Builder
from scripts.image.run import BuildError

TOP = Path(__file__).resolve().parents[3]
SHOW_INFO = {
    "linux": {"type": "target", "virtual": False, "version": "6.12.91"},
    "uboot": {"type": "target", "virtual": False, "version": "2025.01"},
    "python-tuf": {"type": "target", "virtual": False, "version": "v5.1.0"},
    "host-dtc": {"type": "host", "virtual": False, "version": "1.7.2"},
    "toolchain": {"type": "target", "virtual": True},
    "skeleton-init-common": {"type": "target", "virtual": False, "version": ""},
    "rootfs-tar": {"type": "rootfs"},
}


@pytest.fixture
def fake_tree(tmp_path):
    """Give a function that makes what looks like a Buildroot tree; its make records how it was called."""

    def make(version=pinned.VERSION):
        tree = tmp_path / "tree"
        (tree / "support/scripts").mkdir(parents=True)
        (tree / "support/scripts/br2-external").touch()
        log = tmp_path / "calls"
        recipe = f"\t@echo $@ >> {log}\n\t@test ! -f {tmp_path}/fail\n"
        (tree / "Makefile").write_text(f"export BR2_VERSION := {version}\nall:\n{recipe}.DEFAULT:\n{recipe}")
        return tree

    return make


def test_another_release_than_the_pinned_one_is_refused(fake_tree):
    with pytest.raises(BuildError, match=f"Buildroot 2024.11, pinned is {pinned.VERSION}"):
        pinned.check(fake_tree("2024.11"))


def test_a_folder_that_is_no_buildroot_is_refused(tmp_path):
    with pytest.raises(BuildError, match="no Buildroot tree"):
        pinned.check(tmp_path)
    (tmp_path / "Makefile").write_text("all:\n")
    with pytest.raises(BuildError, match="no Buildroot tree"):
        pinned.check(tmp_path)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Make a repository whose one commit is the pinned one."""
    source = tmp_path / "source"
    (source / "support/scripts").mkdir(parents=True)
    (source / "support/scripts/br2-external").touch()
    (source / "Makefile").write_text(f"export BR2_VERSION := {pinned.VERSION}\n")
    git = ["git", "-C", str(source), "-c", "user.name=n", "-c", "user.email=e@localhost"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(pinned, "COMMIT", commit)
    return source


def test_the_release_is_fetched_once_and_looked_at_file_by_file(repository, tmp_path, monkeypatch):
    files = [repository / "Makefile", repository / "support"]
    monkeypatch.setattr(pinned, "TREE_SHA256", hash_files(files, repository))
    target_folder, log = tmp_path / "got", tmp_path / "log"
    assert pinned.fetch(target_folder, log=log, source=f"file://{repository}") == target_folder
    assert not (target_folder / ".git").exists()
    assert pinned.fetch(target_folder, log=log, source="file:///no/such/place") == target_folder


def test_what_arrives_and_is_not_the_pinned_release_is_not_used(repository, tmp_path):
    with pytest.raises(BuildError, match="are not the pinned ones"):
        pinned.fetch(tmp_path / "got", log=tmp_path / "log", source=f"file://{repository}")
    assert not (tmp_path / "got").exists()


def test_the_list_of_packages_is_what_is_on_the_board():
    listed = output.packages_of(SHOW_INFO, "arm64")
    assert [(entry["name"], entry["version"]) for entry in listed] == [
        ("linux", "6.12.91"), ("python-tuf", "5.1.0"), ("u-boot", "2025.01"),
    ]  # fmt: skip
    assert {entry["architecture"] for entry in listed} == {"arm64"}


def test_an_empty_list_of_packages_stops_the_build():
    with pytest.raises(BuildError, match="lists no package"):
        output.packages_of({"host-dtc": SHOW_INFO["host-dtc"]}, "arm64")


def test_settings_are_read_as_buildroot_writes_them():
    text = 'BR2_aarch64=y\n# BR2_ZENTRI_PRODUCTION is not set\nBR2_ZENTRI_PRODUCT="A-B_C"\n'
    assert output.settings(text) == {"BR2_aarch64": "y", "BR2_ZENTRI_PRODUCT": "A-B_C"}


def build_of(images: Path) -> output.Note:
    images.mkdir()
    for name in output.PARTS:
        (images / name).write_bytes(b"x")
    packages = output.packages_of(SHOW_INFO, "arm64")
    note = output.Note(pinned.VERSION, False, "/tools/aarch64-linux-", "/tools", packages)
    note.write(images)
    return note


def test_a_finished_build_is_read_back(tmp_path):
    note = build_of(tmp_path / "images")
    assert output.read_note(tmp_path / "images") == note


@pytest.mark.parametrize("name", [output.NOTE, *output.PARTS])
def test_a_build_that_did_not_finish_is_refused(tmp_path, name):
    build_of(tmp_path / "images")
    (tmp_path / "images" / name).unlink()
    with pytest.raises(BuildError, match=f"lacks {name}"):
        output.read_note(tmp_path / "images")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"more": 1}'])
def test_a_damaged_note_is_refused(tmp_path, text):
    build_of(tmp_path / "images")
    (tmp_path / "images" / output.NOTE).write_text(text)
    with pytest.raises(BuildError):
        output.read_note(tmp_path / "images")


def test_what_the_bill_of_materials_lists(tmp_path):
    build_of(tmp_path / "images")
    builder = BuildrootBuilder(TOP, Cache(tmp_path), tmp_path, lambda _: None, images_of=finished(tmp_path / "images"))
    assert [entry["name"] for entry in builder.components()] == ["linux", "python-tuf", "u-boot", "zentrid"]
    assert builder.origin.kind == "generic"


def test_kernel_and_boot_loader_are_taken_as_they_are_and_again_when_they_change(tmp_path):
    images = tmp_path / "images"
    build_of(images)
    builder = BuildrootBuilder(TOP, Cache(tmp_path / "c"), tmp_path, lambda _: None, images_of=finished(images))
    first = builder.linux()
    assert (first / "Image").read_bytes() == b"x"
    (images / "Image").write_bytes(b"y")
    assert (builder.linux() / "Image").read_bytes() == b"y"
    assert builder.uboot(production=False).name == builder.uboot(production=True).name


def test_the_device_has_the_users_that_are_written_down_and_no_others(tmp_path, monkeypatch):
    images, packed, apps = tmp_path / "images", tmp_path / "packed", tmp_path / "apps"
    build_of(images)
    (apps / "apps").mkdir(parents=True)
    (packed / "etc").mkdir(parents=True)
    (packed / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\ndbus:x:1001:1001::/:/bin/false\n")
    subprocess.run(["tar", "cf", images / "rootfs.tar", "-C", packed, "."], check=True)
    monkeypatch.setattr(BuildrootBuilder, "samples", lambda _self: apps)
    builder = BuildrootBuilder(TOP, Cache(tmp_path / "c"), tmp_path, lambda _: None, images_of=finished(images))
    written_down = (TOP / "rootfs_overlay/etc/passwd").read_text()
    assert (builder.tree(production=False) / "root/etc/passwd").read_text() == written_down
    production = builder.tree(production=True) / "root"
    assert (production / "etc/passwd").read_text() == written_down.replace(":/root:/bin/sh", ":/root:/bin/false")
    assert not (production / "etc/zentri/development").exists()


@pytest.fixture
def built(fake_tree, tmp_path):
    """A driver on the fake tree, and a function that tells what make was asked for since the last time."""
    made = driver.Driver(TOP, tmp_path / "root", fake_tree(), lambda _: None)

    def asked():
        log = tmp_path / "calls"
        lines = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return made, asked


def test_buildroot_runs_once_and_again_only_for_what_changed(built, monkeypatch):
    made, asked = built
    assert made.images(False) == made.out(production=False) / "images"
    assert asked() == ["zentri_virt_defconfig", "all"]
    made.images(False)
    assert asked() == []
    before = made.inputs(production=False)
    monkeypatch.setattr(driver.Driver, "inputs", lambda _self, production: {**before, "linux": "other", "all": "other"})
    made.images(False)
    assert asked() == ["zentri_virt_defconfig", "linux-dirclean", "all"]


def test_a_build_that_failed_is_not_taken_for_a_finished_one(built, tmp_path):
    made, asked = built
    (tmp_path / "fail").touch()
    with pytest.raises(BuildError):
        made.images(False)
    (tmp_path / "fail").unlink()
    asked()
    made.images(False)
    assert "all" in asked()


def test_the_boot_script_of_a_production_build_makes_another_boot_loader(built):
    made, _asked = built
    development, production = made.inputs(production=False), made.inputs(production=True)
    assert {name for name in development if development[name] != production[name]} == {"uboot"}


def test_builder_is_chosen_by_name(tmp_path, monkeypatch, fake_tree):
    words = (TOP, Cache(tmp_path), tmp_path, lambda _: None)
    monkeypatch.delenv("BUILDER", raising=False)
    assert type(select.builder(*words)) is Builder
    monkeypatch.setenv("BUILDER", "yocto")
    with pytest.raises(BuildError, match="there are debian and buildroot"):
        select.builder(*words)
    monkeypatch.setenv("BUILDER", "buildroot")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("BUILDROOT", str(tmp_path / "none"))
    with pytest.raises(BuildError, match="there is no such folder"):
        select.builder(*words)
    monkeypatch.setenv("BUILDROOT", str(fake_tree()))
    assert isinstance(select.builder(*words), BuildrootBuilder)


def test_a_program_of_the_host_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "cpio" else name)
    with pytest.raises(BuildError, match="needs cpio"):
        driver.from_environment(TOP, tmp_path, lambda _: None)


@pytest.fixture
def whole_target(tmp_path):
    root = tmp_path / "target"
    (root / "etc/init.d").mkdir(parents=True)
    (root / "usr/lib/python3.12/site-packages").mkdir(parents=True)
    (root / "usr/lib/python3").mkdir()
    (root / "usr/lib/python3/dist-packages").symlink_to("../python3.12/site-packages")
    for name in target.MODULES:
        (root / target.MODULES_FOLDER / name).mkdir()
    for name in ("busybox", *target.PROGRAMS):
        path = root / ("usr/bin/busybox" if name == "busybox" else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_a_whole_target_has_no_problem_and_is_tidied(whole_target):
    for name in ("S40network", "rcS", "K10x"):
        (whole_target / "etc/init.d" / name).touch()
    (whole_target / "dev").mkdir()
    (whole_target / "dev/.gitkeep").touch()
    target.tidy(whole_target)
    assert [path.name for path in (whole_target / "etc/init.d").iterdir()] == ["rcS"]
    assert not (whole_target / "dev/.gitkeep").exists()
    assert target.problems(whole_target) == []


def test_links_of_programs_are_followed_as_on_the_device(whole_target):
    program = whole_target / "usr/sbin/reboot"
    program.unlink()
    program.symlink_to("/usr/bin/busybox")
    assert target.problems(whole_target) == []
    program.unlink()
    program.symlink_to("../bin/no-such-program")
    assert target.problems(whole_target) == ["/usr/sbin/reboot is missing"]


def test_what_is_missing_in_the_target_stops_buildroot(whole_target, capsys):
    (whole_target / target.MODULES_FOLDER / "tuf").rmdir()
    (whole_target / "usr/bin/timeout").unlink()
    assert main(["post-build", str(whole_target), "cross-"]) == 1
    said = capsys.readouterr().err
    assert "/usr/bin/timeout is missing" in said
    assert "the Python module tuf is missing" in said


def test_a_hook_outside_buildroot_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("BR2_CONFIG", raising=False)
    assert main(["post-image", str(tmp_path), "cross-"]) == 1
    assert "for Buildroot's hooks" in capsys.readouterr().err


def test_the_note_is_plain_json(tmp_path):
    build_of(tmp_path / "images")
    assert json.loads((tmp_path / "images" / output.NOTE).read_text())["buildroot"] == pinned.VERSION
