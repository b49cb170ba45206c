"""A model, as it is shown: what its file says, what is set for it, and where each is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from gglib.cli.output import printable, say, size
from gglib.domain.model import Model, ModelDefaults
from gglib.services.intent import DEFAULT_ENGINES, implied_settings
from gglib.services.model_settings import settings_of
from gglib.settings import LoadedSettings
from gglib.settings.key_lines import dotted
from gglib.settings.shown import HIDDEN, without_secret_arguments

__all__ = [
    "count",
    "describe",
    "describe_whole",
    "say_model",
    "settings_and_sources",
    "shown_value",
    "summary",
    "written",
]

_LONG = 200


def summary(model: Model) -> str:
    """Return what a model is, in a few words."""
    facts = model.facts
    words = [
        facts.architecture,
        count(facts.parameters),
        facts.quantization,
        size(model.size_bytes),
    ]
    return ", ".join(word for word in words if word and word != "-")


def count(number: int | None) -> str:
    """Return a number of parameters as people read it."""
    if number is None:
        return "-"
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)


def describe(model: Model) -> dict[str, Any]:
    """Return a model as plain data: what lists have of it."""
    facts = model.facts
    return {
        "id": model.id,
        "name": model.name,
        "aliases": list(model.aliases),
        "tags": list(model.tags),
        "paths": [str(path) for path in model.paths],
        "size_bytes": model.size_bytes,
        "architecture": facts.architecture,
        "quantization": facts.quantization,
        "parameters": facts.parameters,
        "context_length": facts.context_length,
        "layers": facts.layers,
        "embedding_size": facts.embedding_size,
        "capabilities": sorted(facts.capabilities),
        "title": facts.display_name,
        "engine": model.defaults.engine,
        "mmproj_path": None if model.mmproj_path is None else str(model.mmproj_path),
        "profiles": [profile.name for profile in model.profiles],
        "source": model.origin.kind,
        "added_at": model.added_at,
    }


def describe_whole(model: Model, loaded: LoadedSettings) -> dict[str, Any]:
    """Return everything that is known of a model as plain data; no secrets."""
    facts = attrs.asdict(model.facts)
    facts["capabilities"] = sorted(facts["capabilities"])
    marks = model.marks or (None,) * len(model.paths)
    return {
        **describe(model),
        "facts": facts,
        "files": [
            {
                "path": str(path),
                "size_bytes": None if mark is None else mark.size_bytes,
                "modified_at": None if mark is None else mark.mtime_ns / 1e9,
                "sha256": None if mark is None else mark.sha256,
            }
            for path, mark in zip(model.paths, marks, strict=True)
        ],
        "origin": attrs.asdict(model.origin),
        "settings": [
            {"key": key, "value": value, "source": source}
            for key, (value, source) in settings_and_sources(model, loaded).items()
        ],
        "profiles": {profile.name: settings_of(profile) for profile in model.profiles},
    }


def settings_and_sources(model: Model, loaded: LoadedSettings) -> Mapping[str, tuple[Any, str]]:
    """Return what holds for a model beside the engines' own defaults, and where it is from.

    ``model``: set for it by command; ``model file``: follows from what it is, or what lies beside
    it; else as ``gglib config show`` says it.
    """
    settings, sources = loaded.settings, loaded.sources
    found: dict[str, tuple[Any, str]] = {}
    for key, value in settings_of(model.defaults).items():
        source = "model"
        if model.origin.kind == "config":
            source = sources.get(dotted(("models", model.name, key.partition(".")[0])), "file")
        found[key] = (shown_value(key, value), source)
    engine = model.defaults.engine or settings.serving.engine or DEFAULT_ENGINES[0]
    for key, value in implied_settings(model, engine).items():
        found.setdefault(key, (value if isinstance(value, bool) else str(value), "model file"))
    for key, value in settings_of(ModelDefaults(inference=settings.inference)).items():
        found.setdefault(key, (value, sources.get(key, "default")))
    if settings.pool.ttl_s is not None and model.defaults.ttl_s in (None, -1):
        found["ttl_s"] = (settings.pool.ttl_s, sources["pool.ttl_s"])
    return dict(sorted(found.items()))


def say_model(model: Model, loaded: LoadedSettings) -> None:
    """Print everything that is known of a model, for people."""
    facts = model.facts
    experts = None
    if facts.expert_count:
        experts = f"{facts.expert_count}, {facts.expert_used_count or '?'} at a time"
    origin = model.origin
    hub = origin.repository and f"{origin.repository} at {origin.revision or 'an unknown revision'}"
    there = origin.runner and f"the machine of runner {origin.runner}"
    lines: dict[str, Any] = {
        "name": model.name,
        "aliases": ", ".join(model.aliases),
        "tags": ", ".join(model.tags),
        "title": facts.display_name,
        "architecture": facts.architecture,
        "parameters": count(facts.parameters),
        "quantization": facts.quantization,
        "size": size(model.size_bytes),
        "capabilities": ", ".join(sorted(facts.capabilities)),
        "context": facts.context_length,
        "layers": facts.layers,
        "heads": _heads(model),
        "embedding size": facts.embedding_size,
        "vocabulary": facts.vocabulary_size,
        "experts": experts,
        "sliding window": facts.sliding_window,
        "chat template": facts.chat_template and f"{len(facts.chat_template)} characters",
        "source": origin.kind,
        "from": hub or there or None,
        "projector": model.mmproj_path,
    }
    for key, value in lines.items():
        if value not in (None, "", "-"):
            say(f"{key:16} {printable(str(value))[:_LONG]}")
    marks = model.marks or (None,) * len(model.paths)
    for path, mark in zip(model.paths, marks, strict=True):
        digest = f"  sha256 {mark.sha256}" if mark is not None and mark.sha256 else ""
        say(f"{'file':16} {printable(str(path))}{digest}")
    for key, (value, source) in settings_and_sources(model, loaded).items():
        say(f"{'setting':16} {key} = {written(value)} ({source})")
    for profile in model.profiles:
        said = ", ".join(f"{key} = {written(each)}" for key, each in settings_of(profile).items())
        say(f"{'profile':16} {profile.name}: {said or 'nothing set'}")


def _heads(model: Model) -> str | None:
    facts = model.facts
    if facts.heads is None:
        return None
    shared = facts.kv_heads not in (None, facts.heads)
    return f"{facts.heads}, {facts.kv_heads} for keys and values" if shared else str(facts.heads)


def written(value: Any) -> str:
    """Return a setting's value as people write it, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(text)[:_LONG]


def shown_value(key: str, value: Any) -> Any:
    """Return a setting's value without what opens something."""
    if key.startswith("environment."):
        return HIDDEN
    return without_secret_arguments(value) if key == "extra_args" else value
