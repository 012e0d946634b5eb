"""The image: same inputs give the same bytes, what it holds is listed, and a production build keeps its doors shut."""

import json
import re
import socket
import time
from pathlib import Path

import pytest

from scripts.board_driver.board import BoardOptions
from scripts.board_driver.watched import WatchedBoard
from scripts.image.cache import Cache, default_cache_dir
from scripts.image.release import Builder, ReleaseSpec
from scripts.lab.places import PRODUCT, TOP, Places
from scripts.lab.world import World

pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]

COMPILED_ANEW = """
import dataclasses, zentrid.dataclasscode as code
from importlib.util import source_hash
code.use()
known, execute, anew = code.decode(code.FILE.read_bytes()), vars(dataclasses)["exec"], []
def look(text, *scopes):
    if source_hash(text.encode()) not in known:
        anew.append(text)
    execute(text, *scopes)
vars(dataclasses)["exec"] = look
import zentrid.app
print(anew)
"""
"""Prints the text of each dataclass of the supervisor that Python has to compile on the board."""

SLOW_STEPS = ("sources", "linux", "u-boot", "base")
"""Compiling twice would take too long here; everything made from their results is made a second time."""


def test_the_same_inputs_give_the_same_bytes(world: World, tmp_path: Path):
    again = tmp_path / "cache"
    again.mkdir()
    for step in SLOW_STEPS:
        (again / step).symlink_to(default_cache_dir() / step)
    said: list[str] = []
    builder = Builder(TOP, Cache(again), world.places.keys, said.append)
    folder = builder.image(ReleaseSpec(PRODUCT, "1.0.0"), tmp_path / "image")
    assert any("packing" in sentence for sentence in said), "nothing was built, so nothing was compared"
    for name in (
        "rootfs.erofs",
        "kernel.itb",
        "packages.json",
        "sbom.cdx.json",
        "rom.bin",
        "disk.img",
        "symbols/index.json",
    ):
        first, second = (world.places.image / name).open("rb"), (folder / name).open("rb")
        with first, second:
            while block := first.read(1 << 20):
                assert block == second.read(1 << 20), f"{name} differs near byte {first.tell()}"
            assert not second.read(1)


def test_every_package_is_listed_with_its_version(world: World):
    packages = {entry["name"]: entry for entry in json.loads((world.places.image / "packages.json").read_text())}
    for name in (
        "linux",
        "u-boot",
        "zentrid",
        "libc6",
        "python3.13-minimal",
        "libssl3t64",
        "dropbear-bin",
        "python3-tuf",
    ):
        assert packages[name]["version"], name
    bom = json.loads((world.places.image / "sbom.cdx.json").read_text())
    assert {component["name"] for component in bom["components"]} == set(packages)
    assert all(component.get("purl") or component["name"] == "zentrid" for component in bom["components"])


@pytest.fixture
def production(world: World, tmp_path: Path):
    """A production board, with an identity that holds a developer's key all the same."""
    image = World(Places(world.places.root, image=tmp_path / "image"), production=True)
    image.image()
    identity = world.identity(8443, tmp_path / "identity")
    options = BoardOptions(image=tmp_path / "image", identity=identity, key=world.ssh_key())
    with WatchedBoard("t-production", options, tmp_path / "board") as board:
        yield board
    board.remove_run_folder()


def test_a_production_board_has_no_prompt_below_the_command_language(production: WatchedBoard):
    production.up()
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(production.run.serial))
        for _ in range(30):  # Ctrl-C and Enter, from the ROM's first line on
            console.sendall(b"\x03\r")
            time.sleep(0.05)
    production.wait_for_healthy()
    text = production.console_text_now
    assert not re.search(r"^=> ", text, re.MULTILINE), "the boot loader's prompt"
    assert production.send("version").ok
    for line in ("sh", "/bin/sh", "version; id", "version && id", "$(id)", "`id`"):
        answer = production.send(line)
        assert not answer.ok
        assert "uid=" not in answer.body
    assert production.shell("id").returncode == 255, "root got a shell"
    assert production.send("get system.boot.slot").body.strip() == "a"


def test_a_development_board_lets_the_developer_in_and_nobody_else(world: World, board, tmp_path: Path):
    identity = world.identity(8443, tmp_path / "identity")
    one = board(image=world.places.image, identity=identity, key=world.ssh_key())
    one.up()
    one.wait_for_healthy()
    assert one.wait_until_succeeds("id -u").strip() == "0"
    assert one.send_over_ssh("version").body.startswith(PRODUCT)
    one.fail("touch /usr/bin/x")
    one.fail("test -e /dev/mtd0")
    assert one.succeed(f"python3 -s -c '{COMPILED_ANEW}'", timeout_s=60).strip() == "[]"
    stranger = World(Places(tmp_path / "stranger")).ssh_key()
    one.options = BoardOptions(image=world.places.image, identity=identity, key=stranger)
    assert one.shell("id").returncode == 255


def test_a_board_whose_clock_starts_in_1970_knows_better(world: World, board, tmp_path: Path):
    identity = world.identity(8443, tmp_path / "identity")
    one = board(image=world.places.image, identity=identity, extra=("-rtc", "base=1970-01-02T00:00:00"))
    one.up()
    one.wait_for_answer()
    made = json.loads((identity / "identity.json").read_text())["made"]
    assert one.send("get system.utc").body.strip() >= made
