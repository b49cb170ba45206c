"""What models' servers took, and how often they were used: one row for each that has ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "model_runs",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "model_id",
            sa.Integer(),
            sa.ForeignKey("model_names.id", name="fk_model_runs_model_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index("ix_model_runs_model_id", "model_runs", ["model_id"])
