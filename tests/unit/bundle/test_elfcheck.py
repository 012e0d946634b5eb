"""ELF checks: facts are those of the file; another machine and missing libraries are named."""

import contextlib
import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.bundle_tool.elfcheck import ElfError, check_file, check_tree, is_elf, libraries_of, read_elf, resolve
from tests.unit.bundle.elves import HOST_COMPILER, compiled, library, needs_compiler, program

LIB = "usr/lib/aarch64-linux-gnu"


def read(path):
    with path.open("rb") as stream:
        return read_elf(stream, path.name)


@pytest.fixture
def image(tmp_path):
    """Return the folder of an image with a loader, a library and a program that needs both."""
    root = tmp_path / "image"
    library(root / LIB, "libone.so.1")
    library(root / "usr/lib", "ld-linux-aarch64.so.1")
    (root / "lib").symlink_to("usr/lib")
    program(root / "usr/bin/good", root / LIB / "libone.so.1")
    (root / "etc").mkdir()
    (root / "etc/hostname").write_text("board")
    (root / "etc/self").symlink_to("/etc/self")
    return root


@needs_compiler
def test_facts_of_a_hardened_program(tmp_path):
    path = program(
        tmp_path / "x", library(tmp_path, "libone.so.1"),
        options=("-pie", "-fPIE", "-Wl,-z,relro,-z,now", "-Wl,--build-id=0x0123456789abcdef", "-Wl,-rpath,/opt/lib:$ORIGIN/x"),
    )  # fmt: skip
    elf = read(path)
    assert elf.facts.machine == "AARCH64"
    assert elf.facts.needed == ("libone.so.1",)
    assert elf.facts.build_id == "0123456789abcdef"
    assert elf.facts.pie
    assert elf.facts.relro == "full"
    assert elf.facts.nx
    assert elf.interpreter == "/lib/ld-linux-aarch64.so.1"
    assert elf.runpath == ("/opt/lib", "$ORIGIN/x")


@needs_compiler
def test_facts_of_a_soft_program(tmp_path):
    path = program(
        tmp_path / "x", library(tmp_path, "libone.so.1"),
        options=("-no-pie", "-fno-pie", "-Wl,-z,norelro", "-Wl,-z,execstack", "-Wl,--build-id=none"),
    )  # fmt: skip
    facts = read(path).facts
    assert (facts.pie, facts.relro, facts.nx, facts.build_id) == (False, "none", False, None)
    lazy = program(tmp_path / "y", tmp_path / "libone.so.1", options=("-pie", "-fPIE", "-Wl,-z,relro,-z,lazy"))
    assert read(lazy).facts.relro == "partial"


@needs_compiler
def test_a_missing_library_is_named(tmp_path):
    path = program(tmp_path / "x", library(tmp_path, "libone.so.1"), library(tmp_path, "libtwo.so.2"))
    with path.open("rb") as stream:
        assert check_file(stream, "x", {"libone.so.1", "libtwo.so.2", "other"}).needed == ("libone.so.1", "libtwo.so.2")
        with pytest.raises(ElfError) as caught:
            check_file(stream, "apps/x", {"libone.so.1"})
    assert caught.value.file == "apps/x"
    assert "needs libtwo.so.2, which the image does not have" in str(caught.value)
    assert "libone" not in str(caught.value)


@pytest.mark.skipif(HOST_COMPILER is None or os.uname().machine == "aarch64", reason="no compiler for another machine")
def test_another_machine_is_named(tmp_path):
    path = compiled(tmp_path / "x", compiler=HOST_COMPILER)
    with path.open("rb") as stream, pytest.raises(ElfError, match=r"x: is built for X86_64, the board is AARCH64"):
        check_file(stream, "x", ())


@needs_compiler
def test_a_damaged_file_is_refused(tmp_path):
    data = program(tmp_path / "x", library(tmp_path, "libone.so.1")).read_bytes()
    for broken in (data[:10], data[:100], b"\x7fELF" + bytes(200), data[:64] + b"\xff" * 400 + data[464:]):
        with pytest.raises(ElfError, match="damaged"):
            read_elf(io.BytesIO(broken), "x")


