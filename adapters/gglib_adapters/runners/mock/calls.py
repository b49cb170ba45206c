"""What was asked of a mock runner."""

from __future__ import annotations

import attrs

from gglib.domain.config import ServerConfig

__all__ = ["MockCall"]


@attrs.frozen(kw_only=True)
class MockCall:
    """One call of a method of the port. ``at``: the runner's clock, in monotonic seconds."""

    method: str
    at: float
    model_name: str | None = None
    server_id: str | None = None
    config: ServerConfig | None = None
    """What was asked to start."""
