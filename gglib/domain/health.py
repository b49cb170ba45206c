"""What is known of a server's health."""

from __future__ import annotations

import attrs

__all__ = ["ServerHealth"]


@attrs.frozen(kw_only=True)
class ServerHealth:
    """The result of one health check, with what was last known for certain."""

    healthy: bool
    last_check: float | None = None
    """Unix seconds of the last *successful* check."""
    context_size: int | None = None
    message: str | None = None
    latency_s: float | None = None
    slots_total: int | None = None
    slots_busy: int | None = None
    load_progress: float | None = None
    """From 0 to 1 while the model loads, where the engine tells."""
    port_held_by: str | None = None
    """Who answers on the server's port, when it is somebody else."""
    is_untrusted: bool = False
    """Whether its certificate is refused: asking again changes nothing."""
    is_out_of_reach: bool = False
    """Whether its machine could not be asked: it may be well."""

    @classmethod
    def ok(
        cls,
        *,
        last_check: float,
        latency_s: float | None = None,
        context_size: int | None = None,
        slots_total: int | None = None,
        slots_busy: int | None = None,
    ) -> ServerHealth:
        """Return a healthy state, checked at ``last_check``."""
        return cls(
            healthy=True,
            last_check=last_check,
            latency_s=latency_s,
            context_size=context_size,
            slots_total=slots_total,
            slots_busy=slots_busy,
            load_progress=1.0,
        )

    @classmethod
    def unhealthy(
        cls,
        message: str,
        *,
        last_check: float | None = None,
        load_progress: float | None = None,
        port_held_by: str | None = None,
        is_untrusted: bool = False,
        is_out_of_reach: bool = False,
    ) -> ServerHealth:
        """Return an unhealthy state; ``message`` says why."""
        return cls(
            healthy=False,
            message=message,
            last_check=last_check,
            load_progress=load_progress,
            port_held_by=port_held_by,
            is_untrusted=is_untrusted,
            is_out_of_reach=is_out_of_reach,
        )
