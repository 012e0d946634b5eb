"""Symbol files of an image, and the sample applications they are made of."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from scripts.board_driver.boards import VIRT
from scripts.image.samples import build_samples
from scripts.image.symbols import build_id_of, collect, exported_only, symbol_path
from tests.support.cores import QEMU, SAMPLES, SYSROOT, Built, build_sample, needs_qemu_user
from tests.unit.bundle.elves import library
from zentrid.debug.symbols import SymbolFile

pytestmark = needs_qemu_user


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Built:
    """The sample application with its symbol file."""
    return build_sample(tmp_path_factory.mktemp("sample") / "built")


def digests(folder: Path) -> dict[str, str]:
    """Return what is in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log"
    }


def test_the_same_sources_give_the_same_bytes_wherever_they_are(sample, tmp_path):
    shutil.copytree(SAMPLES, tmp_path / "elsewhere/with a space")
    (tmp_path / "out").mkdir()
    build_samples(VIRT, tmp_path / "elsewhere/with a space", tmp_path / "out", log=tmp_path / "log")
    assert digests(tmp_path / "out") == digests(sample.program.parents[3])


def test_the_program_in_the_image_is_stripped_and_hardened(sample):
    with sample.program.open("rb") as stream:
        elf = ELFFile(stream)
        assert elf["e_type"] == "ET_DYN"
        assert elf.get_section_by_name(".symtab") is None
        assert elf.get_section_by_name(".debug_line") is None
        assert not any(str(SAMPLES).encode() in section.data() for section in elf.iter_sections())
        types = {segment["p_type"]: segment for segment in elf.iter_segments()}
        assert "PT_GNU_RELRO" in types
        assert not types["PT_GNU_STACK"]["p_flags"] & 1
    assert sample.symbols.name == Path(symbol_path(build_id_of(sample.program))).name
    assert str(SAMPLES).encode() not in sample.symbols.read_bytes()


def test_a_stripped_librarys_names_are_kept_and_nothing_else(tmp_path):
    path = library(tmp_path, "libx.so", "-Wl,--build-id=sha1", "-s")
    data = exported_only(path)
    assert len(data) < path.stat().st_size
    small, whole = SymbolFile(io.BytesIO(data)), SymbolFile(io.BytesIO(path.read_bytes()))
    assert small.build_id == whole.build_id == build_id_of(path)
    found = {address for address in range(0, 0x20000, 4) if whole.resolve(address)}
    assert found
    assert all(small.resolve(address) == whole.resolve(address) for address in found)
    (tmp_path / "small").write_bytes(data)
    checked = subprocess.run(
        ["aarch64-linux-gnu-readelf", "-SsnW", tmp_path / "small"], capture_output=True, text=True, check=True
    )
    assert checked.stderr == ""
    assert "from_libx" in checked.stdout


def test_every_file_with_a_build_id_has_its_symbol_file(sample, tmp_path):
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(sample.program, root / "bin/sample-arm")
    (root / "bin/link").symlink_to("sample-arm")
    (root / "bin/script").write_text("#!/bin/sh\n")
    library(root / "lib", "libx.so", "-Wl,--build-id=sha1", "-s")
    library(root / "lib", "libnone.so", "-Wl,--build-id=none", "-s")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert collect(root, sample.program.parents[3] / "symbols", tmp_path / name) == 2
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    index = json.loads((tmp_path / "one/index.json").read_text())
    assert {(entry["file"], entry["lines"]) for entry in index.values()} == {
        ("/bin/sample-arm", True),
        ("/lib/libx.so", False),
    }
    for build_id in index:
        with (tmp_path / "one" / symbol_path(build_id)).open("rb") as stream:
            assert SymbolFile(stream).build_id == build_id


# --- the applications -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["sample-arm", "sample-python"])
def app(request, sample):
    """Give a function that runs a sample application."""

    def app(*words):
        command: list[str] = [str(QEMU), "-L", str(SYSROOT), str(sample.program)]
        if request.param == "sample-python":
            command = [sys.executable, str(SAMPLES / "sample-python/bin/sample-python")]
        return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=30, check=False)

    app.name = request.param  # type: ignore[attr-defined]
    return app


def test_a_package_says_how_it_is_started(app):
    folder = SAMPLES / app.name
    about = json.loads((folder / "app.json").read_text())
    assert set(about) == {"name", "version", "command", "description"}
    assert about["name"] == app.name
    assert about["command"] == [f"bin/{app.name}"]


def test_lines_and_an_exit(app):
    done = app("--interval", "0.05", "--after", "0.4", "--crash", "exit")
    assert done.returncode == 3
    assert done.stdout.splitlines()[:2] == [f"{app.name}: line 1", f"{app.name}: line 2"]


def test_help_and_what_is_not_understood(app):
    assert "--interval" in app("--help").stdout
    for words in (["--crash", "how"], ["--interval", "soon"], ["--crash"], ["--what", "1"]):
        done = app(*words)
        assert done.returncode == 2
        assert done.stderr


def test_an_exception_has_a_traceback():
    command = [sys.executable, str(SAMPLES / "sample-python/bin/sample-python"), "--after", "0", "--crash", "raise"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "in check_reading" in done.stderr
    assert "SensorError" in done.stderr.splitlines()[-1]
