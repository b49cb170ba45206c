"""The mock runner's settings."""

from __future__ import annotations

import attrs

from gglib.domain.validation import flag, number_at_least, text

__all__ = ["MockRunnerSettings"]


@attrs.frozen(kw_only=True)
class MockRunnerSettings:
    """What ``[runners.NAME]`` may say. Times in seconds."""

    sockets: bool = attrs.field(default=False, validator=flag(optional=False))
    """Whether each server answers on its port."""
    stop_grace_s: float = attrs.field(default=10.0, validator=number_at_least(0, optional=False))
    """From being asked to stop until it is killed."""
    load_s: float = attrs.field(default=0.0, validator=number_at_least(0, optional=False))
    """Until a server is healthy."""
    reply: str | None = attrs.field(default=None, validator=text(empty=True))
    """What a server answers; unset, it echoes what the user said."""
