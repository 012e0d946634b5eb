"""Alembic's entry: runs the migrations on the database that `dms_server.db.alembic_config` names."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool

from dms_server.models import Base


def _main() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    if url is None:
        raise RuntimeError("no database address was given to the migrations")
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


_main()
