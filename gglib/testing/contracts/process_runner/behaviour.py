"""What a server may do that a runner has to deal with."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

__all__ = ["ASKED", "COMPLAINTS", "LAST_WORDS", "OUTPUT", "STUB_OPTIONS", "Behaviour"]

#: What ``Behaviour.DIES`` prints before it ends.
LAST_WORDS = ("reading tensors", "no such tensor: blk.0")

#: What ``Behaviour.COMPLAINS`` prints on stderr at its start.
COMPLAINTS = ("warning: no GPU", "warning: slow")

#: What the kit's servers print when they are asked to stop.
ASKED = "asked to stop"

#: What ``Behaviour.TALKS`` prints at its start.
OUTPUT = tuple(f"line {number}" for number in range(50))


class Behaviour(StrEnum):
    """How the server of one start behaves."""

    READY = "ready"
    """Becomes healthy at once, and ends when it is asked to."""
    LOADS = "loads"
    """Listens, and says that it is loading, for ever."""
    SILENT = "silent"
    """Never opens its port."""
    DIES = "dies"
    """Prints ``LAST_WORDS`` and ends with status 3 at once."""
    DEAF = "deaf"
    """Becomes healthy, and does not heed SIGTERM."""
    HAS_FAMILY = "has_family"
    """Starts four processes: in its group, in a session of their own, orphaned, and deaf."""
    TALKS = "talks"
    """Prints ``OUTPUT``, then becomes healthy."""
    COMPLAINS = "complains"
    """Prints ``OUTPUT``, and ``COMPLAINTS`` on stderr, then becomes healthy."""
    IMPOSSIBLE = "impossible"
    """Cannot be started: there is no such program."""


#: How gglib's stub server is told to do so.
STUB_OPTIONS: Mapping[Behaviour, Mapping[str, Any]] = MappingProxyType(
    {
        Behaviour.READY: {},
        Behaviour.LOADS: {"load_s": 3600},
        Behaviour.SILENT: {"listen": False},
        Behaviour.DIES: {"lines": LAST_WORDS, "exit_status": 3},
        Behaviour.DEAF: {"deaf": True},
        Behaviour.HAS_FAMILY: {"children": ["group", "session", "orphan", "deaf"]},
        Behaviour.TALKS: {"lines": OUTPUT},
        Behaviour.COMPLAINS: {"lines": OUTPUT, "complaints": COMPLAINTS},
        Behaviour.IMPOSSIBLE: {"program": "/nonexistent/engine"},
    }
)
