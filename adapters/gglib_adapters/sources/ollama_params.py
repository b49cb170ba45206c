"""The parameters that Ollama keeps for a model, as gglib says them.

Source: Ollama 0.9, api/types.go (Options, Runner) and docs/modelfile.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gglib.domain.config import ServerConfig
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import ModelDefaults
from gglib.errors import InvalidValue

__all__ = ["defaults_of"]

_INFERENCE = {
    **{
        name: name
        for name in (
            "temperature",
            "top_k",
            "top_p",
            "min_p",
            "typical_p",
            "repeat_last_n",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
            "mirostat",
            "mirostat_tau",
            "mirostat_eta",
            "seed",
            "stop",
        )
    },
    "num_keep": "n_keep",
    "num_predict": "max_tokens",
}
_SERVER = {
    "num_ctx": "context_size",
    "num_batch": "batch_size",
    "num_gpu": "gpu_layers",
    "num_thread": "threads",
    "use_mmap": "mmap",
    "use_mlock": "mlock",
}
#: Values by which Ollama leaves a choice to the engine, as if nothing were said.
_UNSAID = {"num_gpu": (-1,), "num_thread": (0,), "num_predict": (-1, -2)}
_SHOWN = 60


def defaults_of(params: Mapping[str, Any]) -> tuple[ModelDefaults, tuple[str, ...]]:
    """Return what ``params`` come to, and what of them has no place, with the reason."""
    server: dict[str, Any] = {}
    inference: dict[str, Any] = {}
    left_out: list[str] = []
    for name, said in params.items():
        value = int(said) if isinstance(said, float) and said.is_integer() else said
        if value is None or value in _UNSAID.get(name, ()):
            continue
        place, check, ours = _place(name, server, inference)
        if ours is None:
            left_out.append(f"parameter {name[:_SHOWN]!r}: gglib has none like it")
            continue
        try:
            check({ours: value})
        except InvalidValue as error:
            left_out.append(f"parameter {name!r}: {str(value)[:_SHOWN]!r} is not {error.expected}")
        else:
            place[ours] = value
    told = InferenceConfig(**inference) if inference else None
    return ModelDefaults(server=server, inference=told), tuple(left_out)


def _place(
    name: str, server: dict[str, Any], inference: dict[str, Any]
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], object], str | None]:
    if name in _SERVER:
        return server, _check_server, _SERVER[name]
    return inference, lambda said: InferenceConfig(**said), _INFERENCE.get(name)


def _check_server(said: dict[str, Any]) -> object:
    return ServerConfig(model_id=0, model_name="x", model_path=Path("x"), **said)
