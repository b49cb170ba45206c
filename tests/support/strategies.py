"""Hypothesis strategies for every domain value."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import attrs
from hypothesis import strategies as st

from gglib.domain.config import CACHE_TYPES, LoraAdapter, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import (
    SERVER_DEFAULT_FIELDS,
    Capability,
    Model,
    ModelDefaults,
    ModelFacts,
    ModelOrigin,
    Profile,
)
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState

__all__ = [
    "environments",
    "inference_configs",
    "model_names",
    "models",
    "not_integers",
    "process_handles",
    "server_configs",
    "server_healths",
    "server_records",
    "texts",
]

not_integers = st.one_of(
    st.text(), st.floats(), st.booleans(), st.binary(), st.just([]), st.just({})
)

# JSON carries text without surrogates; the operating system takes it without NUL.
texts = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)
model_names = st.from_regex(r"[A-Za-z0-9äß_][A-Za-z0-9äß_.:+ @-]{0,30}", fullmatch=True).filter(
    lambda name: ".." not in name and name == name.strip()
)
paths = st.builds(Path, texts)
positive = st.integers(1, 2**40)
probabilities = st.floats(0, 1)
times = st.floats(0, 1e11)


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return ``strategy``, or ``None``."""
    return st.none() | strategy


environments = st.dictionaries(
    st.text(
        st.characters(exclude_characters="\0=", exclude_categories=["Cs"]),
        min_size=1,
        max_size=20,
    ),
    texts,
    max_size=3,
)

_NUMBER = {
    "temperature": st.floats(0, 5),
    "dynatemp_range": st.floats(0, 5),
    "dynatemp_exponent": st.floats(0, 5),
    "top_k": st.integers(0, 1000),
    "top_p": probabilities,
    "min_p": probabilities,
    "top_n_sigma": st.floats(-1, 5),
    "xtc_probability": probabilities,
    "xtc_threshold": probabilities,
    "typical_p": probabilities,
    "adaptive_target": st.floats(-1, 1),
    "adaptive_decay": probabilities,
    "repeat_last_n": st.integers(-1, 4096),
    "repeat_penalty": st.floats(0, 5),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "dry_multiplier": st.floats(0, 5),
    "dry_base": st.floats(0, 5),
    "dry_allowed_length": st.integers(0, 100),
    "dry_penalty_last_n": st.integers(-1, 4096),
    "mirostat": st.integers(0, 2),
    "mirostat_tau": st.floats(0, 10),
    "mirostat_eta": st.floats(0, 1),
    "seed": st.integers(-1, 2**31),
    "max_tokens": st.integers(-1, 2**20),
    "n_keep": st.integers(-1, 4096),
    "n_probs": st.integers(0, 20),
    "min_keep": st.integers(0, 20),
    "n_indent": st.integers(0, 20),
    "t_max_predict_ms": positive,
}
_REASONING = st.sampled_from(["none", "deepseek", "deepseek-legacy", "auto"])
_TEXT_TUPLES = st.lists(texts, max_size=3).map(tuple)

inference_configs = st.fixed_dictionaries(
    {},
    optional={
        **_NUMBER,
        "dry_sequence_breakers": _TEXT_TUPLES,
        "stop": _TEXT_TUPLES,
        "samplers": _TEXT_TUPLES,
        "logit_bias": st.dictionaries(texts, st.floats(-100, 100), max_size=3),
        "grammar": texts,
        "ignore_eos": st.booleans(),
        "cache_prompt": st.booleans(),
        "reasoning_format": _REASONING,
    },
).map(lambda values: InferenceConfig(**values))

lora_adapters = st.builds(LoraAdapter, path=paths, scale=st.floats(-100, 100), name=optional(texts))

_SERVER_FIELDS: dict[str, st.SearchStrategy[object]] = {
    "base_port": st.integers(0, 65_535),
    "port": st.integers(1, 65_535),
    "context_size": positive,
    "gpu_layers": st.integers(0, 200),
    "jinja": st.booleans(),
    "reasoning_format": _REASONING,
    "reasoning_budget": st.integers(-1, 10_000),
    "spec_draft_n_max": positive,
    "spec_draft_p_min": probabilities,
    "inference": inference_configs,
    "threads": positive,
    "batch_size": positive,
    "ubatch_size": positive,
    "parallel": positive,
    "seed": st.integers(-1, 2**31),
    "flash_attention": st.sampled_from(["on", "off", "auto"]),
    "mlock": st.booleans(),
    "mmap": st.booleans(),
    "cache_type_k": st.sampled_from(CACHE_TYPES),
    "cache_type_v": st.sampled_from(CACHE_TYPES),
    "embeddings": st.booleans(),
    "pooling": st.sampled_from(["none", "mean", "cls", "last", "rank"]),
    "mmproj_path": paths,
    "lora_adapters": st.lists(lora_adapters, max_size=2).map(tuple),
    "slot_save_path": paths,
    "cache_ram_mib": st.integers(-1, 10_000),
    "environment": environments,
    "engine": texts,
    "extra_args": _TEXT_TUPLES,
}

