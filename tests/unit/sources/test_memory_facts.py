"""What a file says of the memory that its context will take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import U32, pair, text_pair, write_model

from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import read_gguf_header
from gglib_adapters.sources.memory_facts import memory_facts


def facts(architecture: str = "a", **metadata: Any) -> dict[str, int | None]:
    """Return what is known, of keys with ``__`` for a point."""
    keys = {f"{architecture}.{key.replace('__', '.')}": value for key, value in metadata.items()}
    found = memory_facts(architecture, keys)
    return {name: value for name, value in found.items() if value is not None}


def test_plain_model_has_its_lengths() -> None:
    """Keys and values need not be as long as the embeddings say."""
    found = facts(attention__key_length=128, attention__value_length=64, feed_forward_length=100)
    assert found == {"key_length": 128, "value_length": 64, "feed_forward_size": 100}


@pytest.mark.parametrize(
    ("architecture", "pattern", "sliding"),
    [
        ("gemma3", None, 10),
        ("gpt-oss", None, 6),
        ("a", None, None),
        ("a", 4, 9),
        ("a", (True, False) * 6, 6),
        ("a", (True, False), None),
    ],
)
def test_sliding_layers_are_counted_where_they_are_known(
    architecture: str, pattern: Any, sliding: int | None
) -> None:
    """By the file, or by what is fixed for its architecture."""
    keys = {"block_count": 12, "attention__sliding_window": 512}
    if pattern is not None:
        keys["attention__sliding_window_pattern"] = pattern
    assert facts(architecture, **keys).get("sliding_layers") == sliding


def test_hybrid_model_has_attention_in_some_layers() -> None:
    """Layers without KV heads are recurrent; their state is counted in elements."""
    found = facts(
        block_count=4,
        attention__head_count_kv=(0, 8, 0, 4),
        ssm__conv_kernel=4,
        ssm__inner_size=64,
        ssm__state_size=16,
        ssm__group_count=2,
    )
    assert (found["kv_heads_total"], found["recurrent_layers"]) == (12, 2)
    assert found["recurrent_state_size"] == 3 * (64 + 2 * 2 * 16) + 64 * 16


def test_every_so_many_layers_have_attention() -> None:
    """As an interval says."""
    found = facts(
        block_count=48,
        full_attention_interval=4,
        attention__head_count_kv=2,
        ssm__inner_size=64,
        ssm__state_size=16,
    )
    assert (found["kv_heads_total"], found["recurrent_layers"]) == (24, 36)


@pytest.mark.parametrize(
    ("keys", "state"),
    [
        ({"wkv__head_size": 64, "embedding_length": 100}, 6600),
        ({"shortconv__l_cache": 3, "embedding_length": 100}, 200),
    ],
)
def test_other_recurrent_models_have_a_state(keys: dict[str, int], state: int) -> None:
    """Of all layers, where the file tells no more."""
    found = facts(block_count=8, **keys)
    assert (found["recurrent_layers"], found["recurrent_state_size"]) == (8, state)


def test_mixture_has_the_width_that_one_token_passes() -> None:
    """Its experts together, and the shared one."""
    experts = {"expert_used_count": 4, "expert_feed_forward_length": 10}
    assert facts(feed_forward_length=30, **experts)["feed_forward_size"] == 40
    shared = {**experts, "expert_shared_feed_forward_length": 5}
    assert facts(**shared)["feed_forward_size"] == 45


def test_model_that_ends_in_its_embeddings_has_no_output_layer(tmp_path: Path) -> None:
    """Of shards, whichever has it; unknown where the file names nothing of it."""
    pairs = [pair("llama.block_count", U32, (1).to_bytes(4, "little")), text_pair("x", "y")]
    tied = facts_of(read_gguf_header(write_model(tmp_path / "tied.gguf", pairs=pairs)))
    assert (tied.input_bytes, tied.output_bytes) == (4, 0)
    names = ("blk.0.x", "output.weight")
    last = read_gguf_header(write_model(tmp_path / "last.gguf", names=names))
    assert facts_of(last).input_bytes is None
    first = read_gguf_header(write_model(tmp_path / "first.gguf"))
    assert facts_of(first, last.tensors).output_bytes == 4


_VALUES = st.one_of(
    st.integers(),
    st.booleans(),
    st.floats(),
    st.text(),
    st.tuples(st.integers(), st.booleans()),
    st.lists(st.integers(-1, 3), max_size=4).map(tuple),
)
_KEYS = (
    "block_count",
    "embedding_length",
    "full_attention_interval",
    "attention.head_count_kv",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.conv_kernel",
    "ssm.group_count",
    "wkv.head_size",
    "shortconv.l_cache",
    "expert_used_count",
    "feed_forward_length",
)


@given(st.dictionaries(st.sampled_from([f"a.{key}" for key in _KEYS]), _VALUES))
def test_hostile_metadata_gives_counts_or_nothing(metadata: dict[str, Any]) -> None:
    """Numbers that the database can keep, and none below zero."""
    for value in memory_facts("a", metadata).values():
        assert value is None or 0 <= value < 2**63
