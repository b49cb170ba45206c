"""The history of the database's schema, and the way to its present.

Importing this is cheap: alembic is imported by :func:`upgrade` alone.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["REVISIONS", "head_revision", "upgrade", "upgrade_to_head"]

#: Every schema revision, oldest first; the same as in ``versions/``, known without alembic.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")


def head_revision() -> str:
    """Return the revision that this version of gglib works with."""
    return REVISIONS[-1]


def upgrade_to_head(connection: Connection) -> None:
    """Bring the database behind ``connection`` to :func:`head_revision`."""
    upgrade(connection, head_revision())


def upgrade(connection: Connection, revision: str) -> None:
    """Bring the database behind ``connection`` up to ``revision``.

    Runs in the caller's transaction and leaves the commit to the caller: done whole, or
    not at all. Does nothing if the database is there already.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    # The configuration interpolates, and a path may hold a percent sign.
    here = str(files(__name__)).replace("%", "%%")
    config.set_main_option("script_location", here)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
