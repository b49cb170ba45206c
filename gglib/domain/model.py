"""A model that gglib knows: a file, what it is, and how its user wants it served."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from gglib.domain.file_mark import FileMark
from gglib.domain.inference import InferenceConfig
from gglib.domain.validation import (
    at_least,
    between,
    flag,
    model_name,
    number_at_least,
    stating,
    text,
)
from gglib.errors import InvalidValue

__all__ = [
    "SERVER_DEFAULT_FIELDS",
    "Capability",
    "Model",
    "ModelDefaults",
    "ModelFacts",
    "ModelOrigin",
    "Profile",
    "RunnerNames",
    "check_alias",
    "names_of_runners",
    "several_runners",
]

#: One runner, several in the order in which they are tried, or the default one.
RunnerNames = str | tuple[str, ...] | None


class Capability(StrEnum):
    """What a model can do."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    VISION = "vision"
    AUDIO = "audio"
    TOOLS = "tools"
    REASONING = "reasoning"
    MTP = "mtp"


def _capabilities(value: Iterable[Capability]) -> frozenset[Capability]:
    return frozenset(value)


@attrs.frozen(kw_only=True)
class ModelFacts:
    """What a model file says of itself; ``None`` = it does not say. Sizes in tokens or units."""

    architecture: str | None = None
    quantization: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    embedding_size: int | None = None
    expert_count: int | None = None
    expert_used_count: int | None = None
    vocabulary_size: int | None = None
    chat_template: str | None = None
    display_name: str | None = None
    """``general.name``: the author's title for the model."""
    capabilities: frozenset[Capability] = attrs.field(default=frozenset(), converter=_capabilities)
    feed_forward_size: int | None = None
    """Of the widest layer; of a mixture, all experts that one token passes."""
    key_length: int | None = None
    """Of one head; not said: ``embedding_size / heads``. Likewise ``value_length``."""
    value_length: int | None = None
    kv_heads_total: int | None = None
    """KV heads of all layers together, where layers differ; 0: none has any."""
    sliding_window: int | None = None
    """Tokens that a layer with sliding attention sees."""
    sliding_layers: int | None = None
    """How many layers have sliding attention, where that is known."""
    recurrent_layers: int | None = None
    recurrent_state_size: int | None = None
    """Elements that a recurrent layer keeps for each sequence."""
    input_bytes: int | None = None
    """Size of the token embeddings in the file."""
    output_bytes: int | None = None
    """Size of the output layer's weights; 0: it uses the token embeddings."""


@attrs.frozen(kw_only=True)
class ModelOrigin:
    """Where a model came from."""

    kind: str = "file"
    """``file``, ``config``, ``hub``, or the source or the tool whose it is: ``ollama`` …"""
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None
    branch: str | None = None
    """The branch or tag of the repository that it follows; ``None``: the main one."""
    fetched: bool = attrs.field(default=False, validator=flag(optional=False))
    """Whether gglib fetched its files, and may delete them."""
    runner: str | None = attrs.field(default=None, validator=text())
    """The runner on whose machine its files lie; ``None``: on this one, or where it is declared."""


#: The fields of ServerConfig that a model may set for its own servers.
SERVER_DEFAULT_FIELDS = frozenset(
    {
        "context_size",
        "gpu_layers",
        "jinja",
        "reasoning_format",
        "reasoning_budget",
        "spec_draft_n_max",
        "spec_draft_p_min",
        "threads",
        "batch_size",
        "ubatch_size",
        "parallel",
        "seed",
        "flash_attention",
        "mlock",
        "mmap",
        "cache_type_k",
        "cache_type_v",
        "embeddings",
        "pooling",
        "mmproj_path",
        "slot_save_path",
        "cache_ram_mib",
        "environment",
        "extra_args",
        "base_port",
        "port",
    }
)


def _frozen(value: Mapping[str, Any]) -> Mapping[str, Any]:
    # Plain data, so that what was kept as JSON equals what was given.
    plain = {key: str(item) if isinstance(item, Path) else item for key, item in value.items()}
    return MappingProxyType(plain)


def _known_server_fields(_instance: Any, attribute: Any, value: Mapping[str, Any]) -> None:
    for name in value:
        if name not in SERVER_DEFAULT_FIELDS:
            expected = "fields of ServerConfig: " + ", ".join(sorted(SERVER_DEFAULT_FIELDS))
            raise InvalidValue(attribute.name, name, expected)


def _one_with_port(instance: ModelDefaults, attribute: Any, value: int) -> None:
    if value > 1 and instance.server.get("port") is not None:
        raise InvalidValue(attribute.name, value, "1 where `port` is set: two cannot share it")


#: What a request says that nobody else may say, or take away.
_THE_REQUESTS_OWN = frozenset({"model", "stream"})


def _parameters(value: Any) -> Any:
    return MappingProxyType(dict(value)) if isinstance(value, Mapping) else value


#: A name that ``_check_parameter`` accepts.
_PARAMETER = {"type": "string", "minLength": 1, "not": {"enum": sorted(_THE_REQUESTS_OWN)}}


@stating({"type": "object", "propertyNames": _PARAMETER})
def _settable(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidValue(attribute.name, value, "a table of parameters of a request")
    for name in value:
        _check_parameter(attribute.name, name)
    try:
        if value:
            json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError):
        raise InvalidValue(attribute.name, value, "values that JSON can say") from None


@stating({"type": "array", "items": _PARAMETER})
def _strippable(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, tuple):
        raise InvalidValue(attribute.name, value, "a list of parameters of a request")
    for name in value:
        _check_parameter(attribute.name, name)


def _check_parameter(field: str, name: Any) -> None:
    if not isinstance(name, str) or not name or name in _THE_REQUESTS_OWN:
        own = " and ".join(sorted(_THE_REQUESTS_OWN))
        raise InvalidValue(field, name, f"names of parameters, but not {own}")


