"""The identity of one started server."""

from __future__ import annotations

import attrs

from gglib.domain.server_address import base_url
from gglib.domain.validation import between, number_at_least, text

__all__ = ["ProcessHandle"]


@attrs.frozen(kw_only=True)
class ProcessHandle:
    """One started server: who it is and where to connect.

    Identity is (node, pid, process_started_at, server_id), never the pid alone: pids are
    reused. Times are Unix seconds.
    """

    model_id: int
    model_name: str
    pid: int | None
    port: int = attrs.field(validator=between(1, 65535, optional=False))
    started_at: float = attrs.field(validator=number_at_least(0, optional=False))
    server_id: str = attrs.field(validator=text(optional=False))
    runner: str
    node: str
    base_url: str = attrs.field(validator=base_url)
    """Where to *connect*, which need not be where the server binds.

    ``http://HOST:PORT``, ``https://HOST:PORT``, with a path if need be, or
    ``http+unix:///PATH/TO/SOCKET``, percent-encoded; see ``ServerAddress``.
    """
    process_started_at: float | None = None
    """The kernel's start time of the process, in Unix seconds."""
    ca_file: str | None = attrs.field(default=None, validator=text())
    """Of ``https``: whose certificates are trusted, in PEM; ``None`` = whom the system trusts."""
