"""The database's tables, as queries see them; ``gglib_migrations`` makes them.

Documents are the JSON of domain values, which refuses unknown keys: a field added to one
needs a migration, be it an empty one, so that an older gglib refuses the database by name.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "catalog_revision",
    "metadata",
    "model_aliases",
    "model_names",
    "model_runs",
    "models",
    "pulls",
    "servers",
]

metadata = MetaData()

#: Gives names their ids. Rows outlive their models; an id is never given twice.
model_names = Table(
    "model_names",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    UniqueConstraint("name", name="uq_model_names_name"),
    sqlite_autoincrement=True,
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, ForeignKey("model_names.id", name="fk_models_id"), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("architecture", Text),
    Column("quantization", Text),
    Column("added_at", Float, nullable=False),
    Column("document", Text, nullable=False),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("alias", Text, primary_key=True),
    Column(
        "model_id",
        Integer,
        ForeignKey("models.id", name="fk_model_aliases_model_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Index("ix_model_aliases_model_id", "model_id"),
)

#: One row, counted up by every transaction that changes the catalog.
catalog_revision = Table(
    "catalog_revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="ck_catalog_revision_single_row"),
)

#: What is remembered of servers that have ended. Of declared models, too: they have but a name.
model_runs = Table(
    "model_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "model_id",
        Integer,
        ForeignKey("model_names.id", name="fk_model_runs_model_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("document", Text, nullable=False),
    Index("ix_model_runs_model_id", "model_id"),
)

#: Models on their way from a hub; ids are ULIDs, sorted by time.
pulls = Table(
    "pulls",
    metadata,
    Column("id", Text, primary_key=True),
    Column("document", Text, nullable=False),
)

servers = Table(
    "servers",
    metadata,
    Column("server_id", Text, primary_key=True),
    Column("owner_kind", Text, nullable=False),
    Column("owner_pid", BigInteger, nullable=False),
    Column("owner_process_started_at", Float, nullable=False),
    Column("owner_node", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("runner", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("handle", Text),
    Column("api_key", Text),
    Column("keep_alive", Boolean, nullable=False),
)
