"""Databases as older versions of gglib left them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine

import gglib_migrations

__all__ = ["dump", "make_database", "revision_of"]

_DOCUMENT = '{"id":1,"name":"qwen","paths":["/m/qwen.gguf"],"size_bytes":7}'


def make_database(path: Path, revision: str) -> None:
    """Make the database that the gglib of ``revision`` would have left, with one model."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        gglib_migrations.upgrade(connection, revision)
    engine.dispose()
    with closing(sqlite3.connect(path)) as direct, direct:
        direct.execute("INSERT INTO model_names VALUES (1, 'qwen')")
        direct.execute("INSERT INTO models VALUES (1, 7, NULL, NULL, 0.0, ?)", (_DOCUMENT,))


def dump(path: Path) -> list[str]:
    """Return everything in the database, as SQL."""
    with closing(sqlite3.connect(path)) as direct:
        return list(direct.iterdump())


def revision_of(path: Path) -> str:
    """Return the schema revision that the database says it has."""
    with closing(sqlite3.connect(path)) as direct:
        return str(direct.execute("SELECT version_num FROM alembic_version").fetchone()[0])
