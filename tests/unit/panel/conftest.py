"""What the tests of the panel share: a desk that notes what is done, and the real web side in front of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from scripts.board_driver.errors import MachineError
from scripts.panel import packages
from scripts.panel.app import PANEL, Panel, create_app
from scripts.panel.desk import Look
from scripts.panel.status import NOTHING


class MemoryDesk:
    """A desk that notes what is done."""

    def __init__(self) -> None:
        self.did: list[Any] = []
        self.busy = threading.Lock()
        self.seen = Look(power=True, led=False, pressed=False)
        self.error: Exception | None = None
        self.complain = lambda _sentence: None

    def look(self) -> Look:
        """Return what is to be seen."""
        return self.seen

    def press(self) -> None:
        """Note it."""
        self._note("press")

    def release(self) -> None:
        """Note it."""
        self._note("release")

    def power(self, *, on: bool) -> None:
        """Note it, or fail."""
        if self.error is not None:
            raise self.error
        self.did.append(("power", on))

    def reset(self) -> None:
        """Note it."""
        self.did.append("reset")

    def type(self, data: bytes) -> None:
        """Note it."""
        self._note(data)

    def _note(self, what: Any) -> None:
        if not self.busy.acquire(timeout=2):
            raise MachineError("the desk is held up, and holds up everybody")
        self.busy.release()
        self.did.append(what)


class MemoryStatus:
    """What the board says of itself, set by the test."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = NOTHING

    def forget(self) -> None:
        """Know nothing."""
        self.latest = NOTHING

    async def run(self) -> None:
        """Do nothing, as long as it is wanted."""
        await asyncio.Event().wait()


class Served:
    """A panel that is served."""

    def __init__(self, desk: MemoryDesk, log: Path, port: int, panel: Panel) -> None:
        self.desk, self.log, self.port, self.panel = desk, log, port, panel

    @property
    def url(self) -> str:
        """Where."""
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def package_files(tmp_path: Path) -> Path:
    """Stand-ins for what the page has from elsewhere; tests in a browser have the real ones."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in packages.FILES:
        (folder / name).write_text(f"/* {name} */")
    return folder


@pytest.fixture
async def served(tmp_path: Path, package_files: Path) -> AsyncIterator[Served]:
    desk, log = MemoryDesk(), tmp_path / "serial.log"
    app = create_app(lambda: Panel("main", desk, MemoryStatus(), asyncio.Event(), log), package_files)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield Served(desk, log, runner.addresses[0][1], app[PANEL])
    await runner.cleanup()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)
