"""One step of the way to where servers run, as it was found."""

from __future__ import annotations

import attrs

__all__ = ["WayStep"]


@attrs.frozen(kw_only=True)
class WayStep:
    """Whether one step of the way can be gone. ``fix`` says what to do if it cannot."""

    name: str
    works: bool
    detail: str
    fix: str | None = None
