"""Models know what their files were, which projector lies beside them, and who fetched them.

The tables stay as they are, and so do the models, which know none of it. But an older gglib could
not read the documents of models that do: it must refuse the database.
"""

from __future__ import annotations

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Change nothing."""
