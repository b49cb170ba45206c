"""What can be set, its defaults and its ranges. Times in seconds, sizes in bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Profile, RunnerNames, several_runners
from gglib.domain.validation import (
    at_least,
    between,
    flag,
    number_at_least,
    one_of,
    stating,
    text,
    texts,
)
from gglib.errors import InvalidValue
from gglib.settings.keys import KEY, KeySettings, check_keys, keys_of
from gglib.settings.telemetry import TelemetrySettings

__all__ = [
    "DeclaredModel",
    "GatewaySettings",
    "LoadedSettings",
    "PoolSettings",
    "RoutingSettings",
    "ServingSettings",
    "Settings",
]

_HEADER = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]*")
_seconds = number_at_least(0, optional=False, exclusive=True)


# Converters leave what has the wrong type as it is: the validators name the field.


def _float(value: Any) -> float:
    return float(value) if type(value) is int else value


def _limit(value: Any) -> float | None:
    # A settings file has no way to write None: 0 switches the limit off.
    return None if value is None or (value == 0 and value is not False) else _float(value)


def _path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


@stating({"type": "string", "minLength": 1})
def _is_path(_instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and (not isinstance(value, Path) or "\0" in str(value)):
        raise InvalidValue(attribute.name, value, "the path of a file")


def _tuple(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else value


@stating({"type": "array", "items": {"type": "string", "pattern": f"^{KEY.pattern}$"}})
def _keys(_instance: Any, attribute: Any, value: Any) -> None:
    """Refuse what no header can carry, and keep it out of the message."""
    expected = "a list of keys of printable ASCII characters without spaces"
    if not isinstance(value, tuple):
        raise InvalidValue(attribute.name, type(value).__name__, expected)
    for key in value:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise InvalidValue(attribute.name, "…", expected)


@stating({"type": "string", "pattern": f"^{_HEADER.pattern}$"})
def _header(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise InvalidValue(attribute.name, value, "the name of an HTTP header, or empty")


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """The HTTP gateway: ``[gateway]``, ``GGLIB_GATEWAY_*``."""

    host: str = attrs.field(default="127.0.0.1", validator=text(optional=False))
    port: int = attrs.field(default=8080, validator=between(0, 65_535, optional=False))
    """0 lets the system choose."""
    start_timeout_s: float = attrs.field(default=600.0, converter=_float, validator=_seconds)
    """How long an engine may take to become ready."""
    max_body_bytes: int = attrs.field(default=64 << 20, validator=at_least(1, optional=False))
    max_header_bytes: int = attrs.field(
        default=64 << 10, validator=between(1 << 10, 16 << 20, optional=False)
    )
    header_timeout_s: float = attrs.field(default=20.0, converter=_float, validator=_seconds)
    keep_alive_s: float = attrs.field(default=75.0, converter=_float, validator=_seconds)
    stall_timeout_s: float = attrs.field(default=60.0, converter=_float, validator=_seconds)
    """How long a client may not read before its request is ended."""
    shutdown_timeout_s: float = attrs.field(
        default=10.0, converter=_float, validator=number_at_least(0, optional=False)
    )
    queue_limit: int = attrs.field(default=256, validator=at_least(0, optional=False))
    """How many requests may wait, all models together."""
    silence_timeout_s: float | None = attrs.field(
        default=600.0, converter=_limit, validator=number_at_least(0)
    )
    """How long an engine may say nothing within an answer; 0 (``None``) = without limit."""
    keepalive_comment_s: float | None = attrs.field(
        default=10.0, converter=_limit, validator=number_at_least(0)
    )
    """How often a stream that waits is sent a comment; 0 (``None``) = never."""
    loading_state: bool = attrs.field(default=False, validator=flag(optional=False))
    """Whether chats that wait are told what they wait for, as reasoning."""
    insecure: bool = attrs.field(default=False, validator=flag(optional=False))
    """Whether it may listen beyond loopback without a key."""
    orphans: str = attrs.field(default="adopt", validator=one_of("adopt", "stop"))
    """What becomes of ready servers that a gateway which was killed has left."""
    tls_certificate: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    """A certificate in PEM, and those of its authorities behind it: clients come by HTTPS."""
    tls_key: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    """Its key in PEM; ``None``: in the same file."""
    tls_key_password_file: Path | None = attrs.field(
        default=None, converter=_path, validator=_is_path
    )
    """What opens its key, if that is encrypted."""
    api_keys: tuple[str, ...] = attrs.field(
        default=(), converter=_tuple, validator=_keys, repr=False
    )
    keys: Mapping[str, KeySettings] = attrs.field(
        factory=dict, converter=keys_of, validator=check_keys, repr=False, hash=False
    )
    """Keys by name, each with what it opens."""
    allowed_hosts: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=texts())
    """Host names by which clients may call it, beside its own."""
    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=texts())
    """Origins of web pages that may call it."""
    session_header: str = attrs.field(default="x-session-id", validator=_header)
    """Which header names a request's session, which keeps to one server; empty: none does."""
    access_log: bool = attrs.field(default=False, validator=flag(optional=False))
    """Whether each request's end is an event: one line of the log."""
    watch_config: bool = attrs.field(default=False, validator=flag(optional=False))
    """Whether a settings file that has changed is taken up without being told."""

    def __attrs_post_init__(self) -> None:
        for name in ("tls_key", "tls_key_password_file"):
            if self.tls_certificate is None and (path := getattr(self, name)) is not None:
                raise InvalidValue(name, str(path), "a tls_certificate beside it")


