"""The database: engine, base class of the models, reading and writing sessions, migrations at start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, cast

from alembic import command
from alembic.config import Config
from sqlalchemy import CursorResult, DateTime, Dialect, Engine, MetaData, Row, Select, create_engine, event, orm
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.types import TypeDecorator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MIGRATIONS = Path(__file__).parent / "migrations"
READERS = 4
BUSY_TIMEOUT_MS = 5000

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base of all models; constraint names are fixed so that migrations can refer to them."""

    metadata = MetaData(naming_convention=NAMES)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time, stored without zone; a naive value is a mistake and refused."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times, store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone was given to the database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC, aware."""
        return None if value is None else value.replace(tzinfo=UTC)


def _tune_sqlite(engine: Engine, *, writes: bool) -> None:
    """Set up SQLite: write-ahead log, full durability, and transactions that take the write lock at their start.

    A transaction that begins as a reader and then writes can fail at once with "database is locked";
    one that begins as a writer waits its turn.
    """

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own class
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:  # noqa: ANN401 - the same
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Session:
    """A database session for one task. Every call runs in the database's threads, one at a time, results complete.

    A thin face on SQLAlchemy's own session: `sync` must not be touched outside this class while a call is under way.
    """

    def __init__(self, sync: orm.Session, executor: ThreadPoolExecutor) -> None:
        self._sync = sync
        self._executor = executor

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in the database's thread; a cancelled caller still waits for it, so that two never overlap."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def scalar(self, statement: TypedReturnsRows[T]) -> T | None:
        """Return the first column of the first row, or None."""
        return await self.run(lambda: self._sync.scalar(statement))

    async def scalars(self, statement: TypedReturnsRows[T]) -> list[T]:
        """Return the first column of all rows."""
        return await self.run(lambda: list(self._sync.scalars(statement).all()))

    async def row(self, statement: TypedReturnsRows[*Ts]) -> Row[*Ts] | None:
        """Return the first row, or None."""
        return await self.run(lambda: self._sync.execute(statement).first())

    async def rows(self, statement: TypedReturnsRows[*Ts]) -> list[Row[*Ts]]:
        """Return all rows."""
        return await self.run(lambda: list(self._sync.execute(statement).all()))

    async def change(self, statement: UpdateBase, rows: Sequence[dict[str, Any]] | None = None) -> int:
        """Run an INSERT, UPDATE or DELETE (with many `rows` if given); return how many rows it changed."""

        def work() -> int:
            result = self._sync.execute(statement, rows) if rows is not None else self._sync.execute(statement)
            return cast("CursorResult[Any]", result).rowcount

        return await self.run(work)

    async def get(self, model: type[T], key: object) -> T | None:
        """Return the object with that primary key, or None."""
        return await self.run(lambda: self._sync.get(model, key))

    async def add(self, *objects: Base) -> None:
        """Insert objects now; their keys are set when this returns."""

        def work() -> None:
            self._sync.add_all(objects)
            self._sync.flush()

        await self.run(work)


class Database:
    """Sessions on one database. Reads run beside each other; writes go one after the other."""

    def __init__(self, url: str) -> None:
        sqlite = url.startswith("sqlite")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="db-read")
        self._writers = ThreadPoolExecutor(1, thread_name_prefix="db-write")
        self._write_turn = asyncio.Lock()
        if sqlite:
            self._read_engine = create_engine(url, pool_size=READERS, max_overflow=0)
            self._write_engine = create_engine(url, pool_size=1, max_overflow=0)
            _tune_sqlite(self._read_engine, writes=False)
            _tune_sqlite(self._write_engine, writes=True)
        else:
            self._read_engine = self._write_engine = create_engine(url, pool_pre_ping=True)
        self._read_turn = asyncio.Semaphore(READERS)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """Give a session for reading; whatever is changed in it is dropped."""
        async with self._read_turn:
            sync = orm.Session(self._read_engine, expire_on_commit=False)
            session = Session(sync, self._readers)
            try:
                yield session
            finally:
                await session.run(sync.close)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """Give a session inside one transaction: committed at the end, rolled back by any exception."""
        async with self._write_turn:
            sync = orm.Session(self._write_engine, expire_on_commit=False)
            session = Session(sync, self._writers)
            try:
                yield session
                await session.run(sync.commit)
            finally:
                await session.run(sync.close)

    async def read_row(self, statement: Select[*Ts], values: dict[str, object]) -> Row[*Ts] | None:
        """Return the first row of a ready-made statement: one trip to a thread, for the hot path."""

        def work() -> Row[*Ts] | None:
            with self._read_engine.connect() as connection:
                return connection.execute(statement, values).first()

        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def close(self) -> None:
        """Close all connections and end the threads."""

        def work() -> None:
            self._readers.shutdown()
            self._writers.shutdown()
            self._read_engine.dispose()
            self._write_engine.dispose()

        await asyncio.to_thread(work)


def alembic_config(url: str) -> Config:
    """Return alembic's settings for the migrations of this package."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


async def migrate(url: str) -> None:
    """Bring the database to the newest schema; does nothing when it is there already."""
    await asyncio.to_thread(command.upgrade, alembic_config(url), "head")
