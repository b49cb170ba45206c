"""What a server should be: intent, never an engine's spelling of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from gglib.domain.inference import InferenceConfig
from gglib.domain.validation import (
    at_least,
    between,
    flag,
    model_name,
    number_at_least,
    one_of,
    positive,
    stating,
    text,
    texts,
)
from gglib.errors import InvalidValue

__all__ = [
    "CACHE_TYPES",
    "DEFAULT_SPEC_DRAFT_P_MIN",
    "SERVER_ID_VARIABLE",
    "LoraAdapter",
    "ServerConfig",
]

#: The variable by which a server's process carries its identity.
SERVER_ID_VARIABLE = "GGLIB_SERVER_ID"

#: Used when drafting is on and no probability was said.
DEFAULT_SPEC_DRAFT_P_MIN = 0.75

#: Element types of the KV cache. Source: llama-server --help, build 11434.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


# Converters leave what has the wrong type as it is: the validators name the field.


def _path(value: Path | str) -> Path:
    return Path(value) if isinstance(value, str) else value


def _optional_path(value: Path | str | None) -> Path | None:
    return None if value is None else _path(value)


def _environment(value: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        return value
    return MappingProxyType(dict(value))


def _arguments(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else value  # type: ignore[return-value]


def _valid_path(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Path) or "\0" in str(value):
        raise InvalidValue(attribute.name, value, "a path without NUL characters")


@stating({"type": "string", "minLength": 1})
def _valid_optional_path(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None:
        _valid_path(instance, attribute, value)


@stating({"type": "object", "additionalProperties": {"type": "string"}})
def _valid_environment(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidValue(attribute.name, value, "a table of variables")
    for name, content in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidValue(attribute.name, name, "variable names without '=' or NUL")
        if not isinstance(content, str) or "\0" in content:
            raise InvalidValue(f"{attribute.name}[{name}]", content, "a text without NUL")


@attrs.frozen
class LoraAdapter:
    """A LoRA adapter that a server loads beside its base model."""

    path: Path = attrs.field(converter=_path, validator=_valid_path)
    scale: float = attrs.field(default=1.0, validator=number_at_least(-100, 100, optional=False))
    name: str | None = attrs.field(default=None, validator=text())


def _adapters(value: Iterable[LoraAdapter]) -> tuple[LoraAdapter, ...]:
    return tuple(value) if isinstance(value, list) else value  # type: ignore[return-value]


def _valid_adapters(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, LoraAdapter) for item in value):
        raise InvalidValue(attribute.name, value, "a list of LoRA adapters")


#: What runners and requests see to, or every engine takes.
_NO_INTENTS = frozenset(
    {
        "model_id",
        "model_name",
        "model_path",
        "base_port",
        "port",
        "inference",
        "environment",
        "engine",
        "extra_args",
    }
)


@attrs.frozen(kw_only=True)
class ServerConfig:
    """One server, as its user wants it. ``None`` leaves a choice to the engine.

    Sizes are in tokens unless the name says otherwise. ``extra_args`` go last on the
    command line, as they are.
    """

    model_id: int = attrs.field(validator=at_least(0, optional=False))
    model_name: str = attrs.field(validator=model_name)
    model_path: Path = attrs.field(converter=_path, validator=_valid_path)
    base_port: int = attrs.field(default=0, validator=between(0, 65535, optional=False))
    port: int | None = attrs.field(default=None, validator=between(1, 65535))
    context_size: int | None = attrs.field(default=None, validator=positive)
    gpu_layers: int | None = attrs.field(default=None, validator=at_least(0))
    jinja: bool | None = attrs.field(default=None, validator=flag())
    reasoning_format: str | None = attrs.field(
        default=None, validator=one_of(None, "none", "deepseek", "deepseek-legacy", "auto")
    )
    reasoning_budget: int | None = attrs.field(default=None, validator=at_least(-1))
    spec_draft_n_max: int | None = attrs.field(default=None, validator=positive)
    spec_draft_p_min: float | None = attrs.field(default=None, validator=number_at_least(0, 1))
    inference: InferenceConfig | None = None
    threads: int | None = attrs.field(default=None, validator=positive)
    batch_size: int | None = attrs.field(default=None, validator=positive)
    ubatch_size: int | None = attrs.field(default=None, validator=positive)
    parallel: int | None = attrs.field(default=None, validator=positive)
    seed: int | None = attrs.field(default=None, validator=at_least(-1))
    flash_attention: str | None = attrs.field(
        default=None, validator=one_of(None, "on", "off", "auto")
    )
    mlock: bool = attrs.field(default=False, validator=flag(optional=False))
    mmap: bool = attrs.field(default=True, validator=flag(optional=False))
    cache_type_k: str | None = attrs.field(default=None, validator=one_of(None, *CACHE_TYPES))
    cache_type_v: str | None = attrs.field(default=None, validator=one_of(None, *CACHE_TYPES))
    embeddings: bool = attrs.field(default=False, validator=flag(optional=False))
    pooling: str | None = attrs.field(
        default=None, validator=one_of(None, "none", "mean", "cls", "last", "rank")
    )
    mmproj_path: Path | None = attrs.field(
        default=None, converter=_optional_path, validator=_valid_optional_path
    )
    lora_adapters: tuple[LoraAdapter, ...] = attrs.field(
        default=(), converter=_adapters, validator=_valid_adapters
    )
    slot_save_path: Path | None = attrs.field(
        default=None, converter=_optional_path, validator=_valid_optional_path
    )
    cache_ram_mib: int | None = attrs.field(default=None, validator=at_least(-1))
    environment: Mapping[str, str] = attrs.field(
        factory=dict, converter=_environment, validator=_valid_environment, hash=False
    )
    engine: str | None = attrs.field(default=None, validator=text())
    extra_args: tuple[str, ...] = attrs.field(
        default=(), converter=_arguments, validator=texts(empty=True)
    )

    @property
    def server_id(self) -> str | None:
        """The identity this server will carry, when one has been assigned."""
        return self.environment.get(SERVER_ID_VARIABLE)

    @property
    def intents(self) -> Mapping[str, Any]:
        """Return what is asked of the engine beside the model and the port: fields that are set.

        An engine expresses each, or refuses it by ``EngineCannot``.
        """
        defaults = {field.name: field.default for field in attrs.fields(ServerConfig)}
        return {
            name: getattr(self, name)
            for name, default in defaults.items()
            if name not in _NO_INTENTS and getattr(self, name) != default
        }

    @property
    def effective_spec_draft_p_min(self) -> float | None:
        """The least draft probability; ``None`` when nothing is drafted."""
        if self.spec_draft_n_max is None:
            return None
        if self.spec_draft_p_min is None:
            return DEFAULT_SPEC_DRAFT_P_MIN
        return self.spec_draft_p_min
