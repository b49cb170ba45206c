"""A llama-server command line, read back into what it says of a model.

Source: llama-server --help, builds of August 2025 and 11434.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.inference import InferenceConfig
from gglib.errors import InvalidValue

__all__ = ["LlamaCommand", "read_llama_command"]

_PROGRAM = re.compile(r"llama-server[\w.-]*")

#: The spellings of an intent.
_VALUED: Mapping[str, tuple[str, Callable[[str], Any]]] = MappingProxyType(
    {
        spelling: (field, kind)
        for spellings, field, kind in (
            (("-c", "--ctx-size"), "context_size", int),
            (("-ngl", "--gpu-layers", "--n-gpu-layers"), "gpu_layers", int),
            (("-t", "--threads"), "threads", int),
            (("-b", "--batch-size"), "batch_size", int),
            (("-ub", "--ubatch-size"), "ubatch_size", int),
            (("-np", "--parallel"), "parallel", int),
            (("-s", "--seed"), "seed", int),
            (("-ctk", "--cache-type-k"), "cache_type_k", str),
            (("-ctv", "--cache-type-v"), "cache_type_v", str),
            (("--pooling",), "pooling", str),
            (("-mm", "--mmproj"), "mmproj_path", str),
            (("--slot-save-path",), "slot_save_path", str),
            (("--reasoning-format",), "reasoning_format", str),
            (("--reasoning-budget",), "reasoning_budget", int),
            (("-cram", "--cache-ram"), "cache_ram_mib", int),
        )
        for spelling in spellings
    }
)
_SWITCHES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "--jinja": ("jinja", True),
        "--no-jinja": ("jinja", False),
        "--mlock": ("mlock", True),
        "--no-mmap": ("mmap", False),
        "--embedding": ("embeddings", True),
        "--embeddings": ("embeddings", True),
    }
)
#: What a request says with us, not a server.
_SAMPLING: Mapping[str, tuple[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "--temp": ("temperature", float),
        "--temperature": ("temperature", float),
        "--top-k": ("top_k", int),
        "--top-p": ("top_p", float),
        "--min-p": ("min_p", float),
        "--repeat-penalty": ("repeat_penalty", float),
        "--repeat-last-n": ("repeat_last_n", int),
        "--presence-penalty": ("presence_penalty", float),
        "--frequency-penalty": ("frequency_penalty", float),
        "--typical": ("typical_p", float),
        "--top-nsigma": ("top_n_sigma", float),
        "--xtc-probability": ("xtc_probability", float),
        "--xtc-threshold": ("xtc_threshold", float),
        "--dry-multiplier": ("dry_multiplier", float),
        "--dry-base": ("dry_base", float),
        "-n": ("max_tokens", int),
        "--predict": ("max_tokens", int),
        "--n-predict": ("max_tokens", int),
    }
)
#: Ours to say.
_OURS = frozenset({"--host", "--port", "-a", "--alias"})
_FLASH = frozenset({"-fa", "--flash-attn"})
_MODEL = frozenset({"-m", "--model"})
_TAKES_VALUE = _OURS | _MODEL | _VALUED.keys() | _SAMPLING.keys()
#: Of these, a value that says "as you like".
_UNSAID = {"context_size": "0", "parallel": "-1", "threads": "-1", "gpu_layers": "auto"}


@attrs.frozen
class LlamaCommand:
    """What one command line says."""

    program: str
    model_path: str | None
    """``None``: it names no file."""
    port: str | None
    server: Mapping[str, Any]
    """Fields of ``ServerConfig``; ``extra_args`` holds what has no field."""
    inference: Mapping[str, Any]


def read_llama_command(words: Sequence[str]) -> LlamaCommand | None:
    """Return what a command line says, or ``None`` if it does not run a llama-server."""
    if not words or not _PROGRAM.fullmatch(PurePath(words[0].replace("\\", "/")).name):
        return None
    reading = _Reading(list(words[1:]))
    while reading.words:
        reading.take(reading.words.pop(0))
    if reading.extra:
        reading.server["extra_args"] = reading.extra
    return LlamaCommand(
        program=words[0],
        model_path=reading.model_path,
        port=reading.port,
        server=reading.server,
        inference=reading.inference,
    )


@attrs.define
class _Reading:
    words: list[str]
    model_path: str | None = None
    port: str | None = None
    server: dict[str, Any] = attrs.field(factory=dict)
    inference: dict[str, Any] = attrs.field(factory=dict)
    extra: list[str] = attrs.field(factory=list)

    def take(self, word: str) -> None:
        name = word.lower() if word.startswith("--") else word
        if name in _SWITCHES:
            field, value = _SWITCHES[name]
            self.server[field] = value
        elif name in _FLASH:
            # Older ones take no value.
            said = self.words and self.words[0] in {"on", "off", "auto"}
            self.server["flash_attention"] = self.words.pop(0) if said else "on"
        elif not self.words or name not in _TAKES_VALUE:
            self.extra.append(word)
        else:
            self._take_valued(word, name, self.words.pop(0))

    def _take_valued(self, word: str, name: str, value: str) -> None:
        if name in _MODEL:
            self.model_path = value
        elif name == "--port":
            self.port = value
        elif name in _VALUED:
            field, kind = _VALUED[name]
            if _UNSAID.get(field) == value:
                return
            if not _say(self.server, field, kind, value, _server_of):
                self.extra += (word, value)
        elif name in _SAMPLING:
            field, kind = _SAMPLING[name]
            if not _say(self.inference, field, kind, value, InferenceConfig):
                self.extra += (word, value)


def _server_of(**values: Any) -> ServerConfig:
    return ServerConfig(model_id=0, model_name="m", model_path=Path("m"), **values)


def _say(
    said: dict[str, Any],
    field: str,
    kind: Callable[[str], Any],
    text: str,
    check: Callable[..., object],
) -> bool:
    """Note a value, if it is one that we can say."""
    try:
        value = kind(text)
        check(**{field: value})
    except (ValueError, InvalidValue):
        return False
    said[field] = value
    return True
