"""The model catalog: names and their ids, models, aliases, and the revision counter."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "model_names",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.UniqueConstraint("name", name="uq_model_names_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "models",
        sa.Column(
            "id",
            sa.Integer(),
            sa.ForeignKey("model_names.id", name="fk_models_id"),
            primary_key=True,
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("architecture", sa.Text()),
        sa.Column("quantization", sa.Text()),
        sa.Column("added_at", sa.Float(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "model_aliases",
        sa.Column("alias", sa.Text(), primary_key=True),
        sa.Column(
            "model_id",
            sa.Integer(),
            sa.ForeignKey("models.id", name="fk_model_aliases_model_id", ondelete="CASCADE"),
            nullable=False,
        ),
    )
    op.create_index("ix_model_aliases_model_id", "model_aliases", ["model_id"])
    counter = op.create_table(
        "catalog_revision",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_catalog_revision_single_row"),
    )
    op.bulk_insert(counter, [{"id": 1, "revision": 0}])
