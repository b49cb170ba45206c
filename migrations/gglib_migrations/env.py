"""Run by alembic, with a live connection from ``upgrade`` or a file named on its command line.

From a checkout: ``alembic -x database=FILE upgrade head``. Commands that touch no database
(``history``, ``heads``, ``revision -m "..." --rev-id 0003``) need no file.
"""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine


def _run(connection: Connection) -> None:
    context.configure(connection=connection, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def _run_on_file() -> None:
    database = context.get_x_argument(as_dictionary=True).get("database")
    if not isinstance(database, str) or context.is_offline_mode():
        raise CommandError("say which database: alembic -x database=FILE ... (without --sql)")
    engine = create_engine(URL.create("sqlite", database=database))
    with engine.begin() as connection:
        _run(connection)
    engine.dispose()


_given = context.config.attributes.get("connection")
if _given is None:
    _run_on_file()
else:
    _run(_given)
