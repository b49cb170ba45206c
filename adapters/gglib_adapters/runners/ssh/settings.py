"""The SSH runner's settings."""

from __future__ import annotations

import re
from typing import Any

import attrs

from gglib.domain.validation import at_least, flag, number_at_least, text
from gglib.errors import InvalidValue

__all__ = ["SshRunnerSettings"]

_HOST = re.compile(r"[A-Za-z0-9_.@:%\[\]][A-Za-z0-9_.@:%\[\]-]*")


def _host(_instance: Any, attribute: Any, value: Any) -> None:
    """Accept what ssh takes for a host, and never for one of its options."""
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise InvalidValue(attribute.name, value, "a host as ssh knows it, such as box or me@box")


@attrs.frozen(kw_only=True)
class SshRunnerSettings:
    """Times in seconds, sizes in bytes."""

    host: str = attrs.field(default="", validator=_host)
    """The other machine, as in ``ssh HOST``."""
    ssh_config: str | None = attrs.field(default=None, validator=text())
    """A configuration file for ssh, in place of the user's."""
    engine_path: str = attrs.field(default="llama-server", validator=text(optional=False))
    """The llama-server there: a path, ``~/…``, or a name that is found on PATH."""
    data_dir: str | None = attrs.field(default=None, validator=text())
    """Where servers' records and output are kept there; ``None`` = ``~/.local/share/gglib``."""
    shares_memory: bool = attrs.field(default=True, validator=flag(optional=False))
    """Whether its machine's memory is that of every runner which leads to the same kernel."""
    connect_timeout_s: float = attrs.field(
        default=10.0, validator=number_at_least(1, optional=False)
    )
    orphan_ttl_s: int | None = attrs.field(default=None, validator=at_least(4))
    """A server whose gglib has not been heard of for so long ends itself; ``None`` = it runs on."""
    stop_grace_s: float = attrs.field(default=10.0, validator=number_at_least(0, optional=False))
    """From SIGTERM to SIGKILL."""
    health_timeout_s: float = attrs.field(
        default=2.0, validator=number_at_least(0, optional=False, exclusive=True)
    )
    log_max_bytes: int = attrs.field(
        default=10 * 1024 * 1024, validator=at_least(4096, optional=False)
    )
    """A server's output beyond this moves to one older file."""
    log_keep: int = attrs.field(default=5, validator=at_least(1, optional=False))
    """Ended servers per model whose output is kept."""
