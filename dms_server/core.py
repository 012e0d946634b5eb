"""What the server's parts are and how they are put together: the one place that builds them."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from dms_server.accounts.guesses import Guesses
from dms_server.accounts.secrets import Passwords
from dms_server.accounts.services import Accounts
from dms_server.bundles.metadata import MetadataStore
from dms_server.bundles.services import Bundles
from dms_server.bundles.store import PayloadStore
from dms_server.commands.services import Commands
from dms_server.db import Database, migrate
from dms_server.devices.presence import Presence, Sightings
from dms_server.devices.services import Devices
from dms_server.errors import SetupError
from dms_server.faults.backtraces import Backtraces
from dms_server.faults.reader import Reader
from dms_server.faults.services import Faults
from dms_server.faults.symbols import Symbols
from dms_server.patches.services import Patches
from dms_server.products.services import Products
from dms_server.settings import Settings
from dms_server.updates.services import Updates

log = structlog.get_logger()

PATCHES_FLUSH_S = 60.0


@dataclass(frozen=True)
class Core:
    """Every service, ready to use."""

    settings: Settings
    db: Database
    accounts: Accounts
    devices: Devices
    products: Products
    bundles: Bundles
    patches: Patches
    updates: Updates
    faults: Faults
    symbols: Symbols
    commands: Commands
    sightings: Sightings
    presence: Presence


CORE = web.AppKey("core", Core)


def prepare_data(settings: Settings) -> None:
    """Make the data folder, for its owner only. Raises SetupError."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        settings.data.chmod(0o700)
    except OSError as error:
        raise SetupError(f"the data folder {settings.data} cannot be used: {error}; choose another") from error


def _lock_data(folder: Path) -> int:
    """Hold the data folder for this process: two that sign the same repository would sign different things."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SetupError(f"another server uses {folder}; stop it, or choose another folder with --data") from error
    return descriptor


def build_core(settings: Settings, db: Database) -> Core:
    """Build all services on an open database; nothing is read or written yet."""
    metadata = MetadataStore(
        settings.data / "tuf",
        settings.fleet,
        timestamp_lifetime_s=settings.timestamp_lifetime_s,
        snapshot_lifetime_s=settings.snapshot_lifetime_s,
    )
    guesses = Guesses(db, settings)
    accounts = Accounts(db, settings, Passwords(), guesses)
    products = Products(db)
    payloads = PayloadStore(settings.data / "payloads")
    patches = Patches(db, settings, payloads)
    bundles = Bundles(db, settings, products, metadata, payloads, patches)
    reader = Reader()
    symbols = Symbols(db, settings, reader)
    return Core(
        settings=settings,
        db=db,
        accounts=accounts,
        devices=Devices(db, accounts, guesses),
        products=products,
        bundles=bundles,
        patches=patches,
        updates=Updates(db, bundles),
        faults=Faults(db, Backtraces(db, symbols, reader)),
        symbols=symbols,
        commands=Commands(db),
        sightings=Sightings(db),
        presence=Presence(db),
    )


@asynccontextmanager
async def open_core(settings: Settings) -> AsyncIterator[Core]:
    """Open everything: folder, schema, metadata, background work; close it in reverse. Raises SetupError."""
    await asyncio.to_thread(prepare_data, settings)
    lock = await asyncio.to_thread(_lock_data, settings.data)
    try:
        await migrate(settings.effective_database_url)
        db = await asyncio.to_thread(Database, settings.effective_database_url)
        try:
            core = await asyncio.to_thread(build_core, settings, db)
            await core.bundles.open()
            tasks = [
                asyncio.create_task(_repeat(settings.resign_interval_s, core.bundles.refresh_metadata, "resign")),
                asyncio.create_task(_repeat(settings.sighting_flush_s, core.sightings.flush, "sightings")),
                asyncio.create_task(_repeat(PATCHES_FLUSH_S, core.patches.flush, "patches_served")),
            ]
            try:
                await core.patches.open()
                yield core
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                await core.patches.close()
                await core.faults.close()
                await core.sightings.flush()
        finally:
            await db.close()
    finally:
        os.close(lock)


async def _repeat(interval_s: float, work: Callable[[], Awaitable[None]], name: str) -> None:
    """Do `work` for ever; a failure is logged and tried again, since the next time may do."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await work()
        except Exception:
            log.exception("background_work_failed", work=name)
