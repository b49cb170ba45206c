"""Models and their profiles may set and strip parameters of requests.

The tables stay as they are, and so do the models, which did neither. But an older gglib could not
read the documents of models that do: it must refuse the database.
"""

from __future__ import annotations

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Change nothing."""
