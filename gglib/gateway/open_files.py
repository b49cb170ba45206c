"""How many connections the system lets a gateway hold."""

from __future__ import annotations

import contextlib

__all__ = ["allow_many_open_files"]


def allow_many_open_files() -> None:
    """Raise this process's limit of open files as far as the system lets it.

    Each stream holds two, and 1,024 is what most systems begin with. Engines inherit it.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems call unlimited what they do not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
