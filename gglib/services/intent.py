"""What a server of a model should be: its defaults, what was asked for, and by which engine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.memory import prompt_cache_mib
from gglib.domain.model import SERVER_DEFAULT_FIELDS, Capability, Model
from gglib.errors import EngineNotFound, InvalidValue
from gglib.ports.context import EngineSet
from gglib.ports.engine import Engine

__all__ = [
    "DEFAULT_ENGINES",
    "bounded_prompt_cache",
    "choose_engine",
    "config_for",
    "implied_settings",
    "is_served_alike",
]

#: Tried in this order when nobody says which.
DEFAULT_ENGINES = ("llama-server", "embedded")

_WAYS = (
    "gglib engine install fetches one",
    "pip install 'gglib[llama]' brings one along",
    "put llama-server on PATH",
    "name it by GGLIB_LLAMA_SERVER, or by path in [engines.llama-server]",
    "serve the model with a command of yours: [engines.NAME] command = [...]",
)

#: llama-server's own way to be told. Source: llama-server --help, build 11434.
_CACHE_RAM_VARIABLE = "LLAMA_ARG_CACHE_RAM"

_TEXT = frozenset({Capability.CHAT, Capability.COMPLETION})


async def choose_engine(
    engines: EngineSet, model: Model, explicit: str | None, default: str | None = None
) -> Engine:
    """Return the engine to use, found on this machine: asked for, the model's, or ``default``.

    Without a default it is the first of ``DEFAULT_ENGINES`` that is found.

    Raises:
        EngineNotFound: it is not here, or none is; carries the ways to get one.
        AdapterError: it is broken.
    """
    name = explicit or model.defaults.engine or default
    if name is not None:
        engine = engines[name]
        await engine.probe()
        return engine
    for name in DEFAULT_ENGINES:
        if name in engines:
            engine = engines[name]
            try:
                await engine.probe()
            except EngineNotFound:
                continue
            return engine
    reasons = ["no engine is on this machine"]
    reasons += [str(engines.broken[name]) for name in DEFAULT_ENGINES if name in engines.broken]
    raise EngineNotFound(DEFAULT_ENGINES[0], "; ".join(reasons), _WAYS)


def config_for(model: Model, overrides: Mapping[str, Any], engine: str) -> ServerConfig:
    """Return the server that ``model`` should get: its defaults, changed by ``overrides``.

    A model that can only embed, or rerank, is served for that, and one with a projector beside it
    gets that, unless something else is said.

    Raises:
        InvalidValue: an override is no setting of a server, or out of its range.
    """
    for name in overrides:
        if name not in SERVER_DEFAULT_FIELDS:
            close = difflib.get_close_matches(name, SERVER_DEFAULT_FIELDS, n=1)
            known = ", ".join(sorted(SERVER_DEFAULT_FIELDS))
            expected = f"'{close[0]}'" if close else f"one of {known}"
            raise InvalidValue("server setting", name, expected)
    chosen = {**implied_settings(model, engine), **model.defaults.server, **overrides}
    config = ServerConfig(
        model_id=model.id,
        model_name=model.name,
        model_path=model.path,
        inference=model.defaults.inference,
        engine=engine,
    )
    return attrs.evolve(config, **chosen)


def bounded_prompt_cache(model: Model, config: ServerConfig) -> ServerConfig:
    """Return ``config`` with a bound for earlier prompts, unless it says one in some way.

    Without one llama.cpp keeps up to 8 GiB of them, in each server.
    """
    if config.cache_ram_mib is not None or _CACHE_RAM_VARIABLE in config.environment:
        return config
    return attrs.evolve(config, cache_ram_mib=prompt_cache_mib(model, config))


def is_served_alike(one: Model, other: Model) -> bool:
    """Whether a server of one definition of a model can stand for another's, but for its name.

    Wherever it runs. What requests are to say is no matter of the server's.
    """

    def served(model: Model) -> tuple[object, ...]:
        wish = model.defaults
        config = config_for(attrs.evolve(model, name=one.name, aliases=()), {}, DEFAULT_ENGINES[0])
        return (
            attrs.evolve(config, inference=None),
            wish.engine,
            model.paths,
            model.size_bytes,
        )

    return served(one) == served(other)


def implied_settings(model: Model, engine: str) -> dict[str, Any]:
    """Return what follows from a model's file, and from what lies beside it.

    Of an engine of the user's nobody knows what it can be told: it is told what is set.
    """
    if engine not in DEFAULT_ENGINES:
        return {}
    capabilities = model.facts.capabilities
    if capabilities & _TEXT:
        found = model.mmproj_path
        return {} if found is None else {"mmproj_path": found}
    if Capability.RERANK in capabilities:
        return {"embeddings": True, "pooling": "rank"}
    return {"embeddings": True} if Capability.EMBEDDING in capabilities else {}