def several_runners(value: Any) -> Any:
    """Return runners as they are kept: a list of one is that one."""
    if not isinstance(value, list | tuple):
        return value
    return value[0] if len(value) == 1 else tuple(value)


def names_of_runners(runner: RunnerNames) -> tuple[str, ...]:
    """Return the names of runners, in the order in which they are tried; none: the default."""
    if runner is None:
        return ()
    return (runner,) if isinstance(runner, str) else runner


_RUNNER = {"type": "string", "minLength": 1}


@stating(
    {"anyOf": [_RUNNER, {"type": "array", "items": _RUNNER, "minItems": 1, "uniqueItems": True}]}
)
def _runners(_instance: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    names = (value,) if isinstance(value, str) else value
    if (
        not isinstance(names, tuple)
        or not names
        or not all(isinstance(name, str) and name and "\0" not in name for name in names)
        or len(set(names)) != len(names)
    ):
        expected = "the name of a runner, or a list of different ones"
        raise InvalidValue(attribute.name, value, expected)


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@attrs.frozen(kw_only=True)
class ModelDefaults:
    """How a model's user wants it served. ``server`` overrides fields of ServerConfig."""

    server: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_frozen, validator=_known_server_fields, hash=False
    )
    inference: InferenceConfig | None = None
    ttl_s: float | None = attrs.field(default=None, validator=number_at_least(-1))
    """Idle time after which it is unloaded; -1 = the global one, 0 = never."""
    pinned: bool = attrs.field(default=False, validator=flag(optional=False))
    priority: int = attrs.field(default=0, validator=between(-1000, 1000, optional=False))
    concurrency_limit: int | None = attrs.field(default=None, validator=at_least(1))
    memory_bytes: int | None = attrs.field(default=None, validator=at_least(1))
    engine: str | None = attrs.field(default=None, validator=text())
    runner: RunnerNames = attrs.field(default=None, converter=several_runners, validator=_runners)
    """Where its servers run; of several runners, tried in this order."""
    replicas: int = attrs.field(default=1, validator=[at_least(1, optional=False), _one_with_port])
    """The most servers of it at once."""
    set_parameters: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_parameters, validator=_settable, hash=False
    )
    """What every request for text is made to say, whatever it says itself."""
    strip_parameters: tuple[str, ...] = attrs.field(
        default=(), converter=_list_to_tuple, validator=_strippable
    )
    """What no request for text gets to say."""

    @property
    def runners(self) -> tuple[str, ...]:
        """The names of its runners, in the order in which they are tried; none: the default."""
        return names_of_runners(self.runner)


@attrs.frozen(kw_only=True)
class Profile:
    """A named set of parameters of requests, asked for as ``name:profile``.

    What it says wins over what the model's defaults say.
    """

    name: str = attrs.field(validator=model_name)
    inference: InferenceConfig = attrs.field(factory=InferenceConfig)
    set_parameters: Mapping[str, Any] = attrs.field(
        factory=dict, converter=_parameters, validator=_settable, hash=False
    )
    strip_parameters: tuple[str, ...] = attrs.field(
        default=(), converter=_list_to_tuple, validator=_strippable
    )


def _paths(value: Iterable[Path | str]) -> tuple[Path, ...]:
    # A path is not made of a path again: catalogs have ten thousands of them.
    return tuple(path if isinstance(path, Path) else Path(path) for path in value)


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _profiles(value: Iterable[Profile]) -> tuple[Profile, ...]:
    return tuple(value)


def _some_paths(_instance: Any, attribute: Any, value: tuple[Path, ...]) -> None:
    if not value:
        raise InvalidValue(attribute.name, value, "at least one path")


def _marks(value: Iterable[FileMark]) -> tuple[FileMark, ...]:
    return tuple(value)


def _optional_path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)


def _one_for_each(instance: Model, attribute: Any, value: tuple[FileMark, ...]) -> None:
    if value and len(value) != len(instance.paths):
        raise InvalidValue(attribute.name, len(value), f"{len(instance.paths)}, as paths has")


def _names(_instance: Any, attribute: Any, value: Iterable[str]) -> None:
    for name in value:
        model_name(_instance, attribute, name)


def check_alias(alias: str) -> str:
    """Return ``alias`` if it may name a model, else raise ``InvalidValue``."""
    model_name(None, attrs.fields(Model).aliases, alias)
    return alias


@attrs.frozen(kw_only=True)
class Model:
    """One model in the catalog. ``paths`` holds every shard, the first one first."""

    id: int = attrs.field(validator=at_least(0, optional=False))
    name: str = attrs.field(validator=model_name)
    paths: tuple[Path, ...] = attrs.field(converter=_paths, validator=_some_paths)
    size_bytes: int = attrs.field(validator=between(0, 2**63 - 1, optional=False))
    facts: ModelFacts = attrs.field(factory=ModelFacts)
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_texts, validator=_names)
    tags: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    marks: tuple[FileMark, ...] = attrs.field(default=(), converter=_marks, validator=_one_for_each)
    """What each of ``paths`` was when it was read; empty: not known."""
    mmproj_path: Path | None = attrs.field(default=None, converter=_optional_path)
    """The projector that was found beside it; ``defaults.server`` may name another, or none."""
    profiles: tuple[Profile, ...] = attrs.field(default=(), converter=_profiles)
    defaults: ModelDefaults = attrs.field(factory=ModelDefaults)
    origin: ModelOrigin = attrs.field(factory=ModelOrigin)
    added_at: float = attrs.field(default=0.0, validator=number_at_least(0, optional=False))

    @property
    def path(self) -> Path:
        """The file an engine is given: the first shard."""
        return self.paths[0]
