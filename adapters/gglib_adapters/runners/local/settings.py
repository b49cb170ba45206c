"""The local runner's settings."""

from __future__ import annotations

import attrs

from gglib.domain.validation import at_least, number_at_least

__all__ = ["LocalRunnerSettings"]


@attrs.frozen(kw_only=True)
class LocalRunnerSettings:
    """Times in seconds, sizes in bytes."""

    stop_grace_s: float = attrs.field(default=10.0, validator=number_at_least(0, optional=False))
    """From SIGTERM to SIGKILL."""
    health_timeout_s: float = attrs.field(
        default=2.0, validator=number_at_least(0, optional=False, exclusive=True)
    )
    log_max_bytes: int = attrs.field(
        default=10 * 1024 * 1024, validator=at_least(4096, optional=False)
    )
    """A server's output beyond this moves to one older file, which is cut to the same size."""
    log_keep: int = attrs.field(default=5, validator=at_least(1, optional=False))
    """Log files kept per model, those of running servers apart."""
