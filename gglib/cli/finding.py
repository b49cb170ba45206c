"""What ``gglib doctor`` finds."""

from __future__ import annotations

import attrs

__all__ = ["BROKEN", "OK", "WARNING", "Finding"]

OK, WARNING, BROKEN = "ok", "warning", "broken"


@attrs.frozen
class Finding:
    """One thing that was looked at. ``fix`` says what to do, when there is something."""

    subject: str
    state: str
    detail: str
    fix: str | None = None