server_configs = st.fixed_dictionaries(
    {"model_id": st.integers(0, 2**40), "model_name": model_names, "model_path": paths},
    optional=_SERVER_FIELDS,
).map(lambda values: ServerConfig(**values))

_hosts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{1,8}){0,2}", fullmatch=True)
_places = st.builds("{}:{}".format, _hosts, st.integers(1, 65_535))
base_urls = st.one_of(
    st.builds("http://{}".format, _places),
    st.builds("https://{}/v1".format, _places),
    st.text(min_size=1)
    .filter(lambda name: "\0" not in name and not name.endswith("/"))
    .map(lambda name: f"http+unix:///{quote(name, errors='surrogatepass')}"),
)

process_handles = st.builds(
    ProcessHandle,
    model_id=st.integers(0, 2**40),
    model_name=model_names,
    pid=optional(positive),
    port=st.integers(1, 65_535),
    started_at=times,
    server_id=texts,
    runner=texts,
    node=texts,
    base_url=base_urls,
    process_started_at=optional(times),
    ca_file=optional(texts.filter(bool)),
)

server_healths = st.builds(
    ServerHealth,
    healthy=st.booleans(),
    last_check=optional(times),
    context_size=optional(positive),
    message=optional(texts),
    latency_s=optional(times),
    slots_total=optional(positive),
    slots_busy=optional(positive),
    load_progress=optional(probabilities),
)

profiles = st.builds(Profile, name=model_names, inference=inference_configs)

model_facts = st.builds(
    ModelFacts,
    architecture=optional(texts),
    parameters=optional(positive),
    kv_heads=optional(positive),
    chat_template=optional(texts),
    display_name=optional(texts),
    capabilities=st.frozensets(st.sampled_from(Capability)),
)

# Plain data, as a catalog keeps it and a settings file gives it.
server_defaults = st.fixed_dictionaries(
    {},
    optional={
        name: strategy
        for name, strategy in _SERVER_FIELDS.items()
        if name in SERVER_DEFAULT_FIELDS
        and name not in ("lora_adapters", "mmproj_path", "slot_save_path", "extra_args")
    },
)

model_defaults = st.builds(
    ModelDefaults,
    server=server_defaults,
    inference=inference_configs,
    ttl_s=optional(st.floats(-1, 1e6)),
    pinned=st.booleans(),
    priority=st.integers(-10, 10),
    concurrency_limit=optional(positive),
    memory_bytes=optional(positive),
    engine=optional(texts),
    runner=optional(texts),
) | st.builds(ModelDefaults, replicas=st.integers(1, 99), pinned=st.booleans())

models = st.builds(
    Model,
    id=st.integers(0, 2**40),
    name=model_names,
    paths=st.lists(paths, min_size=1, max_size=3).map(tuple),
    size_bytes=st.integers(0, 2**50),
    facts=model_facts,
    aliases=st.lists(model_names, max_size=3).map(tuple),
    tags=_TEXT_TUPLES,
    profiles=st.lists(profiles, max_size=2).map(tuple),
    defaults=model_defaults,
    origin=st.builds(ModelOrigin, kind=texts, sha256=optional(texts)),
    added_at=times,
)

owners = st.builds(
    Owner,
    kind=st.sampled_from(OwnerKind),
    pid=positive,
    process_started_at=times,
    node=texts,
)

server_records = st.builds(
    ServerRecord,
    server_id=texts,
    owner=owners,
    config=server_configs,
    engine=texts,
    runner=texts,
    state=st.sampled_from(ServerState),
    created_at=times,
    handle=optional(process_handles),
    api_key=optional(texts),
    keep_alive=st.booleans(),
)

assert set(_SERVER_FIELDS) == {field.name for field in attrs.fields(ServerConfig)} - {
    "model_id",
    "model_name",
    "model_path",
}, "a field of ServerConfig has no strategy"
