"""Models may have several servers at once.

The tables stay as they are, and so do the models, which have one each. But an older gglib could
not read the documents of models that have more: it must refuse the database.
"""

from __future__ import annotations

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Change nothing."""
