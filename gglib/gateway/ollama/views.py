"""Models and what runs, as Ollama shows them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Any

import anyio

from gglib.domain.device import CPU
from gglib.domain.model import Capability, Model
from gglib.gateway.ollama.answers import (
    LoadedModel,
    ModelDetails,
    RunningModels,
    ShowAnswer,
    TagList,
)
from gglib.gateway.ollama.words import timestamp
from gglib.services.routing.router import ResidentView
from gglib.services.routing.state import ResidentPhase

__all__ = ["capabilities_of", "listed", "running", "shown"]

#: When models go that stay for ever: a date that every client's calendar has.
_NEVER = "2200-01-01T00:00:00.000000Z"
_SCALES = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))
#: In the order in which Ollama names them.
_CAPABILITIES = (
    ("completion", {Capability.CHAT, Capability.COMPLETION}),
    ("embedding", {Capability.EMBEDDING}),
    ("tools", {Capability.TOOLS}),
    ("vision", {Capability.VISION}),
    ("thinking", {Capability.REASONING}),
)
#: What of a model's own sampling parameters has another name there.
_PARAMETERS = {"max_tokens": "num_predict", "n_keep": "num_keep"}


async def listed(models: Iterable[Model]) -> TagList:
    """Return the answer of ``GET /api/tags``."""
    return {
        "models": [
            {
                "name": model.name,
                "model": model.name,
                "modified_at": await _modified_at(model),
                "size": model.size_bytes,
                "digest": _digest(model),
                "details": _details(model),
            }
            for model in models
        ]
    }


def running(views: Iterable[ResidentView]) -> RunningModels:
    """Return the answer of ``GET /api/ps``: of each model in memory, all its servers together."""
    found: dict[int, LoadedModel] = {}
    for view in views:
        if view.phase is not ResidentPhase.READY:
            continue
        model, server = view.model, view.server
        row = found.setdefault(
            model.id,
            {
                "name": model.name,
                "model": model.name,
                "size": 0,
                "digest": _digest(model),
                "details": _details(model),
                "expires_at": "",
                "size_vram": 0,
                "context_length": (server.context_size if server else None) or 0,
            },
        )
        row["size"] += sum(view.memory.values()) or model.size_bytes
        row["size_vram"] += sum(size for name, size in view.memory.items() if name != CPU)
        # Texts of one length and zone: the later is the greater.
        row["expires_at"] = max(row["expires_at"], _expires_at(view))
        row["context_length"] = row["context_length"] or _context_length(model) or 0
    return {"models": list(found.values())}


async def shown(model: Model) -> ShowAnswer:
    """Return the answer of ``POST /api/show``."""
    facts = model.facts
    return {
        "modelfile": f"# gglib serves this model; its settings are gglib's\nFROM {model.name}\n",
        "parameters": _parameters(model),
        "template": facts.chat_template or "{{ .Prompt }}",
        "details": _details(model),
        "model_info": _model_info(model),
        "capabilities": capabilities_of(model),
        "modified_at": await _modified_at(model),
    }


def capabilities_of(model: Model) -> list[str]:
    """Return what a model can do, in Ollama's words. Of one that says nothing: completion."""
    known = set(model.facts.capabilities)
    wish = model.defaults.server
    if wish.get("mmproj_path"):
        known.add(Capability.VISION)
    if wish.get("embeddings"):
        known.add(Capability.EMBEDDING)
    return [name for name, any_of in _CAPABILITIES if known & any_of] or ["completion"]


async def _modified_at(model: Model) -> str:
    """Return when a model came; of one that a file declares, when its own file changed."""
    if model.added_at:
        return timestamp(model.added_at)
    try:
        return timestamp((await anyio.Path(model.path).stat()).st_mtime)
    except OSError:
        return timestamp(0)


def _digest(model: Model) -> str:
    """Return what tells a model from others: its file's own digest, where that is known."""
    if model.origin.sha256:
        return model.origin.sha256
    identity = f"{model.name}\0{model.path}\0{model.size_bytes}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()


def _details(model: Model) -> ModelDetails:
    facts = model.facts
    family = facts.architecture or ""
    is_gguf = facts.architecture is not None or model.path.suffix.lower() == ".gguf"
    return {
        "parent_model": "",
        "format": "gguf" if is_gguf else model.path.suffix.removeprefix("."),
        "family": family,
        "families": [family] if family else [],
        "parameter_size": _human(facts.parameters),
        "quantization_level": facts.quantization or "",
    }


def _human(number: int | None) -> str:
    """Return a number of parameters as Ollama writes it: ``7.6B``, ``494.03M``."""
    if number is None:
        return ""
    for scale, letter in _SCALES:
        if number >= scale:
            digits = {"M": 2, "K": 0}.get(letter, 1)
            return f"{number / scale:.{digits}f}{letter}"
    return str(number)


def _expires_at(view: ResidentView) -> str:
    left_s = view.ttl_s if view.ttl_left_s is None else view.ttl_left_s
    if left_s is None:
        return _NEVER
    # Whoever stays for centuries stays for ever.
    return min(_NEVER, timestamp(min(time.time() + left_s, 7e9)))


def _context_length(model: Model) -> int | None:
    return model.defaults.server.get("context_size") or model.facts.context_length


def _parameters(model: Model) -> str:
    """Return a model's own settings, a line for each, as in a Modelfile."""
    lines = []
    if size := model.defaults.server.get("context_size"):
        lines.append(("num_ctx", size))
    inference = model.defaults.inference
    for name, value in (inference.set_fields() if inference else {}).items():
        several = value if isinstance(value, tuple) else (value,)
        lines += [(_PARAMETERS.get(name, name), each) for each in several]
    return "\n".join(f"{name:<30} {value}" for name, value in lines)


def _model_info(model: Model) -> dict[str, Any]:
    facts = model.facts
    architecture = facts.architecture
    general = {
        "general.architecture": architecture,
        "general.name": facts.display_name,
        "general.parameter_count": facts.parameters,
    }
    own = {
        "context_length": facts.context_length,
        "block_count": facts.layers,
        "embedding_length": facts.embedding_size,
        "feed_forward_length": facts.feed_forward_size,
        "vocab_size": facts.vocabulary_size,
        "expert_count": facts.expert_count,
        "expert_used_count": facts.expert_used_count,
        "attention.head_count": facts.heads,
        "attention.head_count_kv": facts.kv_heads,
        "attention.key_length": facts.key_length,
        "attention.value_length": facts.value_length,
        "attention.sliding_window": facts.sliding_window,
    }
    prefixed = {f"{architecture}.{name}": value for name, value in own.items() if architecture}
    return {name: value for name, value in {**general, **prefixed}.items() if value is not None}
