"""A device's Web App in tests: an image's copy, the device's files, the keeper, and the door's own look for damage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

from tests.support.device import Fuse
from zentrid.adapters.filestore import FileStore
from zentrid.adapters.items import ItemFolder
from zentrid.adapters.settings import SettingsStore
from zentrid.adapters.webappfiles import RECORD, WebAppFiles, image_copy
from zentrid.bundle.manifest import Item, Manifest
from zentrid.core.names import SlotName
from zentrid.core.variable_list import VARIABLES
from zentrid.core.webapp import LIST_NAME, list_of
from zentrid.http.files import WebApp
from zentrid.update.attempt import Attempt
from zentrid.update.errors import DmsUnreachableError, UpdateError
from zentrid.update.ledger import Ledger
from zentrid.webappkeeper import Updates, WebAppKeeper

APP: dict[str, bytes] = {
    "index.html": b"<!DOCTYPE html><link rel='icon' href='data:,'><title>app</title><h1>The image's app</h1>",
    "app.js": b"let a = 1;\n" * 20_000,
    "css/app.css": b"h1 { margin: 0; }\n",
}


def make_image(folder: Path, version: str = "1.0.0", files: Mapping[str, bytes] = APP) -> Path:
    """Write an image's copy with its list."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / LIST_NAME).write_bytes(list_of(version, files).to_bytes())
    return folder


class NoServer:
    """An update manager whose server is out of reach, or has what the test puts into `error`."""

    version = "1.0.0"

    def __init__(self) -> None:
        self.error: UpdateError = DmsUnreachableError("the server does not answer; check the network")
        self.web_app = self

    async def manifest(self, version: str, attempt: Attempt) -> Manifest:
        """Fail."""
        raise self.error

    @asynccontextmanager
    async def fetched(
        self, manifest: Manifest, items: Mapping[str, Item], tell: Callable[[int], None], attempt: Attempt
    ) -> AsyncGenerator[dict[str, Path], None]:
        """Fail."""
        yield {}
        raise self.error

    def clear(self) -> None:
        """Do nothing."""

    @asynccontextmanager
    async def restoring(self) -> AsyncGenerator[Attempt, None]:
        """Keep nothing away."""
        yield Attempt(cast("Ledger", None))


class AppHome:
    """One device's Web App. `start` makes the keeper anew, as a start of the supervisor does."""

    def __init__(
        self,
        folder: Path,
        updates: Updates,
        *,
        slot: SlotName = "a",
        items: Path | None = None,
        settings: SettingsStore | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self._settings = settings
        self.image = make_image(folder / "image")
        self.fuse = Fuse()
        self.updates = updates
        self.slot: SlotName = slot
        self.items = ItemFolder(items or folder / "items")
        self.steps: list[tuple[int, str]] = []
        self.stop = asyncio.Event()
        self.keeper: WebAppKeeper
        self.settings: SettingsStore
        self.store: FileStore
        self.start()

    def start(self, updates: Updates | None = None) -> None:
        """Start over."""
        self.fuse.at, self.fuse.steps = None, []
        self.updates = updates or self.updates
        self.settings = self._settings or SettingsStore(self.folder, VARIABLES)
        self.settings.load()
        self.store = FileStore(self.folder / "files", self.fuse)
        self.store.clear()
        self.files = WebAppFiles(self.store, self.folder / RECORD, self.fuse)
        self.keeper = WebAppKeeper(
            self.files, self.settings, self.updates, self.items, self.slot, lambda: image_copy(self.image)
        )

    async def look(self) -> None:
        """Let the keeper look once, as at a start."""
        with suppress(BaseException):
            async with asyncio.timeout(20):
                await self.keeper._place()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the keeper's own task."""
        task = asyncio.create_task(self.keeper.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def recover(self, source: str = "") -> str:
        """Restore; return the sentence."""
        async with asyncio.timeout(60):
            return await self.keeper.recover(
                source, lambda percent, text: self.steps.append((percent, text)), self.stop
            )

    def problems(self) -> tuple[str, ...]:
        """What the door finds."""
        return WebApp(self.store.top, self.settings.values.text("http.server.root_filename")).problems()

    def content(self) -> dict[str, bytes]:
        """All files of the Web App's folder, but for the list."""
        top = self.store.top / "webapp"
        return {
            str(path.relative_to(top)): path.read_bytes()
            for path in sorted(top.rglob("*"))
            if path.is_file() and path.name != LIST_NAME
        }

    def write(self, name: str, data: bytes) -> None:
        """Be the owner who changes a file, or a disk that does."""
        path = self.store.top / "webapp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