@attrs.frozen(kw_only=True)
class ServingSettings:
    """What serves a model that names none: ``[serving]``, ``GGLIB_SERVING_*``."""

    runner: str = attrs.field(default="local", validator=text(optional=False))
    engine: str = attrs.field(default="", validator=text(optional=False, empty=True))
    """Empty: llama-server where it is found, else the embedded one."""


def _frozen(value: Any) -> Any:
    return MappingProxyType(dict(value)) if isinstance(value, dict) else value


@stating({"type": "object"})
def _tables(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidValue(attribute.name, value, f"a table, [routing.{attribute.name}]")


@stating({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}})
def _budgets(instance: Any, attribute: Any, value: Any) -> None:
    _tables(instance, attribute, value)
    for device, size in value.items():
        if type(size) is not int or size < 0:
            raise InvalidValue(f"budgets.{device}", size, "a number of bytes, 0 or more")


@attrs.frozen(kw_only=True)
class RoutingSettings:
    """Which models run together, and how long one waits for another: ``[routing]``."""

    planner: str = attrs.field(
        default="memory", validator=one_of("exclusive", "count", "groups", "matrix", "memory")
    )
    patience_factor: float = attrs.field(
        default=8.0, converter=_float, validator=number_at_least(0, optional=False)
    )
    """A request waits so many times what the swap costs before others must make room for it."""
    max_drain_s: float | None = attrs.field(
        default=None, converter=_limit, validator=number_at_least(0)
    )
    """How long answers may go on after their server was to go; ``None`` = to their end."""
    finish_loads: bool = attrs.field(default=False, validator=flag(optional=False))
    """Whether a start goes on when the last one who waited for it has left."""
    budgets: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_frozen, validator=_budgets, hash=False
    )
    """Bytes that models may need together, by device, instead of what is measured."""
    groups: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_frozen, validator=_tables, hash=False
    )
    """Groups by name, as plain data; for the planner ``groups``."""
    matrix: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_frozen, validator=_tables, hash=False
    )
    """``sets`` and ``costs``, as plain data; for the planner ``matrix``."""


@attrs.frozen(kw_only=True)
class PoolSettings:
    """How many models there are in memory, and how long: ``[pool]``, ``GGLIB_POOL_*``."""

    max_size: int = attrs.field(default=5, validator=at_least(1, optional=False))
    """The most servers at once, whatever the planner says."""
    min_size: int = attrs.field(default=0, validator=at_least(0, optional=False))
    """So many, the most recently used, outlive their ``ttl_s``."""
    max_wait_s: float = attrs.field(default=120.0, converter=_float, validator=_seconds)
    """The most patience that a request has, whatever the swap costs."""
    ttl_s: float | None = attrs.field(default=None, converter=_limit, validator=number_at_least(0))
    """Idle time after which a model without a ``ttl_s`` of its own goes; ``None`` = never."""
    health_check_interval_s: float | None = attrs.field(
        default=10.0, converter=_limit, validator=number_at_least(0)
    )
    """How often ready servers are asked how they are; 0 (``None``) = never."""
    warmup: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=texts())
    """Models that the gateway loads at its start; none: the ``min_size`` most used."""

    def __attrs_post_init__(self) -> None:
        if self.min_size > self.max_size:
            raise InvalidValue("min_size", self.min_size, f"at most max_size, {self.max_size}")


@attrs.frozen(kw_only=True)
class DeclaredModel:
    """A model that the file declares: ``[models.NAME]``. Its path is absolute."""

    name: str
    path: Path
    engine: str | None = None
    runner: RunnerNames = attrs.field(default=None, converter=several_runners)
    aliases: tuple[str, ...] = ()
    concurrency_limit: int | None = None
    ttl_s: float | None = None
    pinned: bool = False
    priority: int = 0
    memory_bytes: int | None = None
    replicas: int = 1
    inference: InferenceConfig | None = None
    set_parameters: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    strip_parameters: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    server: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    """Fields of ``ServerConfig`` (those in ``SERVER_DEFAULT_FIELDS``), as plain data."""

    def as_written(self) -> dict[str, Any]:
        """Return the keys of its table, by the file's names, but for its own; values as here."""
        written = attrs.asdict(self, recurse=False)
        del written["name"]
        written["set"] = written.pop("set_parameters")
        written["strip"] = written.pop("strip_parameters")
        written["profiles"] = {profile.name: profile for profile in self.profiles}
        return {**written.pop("server"), **written}


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that can be set."""

    data_dir: Path
    gateway: GatewaySettings = attrs.field(factory=GatewaySettings)
    serving: ServingSettings = attrs.field(factory=ServingSettings)
    routing: RoutingSettings = attrs.field(factory=RoutingSettings)
    pool: PoolSettings = attrs.field(factory=PoolSettings)
    telemetry: TelemetrySettings = attrs.field(factory=TelemetrySettings)
    inference: InferenceConfig = attrs.field(factory=InferenceConfig)
    """What requests for text say that say nothing else, whatever their model."""
    runners: Mapping[str, Mapping[str, Any]] = attrs.field(factory=_empty, hash=False)
    """Sections for adapters, as plain data, by the name they are configured under."""
    engines: Mapping[str, Mapping[str, Any]] = attrs.field(factory=_empty, hash=False)
    sources: Mapping[str, Mapping[str, Any]] = attrs.field(factory=_empty, hash=False)
    models: Mapping[str, DeclaredModel] = attrs.field(factory=_empty, hash=False)
    config_file: Path | None = None


@attrs.frozen(kw_only=True)
class LoadedSettings:
    """Settings, and where each value comes from.

    ``sources``: dotted key to ``default``, ``file PATH:LINE``, ``environment NAME`` or
    ``flag --NAME``.
    """

    settings: Settings
    sources: Mapping[str, str] = attrs.field(hash=False)
