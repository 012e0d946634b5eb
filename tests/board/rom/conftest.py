"""The real ROM with the product's own partition table and key, and a tiny kernel instead of Linux."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.board_driver import places
from scripts.board_driver.gpt import GPT_AREA_BYTES
from scripts.lab.world import World
from tests.board.rom import fits
from tests.board.rom.cases import NEW, OLD
from tests.board.rom.machine import RomMachine
from tests.board.rom.rules import Contents
from zentrid.core import names

MachineFactory = Callable[..., RomMachine]


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory, world: World) -> Contents:
    """What the kernel partitions can hold."""
    folder = tmp_path_factory.mktemp("fits")
    kernel = fits.build_kernel(folder)
    template = places.CHECKOUT / "buildroot_external/board/virt/slot.its.in"

    def fit(arguments: str, version: object = NEW) -> bytes:
        return fits.build_fit(folder, template, kernel, world.places.keys, arguments, version)  # type: ignore[arg-type]

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
    )


@pytest.fixture(scope="module")
def machines(world: World) -> Iterator[MachineFactory]:
    """Make machines that run until the module's tests are done. Options: see RomMachine."""
    image = world.places.image
    with ExitStack() as stack, (image / "disk.img").open("rb") as disk:
        table = disk.read(GPT_AREA_BYTES)

        def make(**options: str) -> RomMachine:
            # Not pytest's folder: a socket's path must be short.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rom-")))
            return stack.enter_context(RomMachine((image / "rom.bin").resolve(), table, folder, **options))

        yield make


@pytest.fixture(scope="module")
def machine(machines: MachineFactory) -> RomMachine:
    """One machine with a sound disk."""
    return machines()
