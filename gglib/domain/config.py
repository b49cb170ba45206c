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
    model_name,
    number_at_least,
    one_of,
    positive,
    text,
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


def _path(value: Path | str) -> Path:
    return Path(value)


def _optional_path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)


def _environment(value: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(value))


def _no_nul_path(_instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and "\0" in str(value):
        raise InvalidValue(attribute.name, str(value), "a path without NUL characters")


def _valid_environment(_instance: Any, attribute: Any, value: Mapping[Any, Any]) -> None:
    for name, content in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidValue(attribute.name, name, "variable names without '=' or NUL")
        if not isinstance(content, str) or "\0" in content:
            raise InvalidValue(f"{attribute.name}[{name}]", content, "a text without NUL")


def _valid_arguments(_instance: Any, attribute: Any, value: tuple[Any, ...]) -> None:
    for argument in value:
        if not isinstance(argument, str) or "\0" in argument:
            raise InvalidValue(attribute.name, argument, "texts without NUL characters")


def _arguments(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise InvalidValue("extra_args", value, "a list of texts, one per argument")
    return tuple(value)


@attrs.frozen
class LoraAdapter:
    """A LoRA adapter that a server loads beside its base model."""

    path: Path = attrs.field(converter=_path, validator=_no_nul_path)
    scale: float = attrs.field(default=1.0, validator=number_at_least(-100, 100, optional=False))
    name: str | None = attrs.field(default=None, validator=text())


@attrs.frozen(kw_only=True)
class ServerConfig:
    """One server, as its user wants it. ``None`` leaves a choice to the engine.

    Sizes are in tokens unless the name says otherwise. ``extra_args`` go last on the
    command line, as they are.
    """

    model_id: int = attrs.field(validator=at_least(0, optional=False))
    model_name: str = attrs.field(validator=model_name)
    model_path: Path = attrs.field(converter=_path, validator=_no_nul_path)
    base_port: int = attrs.field(default=0, validator=between(0, 65535, optional=False))
    port: int | None = attrs.field(default=None, validator=between(1, 65535))
    context_size: int | None = attrs.field(default=None, validator=positive)
    gpu_layers: int | None = attrs.field(default=None, validator=at_least(0))
    jinja: bool | None = None
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
    mlock: bool = False
    mmap: bool = True
    cache_type_k: str | None = attrs.field(default=None, validator=one_of(None, *CACHE_TYPES))
    cache_type_v: str | None = attrs.field(default=None, validator=one_of(None, *CACHE_TYPES))
    embeddings: bool = False
    pooling: str | None = attrs.field(
        default=None, validator=one_of(None, "none", "mean", "cls", "last", "rank")
    )
    mmproj_path: Path | None = attrs.field(
        default=None, converter=_optional_path, validator=_no_nul_path
    )
    lora_adapters: tuple[LoraAdapter, ...] = attrs.field(default=(), converter=tuple)
    slot_save_path: Path | None = attrs.field(
        default=None, converter=_optional_path, validator=_no_nul_path
    )
    cache_ram_mib: int | None = attrs.field(default=None, validator=at_least(-1))
    environment: Mapping[str, str] = attrs.field(
        factory=dict, converter=_environment, validator=_valid_environment, hash=False
    )
    engine: str | None = attrs.field(default=None, validator=text())
    extra_args: tuple[str, ...] = attrs.field(
        default=(), converter=_arguments, validator=_valid_arguments
    )

    @property
    def server_id(self) -> str | None:
        """The identity this server will carry, when one has been assigned."""
        return self.environment.get(SERVER_ID_VARIABLE)

    @property
    def effective_spec_draft_p_min(self) -> float | None:
        """The least draft probability; ``None`` when nothing is drafted."""
        if self.spec_draft_n_max is None:
            return None
        if self.spec_draft_p_min is None:
            return DEFAULT_SPEC_DRAFT_P_MIN
        return self.spec_draft_p_min