@needs_compiler
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_raise_nothing_else(tmp_path, data):
    path = tmp_path / "x"
    if not path.exists():
        program(path, library(tmp_path, "libone.so.1"))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(4, 1500), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ElfError):
        read_elf(io.BytesIO(bytes(content)), "x")


def test_what_is_elf():
    assert is_elf(io.BytesIO(b"\x7fELF..."))
    assert not is_elf(io.BytesIO(b"#!/bin/sh"))
    assert not is_elf(io.BytesIO(b""))


# --- a whole image --------------------------------------------------------------------------------------------------


@needs_compiler
def test_a_good_image_has_no_problems(image):
    assert check_tree(image) == []
    assert libraries_of(image) == {"libone.so.1", "ld-linux-aarch64.so.1", "aarch64-linux-gnu"}


@needs_compiler
def test_every_problem_of_an_image_is_told(image):
    (image / LIB / "libone.so.1").rename(image / "libone.so.1")
    (image / "usr/lib/ld-linux-aarch64.so.1").unlink()
    (image / "usr/bin/broken").write_bytes(b"\x7fELF broken")
    problems = check_tree(image)
    assert [line.partition(":")[0] for line in problems] == ["usr/bin/broken", "usr/bin/good", "usr/bin/good"]
    assert "its loader /lib/ld-linux-aarch64.so.1 is not in the image" in problems[1]
    assert "needs libone.so.1, which the image does not have" in problems[2]


@pytest.mark.skipif(HOST_COMPILER is None or os.uname().machine == "aarch64", reason="no compiler for another machine")
def test_a_program_for_another_machine_in_an_image_is_told(tmp_path):
    compiled(tmp_path / "image/bin/x", compiler=HOST_COMPILER)
    assert [line[:29] for line in check_tree(tmp_path / "image")] == ["bin/x: is built for X86_64, t"]


@needs_compiler
@pytest.mark.parametrize("runpath", ["/usr/lib/private", "$ORIGIN/../lib/private", "${ORIGIN}/../lib/private"])
def test_private_folders_count_if_a_program_names_them(image, runpath):
    private = library(image / "usr/lib/private", "libtwo.so.2")
    program(image / "usr/bin/user", private)
    assert len(check_tree(image)) == 1
    program(image / "usr/bin/user", private, options=(f"-Wl,-rpath,{runpath}",))
    assert check_tree(image) == []


@needs_compiler
def test_folders_of_the_loaders_configuration_count(image):
    extra = library(image / "opt/lib", "libtwo.so.2")
    program(image / "usr/bin/user", extra)
    assert len(check_tree(image)) == 1
    (image / "etc/ld.so.conf.d").mkdir()
    (image / "etc/ld.so.conf.d/opt.conf").write_text("# extra\n/opt/lib\n")
    assert check_tree(image) == []


@needs_compiler
def test_a_link_that_leads_nowhere_is_no_library(image):
    (image / LIB / "libone.so.1").rename(image / "libone.so.1")
    (image / LIB / "libone.so.1").symlink_to("gone")
    assert len(check_tree(image)) == 1
    (image / LIB / "libone.so.1").unlink()
    (image / LIB / "libone.so.1").symlink_to("/libone.so.1")
    assert check_tree(image) == []


def test_links_stay_inside_the_image(tmp_path):
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "image"
    (root / "a/b").mkdir(parents=True)
    (root / "up").symlink_to("../../../outside")
    (root / "absolute").symlink_to("/a/b")
    (root / "loop").symlink_to("loop")
    (root / "a/relative").symlink_to("../a/./b")
    assert resolve(root, "up") is None
    assert resolve(root, "../outside") is None
    assert resolve(root, "/absolute") == root / "a/b"
    assert resolve(root, "a/relative") == root / "a/b"
    assert resolve(root, "loop") is None
