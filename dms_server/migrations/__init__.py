"""Schema migrations; alembic runs them at start."""
