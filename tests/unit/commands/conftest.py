"""A device in memory and somebody who types commands; blocking calls in the event loop fail the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from tests.support.console import Caller
from tests.support.fakes import Device


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    with blockbuster_ctx("zentrid") as active:
        yield active


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@pytest.fixture
def call(device: Device) -> Caller:
    return Caller(device)


@pytest.fixture
def safe_call(tmp_path: Path) -> Caller:
    return Caller(Device(tmp_path / "zentri", safe_mode=True))
