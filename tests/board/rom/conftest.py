"""The real ROM with a tiny kernel instead of Linux. Needs no image: the ROM alone is built."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.image.fit import ensure_key
from scripts.lab.world import World
from tests.board.disks import own_lab
from tests.board.rom import fits
from tests.board.rom.cases import NEW, OLD
from tests.board.rom.machine import RomMachine
from tests.board.rom.rules import Contents
from zentrid.core import names

MachineFactory = Callable[..., RomMachine]


@pytest.fixture(scope="session")
def workshop() -> World:
    """What builds the ROM and has the key of the boot chain."""
    return World(own_lab())


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory, workshop: World) -> Contents:
    """What the kernel partitions can hold."""
    folder = tmp_path_factory.mktemp("fits")
    kernel = fits.build_kernel(folder)
    template = workshop.builder.board_file("slot.its.in")

    keys = workshop.places.keys
    ensure_key(keys)

    def fit(arguments: str, version: object = NEW) -> bytes:
        return fits.build_fit(folder, template, kernel, keys, arguments, version)  # type: ignore[arg-type]

    good = fit("test=off")
    return Contents(
        good=good,
        old=fit("test=off", OLD),
        bad={
            slot: (
                fits.spoilt(good, b"tiny: started"),
                fits.spoilt(good, b"test=off", number),
                fits.spoilt(good, b"sha256,rsa4096", number),
            )
            for number, slot in enumerate((*names.SLOTS, names.SAFE_SLOT))
        },
        empty=(bytes(len(good)), b"\xa5" * len(good)),
        hanging=fit("test=hang"),
        stopping=fit("test=stop"),
    )


def _machines(workshop: World) -> Iterator[MachineFactory]:
    """Give a function that makes machines, see RomMachine for its options; they run until this is closed."""
    rom = workshop.builder.rom(production=False) / "rom.bin"
    with ExitStack() as stack:

        def make(**options: str) -> RomMachine:
            # Not pytest's folder: a socket's path must be short.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rom-")))
            return stack.enter_context(RomMachine(rom, folder, **options))

        yield make


@pytest.fixture(scope="module")
def machine(workshop: World) -> Iterator[RomMachine]:
    """One machine with a sound disk for all tests of a module."""
    for make in _machines(workshop):
        yield make()


@pytest.fixture
def machines(workshop: World) -> Iterator[MachineFactory]:
    """Make machines of a test's own."""
    yield from _machines(workshop)
