"""The schema: migrations from empty, models and migrations agree, times are aware, transactions are whole."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, inspect, select
from sqlalchemy.exc import StatementError

from dms_server.accounts.models import Guess
from dms_server.clock import now
from dms_server.db import Database, alembic_config, migrate
from dms_server.models import Base


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An address of a database that is not there yet."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


def _tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_migrations_from_empty_give_what_the_models_say(url: str) -> None:
    command.upgrade(alembic_config(url), "head")
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []
    finally:
        engine.dispose()


def test_the_comparison_sees_a_difference(url: str) -> None:
    """What the test above relies on."""
    command.upgrade(alembic_config(url), "head")
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("ALTER TABLE devices DROP COLUMN notes")
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) != []
    finally:
        engine.dispose()


def test_migrations_go_back_to_nothing_and_forth(url: str) -> None:
    command.upgrade(alembic_config(url), "head")
    command.downgrade(alembic_config(url), "base")
    assert _tables(url) <= {"alembic_version"}
    command.upgrade(alembic_config(url), "head")
    assert {"users", "devices", "reports", "bundles"} <= _tables(url)


def test_migrations_from_the_first_schema_keep_what_is_there(url: str) -> None:
    command.upgrade(alembic_config(url), "0001")
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO devices (uuid, first_seen_at, last_seen_at) VALUES ('x', '2026-01-01', '2026-01-01')"
            )
        command.upgrade(alembic_config(url), "head")
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT uuid FROM devices").scalar() == "x"
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []
    finally:
        engine.dispose()
    assert {"faults", "symbol_files", "device_commands"} <= _tables(url)
    command.downgrade(alembic_config(url), "0001")
    assert not {"faults", "symbol_files", "device_commands"} & _tables(url)


async def test_migrating_twice_changes_nothing(url: str) -> None:
    await migrate(url)
    before = await asyncio.to_thread(_tables, url)
    await migrate(url)
    assert await asyncio.to_thread(_tables, url) == before


@pytest.fixture
async def db(url: str) -> Database:
    """An open database, closed by the test."""
    await migrate(url)
    return await asyncio.to_thread(Database, url)


async def _count(db: Database) -> int | None:
    async with db.read() as session:
        return await session.scalar(select(func.count()).select_from(Guess))


async def test_a_failed_transaction_leaves_nothing(db: Database) -> None:
    async def write() -> None:
        async with db.write() as session:
            await session.add(Guess(place="x", at=now()))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        await write()
    assert await _count(db) == 0
    await db.close()


async def test_many_writers_wait_for_each_other(db: Database) -> None:
    async def write(number: int) -> None:
        async with db.write() as session:
            await session.add(Guess(place=str(number), at=now()))
            await asyncio.sleep(0.001)

    await asyncio.gather(*(write(number) for number in range(50)))
    assert await _count(db) == 50
    await db.close()


async def test_a_cancelled_writer_leaves_nothing_and_blocks_nobody(db: Database) -> None:
    started = asyncio.Event()

    async def write() -> None:
        async with db.write() as session:
            await session.add(Guess(place="x", at=now()))
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _count(db) == 0
    async with db.write() as session:
        await session.add(Guess(place="y", at=now()))
    assert await _count(db) == 1
    await db.close()


async def test_a_read_session_keeps_nothing(db: Database) -> None:
    async with db.read() as session:
        await session.add(Guess(place="x", at=now()))
    assert await _count(db) == 0
    await db.close()


async def test_times_are_aware(db: Database) -> None:
    with pytest.raises(StatementError, match="without a zone"):
        async with db.write() as session:
            await session.add(Guess(place="x", at=datetime(2026, 1, 1)))
    moment = now()
    async with db.write() as session:
        await session.add(Guess(place="x", at=moment))
    async with db.read() as session:
        assert await session.scalar(select(Guess.at)) == moment
    await db.close()
