"""Models have more facts: what their context takes in memory.

The tables stay as they are, and so do the models, which had none of these. But an older gglib
could not read the documents of models that are added from now on: it must refuse the database.
"""

from __future__ import annotations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Change nothing."""
