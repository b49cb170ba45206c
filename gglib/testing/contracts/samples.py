"""Values for contracts: plain ones, ones that set every field, and random ones from a seed.

Texts and numbers are chosen to go wrong: other scripts, quotes, line ends, file names that
are no text, the largest integer that databases keep, floats without a short decimal form.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gglib.domain.config import CACHE_TYPES, LoraAdapter, ServerConfig
from gglib.domain.file_mark import FileMark
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Capability, Model, ModelDefaults, ModelFacts, ModelOrigin, Profile
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState

__all__ = [
    "LARGEST",
    "SERVER_FIELDS",
    "full_model",
    "full_record",
    "plain_model",
    "plain_record",
    "random_model",
    "random_record",
    "seeded",
]

#: The largest integer that every database keeps.
LARGEST = 2**63 - 1

_TEXTS = ("plain", "düne 模型 \U0001f999", "'; DROP TABLE models; --", 'line\n\t"two"\\', " ", "0")
_PATHS = ("/m/model.gguf", "/m/ü 模型/a b.gguf", "/m/\udcff\udc80.gguf", "relative/m.gguf", "/")
_NAMES = ("a", "org/qwen2.5:7b", "模型", "0", "x" * 200, "it's", 'a"b', "%_%", "NULL")
_WHOLE = (1, 7, 2**31, 2**53 + 1, LARGEST)
_SHARES = (0.0, 1.0, 0.1 + 0.2, 5e-324, 1 / 3)
_TIMES = (0.0, 1_700_000_000.123456, 1e11, 0.1 + 0.2, 5e-324)
_TEXT_LISTS = ((), ("one",), _TEXTS)
_REASONING = ("none", "deepseek", "deepseek-legacy", "auto")
_BOOLEANS = (True, False)

Choices = Mapping[str, Sequence[Any]]

_INFERENCE: Choices = {
    **dict.fromkeys(
        ("temperature", "dynatemp_range", "dynatemp_exponent", "top_n_sigma", "repeat_penalty"),
        _TIMES,
    ),
    **dict.fromkeys(("dry_multiplier", "dry_base", "mirostat_tau", "mirostat_eta"), _TIMES),
    **dict.fromkeys(("top_p", "min_p", "xtc_probability", "xtc_threshold", "typical_p"), _SHARES),
    **dict.fromkeys(("adaptive_target", "adaptive_decay"), _SHARES),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (*_SHARES, -2.0)),
    **dict.fromkeys(("top_k", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n"), _WHOLE),
    **dict.fromkeys(("mirostat", "seed", "max_tokens", "n_keep", "n_probs", "min_keep"), _WHOLE),
    **dict.fromkeys(("n_indent", "t_max_predict_ms"), _WHOLE),
    **dict.fromkeys(("dry_sequence_breakers", "stop", "samplers"), _TEXT_LISTS),
    "logit_bias": ({"15043": -100.0, "düne": 0.1}, {}),
    "grammar": _TEXTS,
    "ignore_eos": _BOOLEANS,
    "cache_prompt": _BOOLEANS,
    "reasoning_format": _REASONING,
}

_INFERENCES = (
    InferenceConfig(temperature=0.1 + 0.2, stop=(), logit_bias={"1": -0.5}),
    InferenceConfig(),
)

#: Every field of ServerConfig that has a default, with values other than that.
SERVER_FIELDS: Choices = MappingProxyType(
    {
        "base_port": (9000, 65_535),
        "port": (9001, 1),
        **dict.fromkeys(("context_size", "threads", "batch_size", "ubatch_size"), _WHOLE),
        **dict.fromkeys(("parallel", "spec_draft_n_max"), _WHOLE),
        "gpu_layers": (99, 0, LARGEST),
        "jinja": _BOOLEANS,
        "reasoning_format": _REASONING,
        "reasoning_budget": (0, -1, LARGEST),
        "spec_draft_p_min": (0.5, *_SHARES),
        "inference": _INFERENCES,
        "seed": (42, -1, LARGEST),
        "flash_attention": ("on", "off", "auto"),
        "mlock": (True,),
        "mmap": (False,),
        "cache_type_k": CACHE_TYPES,
        "cache_type_v": CACHE_TYPES,
        "embeddings": (True,),
        "pooling": ("mean", "none", "cls", "last", "rank"),
        "mmproj_path": tuple(Path(path) for path in _PATHS),
        "lora_adapters": (
            (LoraAdapter("/m/lora.gguf", 0.5, "tone"),),
            tuple(LoraAdapter(path, 0.1 + 0.2) for path in _PATHS),
        ),
        "slot_save_path": tuple(Path(path) for path in _PATHS),
        "cache_ram_mib": (512, 0, -1, LARGEST),
        "environment": ({"A": "b=c", "GGLIB_SERVER_ID": "x", "düne": "\udcff"}, {"EMPTY": ""}),
        "engine": ("stub", *_TEXTS),
        "extra_args": (("--flag", "ü", "", "\udcff"), _TEXTS),
    }
)

_FACTS: Choices = {
    **dict.fromkeys(("architecture", "quantization", "chat_template", "display_name"), _TEXTS),
    **dict.fromkeys(("parameters", "context_length", "layers", "heads", "kv_heads"), _WHOLE),
    **dict.fromkeys(("embedding_size", "expert_count", "expert_used_count"), _WHOLE),
    "vocabulary_size": _WHOLE,
    **dict.fromkeys(("feed_forward_size", "key_length", "value_length", "kv_heads_total"), _WHOLE),
    **dict.fromkeys(("sliding_window", "sliding_layers", "recurrent_layers"), _WHOLE),
    **dict.fromkeys(("recurrent_state_size", "input_bytes", "output_bytes"), _WHOLE),
    "capabilities": (frozenset(Capability), frozenset({Capability.CHAT}), frozenset()),
}

#: What models and profiles change in requests: whatever JSON can say.
_CHANGES: Choices = {
    "set_parameters": (
        {"x": 1, "ü": [None, True, {"a": 0.1}], "chat_template_kwargs": {"enable_thinking": False}},
        {},
    ),
    "strip_parameters": (("top_k", "ü"), ()),
}

_DEFAULTS: Choices = {
    # Plain data: what a settings file can say.
    "server": (
        {
            "context_size": LARGEST,
            "mmap": False,
            "environment": {"A": "ü"},
            "extra_args": ["", "x"],
        },
        {"spec_draft_p_min": 0.1 + 0.2, "mmproj_path": "/m/\udcff.gguf"},
        {},
    ),
    "inference": _INFERENCES,
    "ttl_s": (30.5, -1.0, 0.0, 1e11),
    "pinned": (True,),
    "priority": (-1000, 1000, 1),
    "concurrency_limit": _WHOLE,
    "memory_bytes": _WHOLE,
    "engine": _TEXTS,
    "runner": _TEXTS,
    "replicas": (2, LARGEST),
    **_CHANGES,
}

_ORIGIN: Choices = {
    "kind": ("hub", *_TEXTS),
    "repository": _TEXTS,
    "revision": _TEXTS,
    "sha256": _TEXTS,
    "fetched": (True,),
    "branch": _TEXTS,
    "runner": _TEXTS,
}

_MARKS = (
    FileMark(size_bytes=LARGEST, mtime_ns=-1, sha256="0f" * 32),
    FileMark(size_bytes=0, mtime_ns=1_700_000_000_123_456_789),
)

_HANDLE: Choices = {
    "model_id": (0, *_WHOLE),
    "model_name": _NAMES,
    "pid": (None, *_WHOLE),
    "port": (65_535, 1),
    "started_at": _TIMES,
    "runner": _TEXTS,
    "node": _TEXTS,
    "base_url": (
        "http://127.0.0.1:9000",
        "http+unix:///a b/s.sock",
        "http+unix:///%FF/\u00e9.sock",
        "https://[::1]:8443/v1",
    ),
    "process_started_at": (None, *_TIMES),
    "ca_file": (None, *_TEXTS),
}

_OWNER: Choices = {
    "kind": tuple(OwnerKind),
    "pid": (0, *_WHOLE),
    "process_started_at": _TIMES,
    "node": _TEXTS,
}

Pick = Callable[[Choices], dict[str, Any]]


def _first(choices: Choices) -> dict[str, Any]:
    return {name: values[0] for name, values in choices.items()}


def seeded(seed: int) -> random.Random:
    """Return a source of random values that are the same in every run."""
    return random.Random(seed)  # noqa: S311 - for variety, not for secrecy


def _some(source: random.Random, *, chance: float = 0.5) -> Pick:
    def pick(choices: Choices) -> dict[str, Any]:
        return {
            name: source.choice(values)
            for name, values in choices.items()
            if source.random() < chance
        }

    return pick


def _model_fields(pick: Pick) -> dict[str, Any]:
    # Aliases are unique in a catalog, so a contract says which.
    paths = pick({"paths": (_PATHS, _PATHS[:1])})
    of_each = tuple(_MARKS[number % 2] for number in range(len(paths.get("paths", "1"))))
    return {
        **paths,
        **pick({"marks": (of_each, ()), "mmproj_path": tuple(map(Path, _PATHS))}),
        "facts": ModelFacts(**pick(_FACTS)),
        "defaults": ModelDefaults(**pick(_DEFAULTS)),
        "origin": ModelOrigin(**pick(_ORIGIN)),
        **pick(
            {
                "size_bytes": (LARGEST, 0),
                "tags": (_TEXTS, ()),
                "profiles": (
                    (
                        Profile(
                            name="cold",
                            inference=InferenceConfig(**pick(_INFERENCE)),
                            **pick(_CHANGES),
                        ),
                    ),
                    (),
                ),
                "added_at": _TIMES[1:],
            }
        ),
    }


def _record_fields(server_id: str, pick: Pick, whole: Pick) -> dict[str, Any]:
    must: dict[str, Any] = {"model_id": 1, "model_name": "qwen", "model_path": _PATHS[2]}
    config = ServerConfig(**must | pick(SERVER_FIELDS))
    handle = ProcessHandle(server_id=server_id, **whole(_HANDLE))
    return {
        "config": config,
        "owner": Owner(**whole(_OWNER)),
        **pick(
            {
                "engine": _TEXTS,
                "runner": _TEXTS,
                "state": (ServerState.READY, *ServerState),
                "created_at": _TIMES[1:],
                "handle": (handle, None),
                "api_key": ("secret", *_TEXTS, None),
                "keep_alive": (True, False),
            }
        ),
    }


def plain_model(name: str = "qwen", **changes: Any) -> Model:
    """Return a model of that name, with what a model must have."""
    fields: dict[str, Any] = {"id": 0, "name": name, "paths": [f"/m/{name}.gguf"], "size_bytes": 7}
    return Model(**fields | changes)


def full_model(name: str = "org/qwen2.5:7b", **changes: Any) -> Model:
    """Return a model that sets every field."""
    return plain_model(name, **{"aliases": ("small", "模型"), **_model_fields(_first)} | changes)


def random_model(source: random.Random, name: str) -> Model:
    """Return a model whose fields are set at random, without aliases."""
    return plain_model(name, **_model_fields(_some(source)))


def plain_record(**changes: Any) -> ServerRecord:
    """Return a record as it is before its server's spawn, of a server of its own."""
    fields: dict[str, Any] = {
        "server_id": new_server_id(),
        "owner": Owner(kind=OwnerKind.GATEWAY, pid=4711, process_started_at=12.25, node="here"),
        "config": ServerConfig(model_id=1, model_name="qwen", model_path="/m/qwen.gguf"),
        "engine": "llama-server",
        "runner": "local",
        "state": ServerState.STARTING,
        "created_at": 1_700_000_000.5,
    }
    return ServerRecord(**fields | changes)


def full_record(**changes: Any) -> ServerRecord:
    """Return a record that sets every field, its handle's and its configuration's too."""
    server_id = changes.get("server_id") or new_server_id()
    fields = _record_fields(server_id, _first, _first)
    # The first choice of a handle's optional fields is none.
    handle = ProcessHandle(
        server_id=server_id,
        **_first(_HANDLE) | {"pid": 4242, "process_started_at": 0.1 + 0.2, "ca_file": "/ca.pem"},
    )
    return plain_record(**fields | {"server_id": server_id, "handle": handle} | changes)


def random_record(source: random.Random) -> ServerRecord:
    """Return a record whose fields are set at random."""
    server_id = new_server_id()
    fields = _record_fields(server_id, _some(source), _some(source, chance=1.0))
    return plain_record(server_id=server_id, **fields)
