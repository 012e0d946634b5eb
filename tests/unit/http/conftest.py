"""What the tests of the HTTP door share: a device's command line, and the door's real process in front of it."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.commandline import console
from tests.support.fakes import Device
from tests.support.httpdoor import DoorProcess, door_process
from zentrid.http.config import Config


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "zentri")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The device's files, with a small Web App."""
    folder = tmp_path / "files"
    (folder / "webapp" / "js").mkdir(parents=True)
    (folder / "webapp" / "index.html").write_text("<h1>the app</h1>")
    (folder / "webapp" / "js" / "app.js").write_text("let a = 1;\n" * 100)
    (folder / "secret.txt").write_text("no page's business")
    return folder


@pytest.fixture
async def door(device: Device, files: Path, tmp_path: Path) -> AsyncIterator[DoorProcess]:
    async with console(device, tmp_path / "console.sock") as path:
        config = Config(console=str(path), files=str(files), root_filename="webapp/index.html", request_s=3.0)
        async with door_process(config) as one:
            yield one


@pytest.fixture
async def client(door: DoorProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(door.url) as session:
        yield session


def basic(username: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}
