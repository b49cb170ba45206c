"""The estimate of a server's memory: its rules, and numbers that llama.cpp has told."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.compute_buffer import compute_buffer_bytes
from gglib.domain.config import CACHE_TYPES, LoraAdapter, ServerConfig
from gglib.domain.device import Device
from gglib.domain.kv_cache import CACHE_TYPE_BYTES, kv_cache
from gglib.domain.memory import (
    DEFAULT_CONTEXT_SIZE,
    GPU_CONTEXT_BYTES,
    MemoryEstimate,
    estimate_memory,
)
from gglib.domain.model import Capability, Model, ModelDefaults, ModelFacts

MIB, GIB = 2**20, 2**30

#: The model of the measurements: 8 layers, 16 heads, 4 of them for keys and values.
FACTS = ModelFacts(
    architecture="llama",
    layers=8,
    heads=16,
    kv_heads=4,
    embedding_size=1024,
    feed_forward_size=2816,
    vocabulary_size=32000,
    context_length=32768,
    input_bytes=65_536_000,
    output_bytes=65_536_000,
    capabilities=frozenset({Capability.COMPLETION}),
)


def model(size_bytes: int = 297 * MIB, facts: ModelFacts = FACTS, **defaults: Any) -> Model:
    """Return a model of that size."""
    return Model(
        id=1,
        name="m",
        paths=["/m"],
        size_bytes=size_bytes,
        facts=facts,
        defaults=ModelDefaults(**defaults),
    )


def config(**values: Any) -> ServerConfig:
    """Return a configuration."""
    return ServerConfig(model_id=1, model_name="m", model_path="/m", **values)


def gpu(number: int = 0, free_bytes: int = 8 * GIB) -> Device:
    """Return a GPU."""
    return Device(name=f"cuda{number}", kind="cuda", total_bytes=16 * GIB, free_bytes=free_bytes)


def estimate(size_bytes: int = 297 * MIB, facts: ModelFacts = FACTS, **values: Any) -> Any:
    """Return the estimate on a machine without GPUs."""
    return estimate_memory(model(size_bytes, facts), config(**values))


@pytest.mark.parametrize(
    ("values", "kv_mib"),
    [
        ({"context_size": 2048}, 16),
        ({"context_size": 32768}, 256),
        ({}, 256),
        ({"context_size": 32768, "cache_type_k": "f32", "cache_type_v": "f32"}, 512),
        ({"context_size": 32768, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 136),
        ({"context_size": 4096, "cache_type_k": "q8_0", "cache_type_v": "q4_0"}, 13),
        ({"context_size": 8192, "parallel": 3}, 66),
        ({"context_size": 8192, "parallel": 1}, 64),
        ({"context_size": 1}, 2),
    ],
)
def test_context_takes_what_llama_cpp_reports(values: dict[str, Any], kv_mib: int) -> None:
    """To the byte, for every kind of cache; of slots that were asked for, each rounds up."""
    assert estimate(**values).parts.kv_bytes == kv_mib * MIB


@pytest.mark.parametrize(
    ("values", "reported_mib"),
    [
        ({"context_size": 2048}, 28.52),
        ({"context_size": 32768}, 58.52),
        ({"context_size": 8192, "flash_attention": "off"}, 285.01),
        ({"context_size": 4096, "ubatch_size": 2048}, 122.1),
        ({"context_size": 32768, "cache_type_k": "f32", "parallel": 1}, 60.02),
        ({"context_size": 32768, "cache_type_k": "f32", "cache_type_v": "f32"}, 76.02),
    ],
)
def test_working_memory_is_close_to_what_llama_cpp_reports(
    values: dict[str, Any], reported_mib: float
) -> None:
    """Not below it, and at the most a twentieth and two mebibytes above."""
    found = estimate(**values).parts.compute_bytes / MIB
    assert reported_mib <= found <= reported_mib * 1.05 + 2


def test_sliding_layers_have_cells_for_their_windows() -> None:
    """The measured model of gemma3's kind: 12 layers, 10 of them with a window of 512."""
    facts = attrs.evolve(
        FACTS,
        layers=12,
        heads=12,
        key_length=64,
        value_length=64,
        sliding_window=512,
        sliding_layers=10,
    )
    assert estimate(facts=facts, context_size=32768).parts.kv_bytes == 89 * MIB
    full = estimate(facts=facts, context_size=32768, extra_args=["--swa-full"])
    assert full.parts.kv_bytes == 32768 * 12 * 4 * 128 * 2
    unknown = attrs.evolve(facts, sliding_layers=None)
    assert estimate(facts=unknown, context_size=32768).parts.kv_bytes == full.parts.kv_bytes


def test_hybrid_model_has_a_cache_in_some_layers_and_a_state_in_the_others() -> None:
    """One state per slot, however long the context."""
    facts = attrs.evolve(FACTS, kv_heads_total=8, recurrent_layers=6, recurrent_state_size=1000)
    found = estimate(facts=facts, context_size=1024)
    assert found.parts.kv_bytes == 1024 * 8 * 128 * 2 + 6 * 1000 * 4 * 4
    pure = attrs.evolve(facts, kv_heads_total=None, heads=None, kv_heads=None)
    assert estimate(facts=pure, context_size=1024).parts.kv_bytes == 6 * 1000 * 4 * 4


def test_every_cache_type_has_its_size() -> None:
    """None is missed when llama.cpp learns another."""
    assert set(CACHE_TYPE_BYTES) == set(CACHE_TYPES)


def test_encoder_has_no_context_and_no_logits() -> None:
    """BERT and its family."""
    facts = attrs.evolve(FACTS, architecture="bert", capabilities=frozenset({Capability.EMBEDDING}))
    found = estimate(facts=facts, embeddings=True)
    assert found.parts.kv_bytes == 0
    decoder = attrs.evolve(facts, architecture="qwen3")
    assert estimate(facts=decoder, embeddings=True).total_bytes > found.total_bytes + 62 * MIB


def test_files_beside_the_model_count() -> None:
    """A projector has room for an image too."""
    plain = estimate().total_bytes
    both = estimate_memory(
        model(),
        config(mmproj_path="/p", lora_adapters=[LoraAdapter("/l")]),
        projector_bytes=GIB,
        adapter_bytes=MIB,
    )
    assert both.total_bytes == plain + GIB + 512 * MIB + MIB


def test_drafting_has_a_layer_of_context_and_working_memory_of_its_own() -> None:
    """For models that draft for themselves."""
    plain, drafting = estimate(context_size=8192), estimate(context_size=8192, spec_draft_n_max=2)
    assert drafting.parts.kv_bytes == plain.parts.kv_bytes * 9 // 8
    assert drafting.parts.compute_bytes == plain.parts.compute_bytes * 2


def test_model_that_says_nothing_has_an_estimate() -> None:
    """Its file, the default context, and the process."""
    found = estimate(facts=ModelFacts())
    assert found.context_size == DEFAULT_CONTEXT_SIZE
    assert found.parts.weights_bytes == 297 * MIB
    assert (found.layers, found.gpu_layers) == (2, 0)


def test_stated_memory_overrides_the_formula() -> None:
    """To the byte, on however many devices; the GPU has its share."""
    stated = model(memory_bytes=2_000_000_001)
    found = estimate_memory(stated, config())
    assert (dict(found.needs), found.source) == ({"cpu": 2_000_000_001}, "stated")
    split = estimate_memory(stated, config(), [gpu(0), gpu(1)])
    assert split.total_bytes == 2_000_000_001
    assert split.needs["cuda0"] > split.needs["cpu"] > 0


def test_all_layers_on_a_gpu_leave_the_embeddings_behind() -> None:
    """The machine's memory has them, what goes in and out of a batch, and the process."""
    found = estimate_memory(model(), config(context_size=8192), [gpu()])
    on_gpu, on_cpu = found.devices["cuda0"], found.devices["cpu"]
    assert (found.gpu_layers, found.layers) == (9, 9)
    assert on_cpu.weights_bytes == FACTS.input_bytes
    assert (on_cpu.kv_bytes, on_gpu.kv_bytes) == (0, 64 * MIB)
    assert on_gpu.other_bytes == GPU_CONTEXT_BYTES
    assert on_cpu.compute_bytes < on_gpu.compute_bytes


def test_output_layer_that_uses_the_embeddings_is_copied_to_the_gpu() -> None:
    """The one case in which weights are there twice."""
    tied = model(facts=attrs.evolve(FACTS, output_bytes=0))
    found = estimate_memory(tied, config(), [gpu()])
    assert found.parts.weights_bytes == 297 * MIB + FACTS.input_bytes


def test_no_layers_on_gpus_leave_them_alone() -> None:
    """Zero is CPU only."""
    found = estimate_memory(model(), config(gpu_layers=0), [gpu()])
    assert set(found.needs) == {"cpu"}


HOSTILE = st.one_of(st.none(), st.integers(-5, 300), st.integers(-(2**70), 2**70))
NUMBERS = [
    field.name
    for field in attrs.fields(ModelFacts)
    if field.default is None and field.type == "int | None"
]
ANY_FACTS = st.fixed_dictionaries({}, optional=dict.fromkeys(NUMBERS, HOSTILE)).map(
    lambda values: ModelFacts(**values)
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "context_size": st.integers(1, 2**40),
        "parallel": st.integers(1, 1000),
        "ubatch_size": st.integers(1, 2**20),
        "batch_size": st.integers(1, 2**20),
        "gpu_layers": st.integers(0, 200),
        "cache_type_k": st.sampled_from(CACHE_TYPES),
        "cache_type_v": st.sampled_from(CACHE_TYPES),
        "flash_attention": st.sampled_from(["on", "off", "auto"]),
        "embeddings": st.booleans(),
        "spec_draft_n_max": st.integers(1, 10),
    },
)
GPUS = st.lists(st.integers(0, 16 * GIB), max_size=4).map(
    lambda free: [gpu(number, each) for number, each in enumerate(free)]
)
SIZES = st.integers(0, 2**63 - 1)


@given(SIZES, ANY_FACTS, CONFIGS, GPUS)
def test_hostile_facts_give_sizes_that_can_be_kept(
    size_bytes: int, facts: ModelFacts, values: dict[str, Any], gpus: list[Device]
) -> None:
    """Whole numbers of 63 bits in every part, none below zero; the file at the least."""
    found = estimate_memory(model(size_bytes, facts), config(**values), gpus)
    for parts in found.devices.values():
        for value in attrs.astuple(parts):
            assert isinstance(value, int)
            assert 0 <= value < 2**63
    assert found.total_bytes >= size_bytes
    assert 0 <= found.gpu_layers <= found.layers
    assert "cpu" in found.needs


@given(SIZES, CONFIGS, GPUS, st.integers(1, 200), st.booleans())
def test_split_parts_sum_to_the_whole(
    size_bytes: int, values: dict[str, Any], gpus: list[Device], layers: int, tied: bool
) -> None:
    """However many layers go where: weights and context are there once."""
    facts = attrs.evolve(FACTS, layers=layers, output_bytes=0 if tied else 77)
    whole = estimate_memory(model(size_bytes, facts), config(**values))
    split = estimate_memory(model(size_bytes, facts), config(**values), gpus)
    copied = min(FACTS.input_bytes or 0, size_bytes) if tied and split.gpu_layers else 0
    assert whole.parts.weights_bytes == size_bytes
    expected = min(size_bytes + copied, 2**63 - 1)
    for part, total in (("weights_bytes", expected), ("kv_bytes", whole.parts.kv_bytes)):
        # Each GPU's share is rounded up.
        assert 0 <= getattr(split.parts, part) - total < max(1, len(gpus))


@given(ANY_FACTS, CONFIGS, st.integers(1, 2**30), st.integers(1, 2**30), GPUS)
def test_larger_context_never_needs_less(
    facts: ModelFacts, values: dict[str, Any], one: int, other: int, gpus: list[Device]
) -> None:
    """On any device."""
    small, large = (
        estimate_memory(model(facts=facts), config(**{**values, "context_size": size}), gpus)
        for size in sorted((one, other))
    )
    assert all(large.needs[name] >= needed for name, needed in small.needs.items())


@given(CONFIGS, st.integers(0, 8), GPUS.filter(bool))
def test_another_layer_on_gpus_moves_memory_there(
    values: dict[str, Any], layers: int, gpus: list[Device]
) -> None:
    """More on GPUs, and no more weights and context in the machine's memory."""

    def with_layers(count: int) -> MemoryEstimate:
        return estimate_memory(model(), config(**{**values, "gpu_layers": count}), gpus)

    fewer, more = with_layers(layers), with_layers(layers + 1)
    for device in gpus:
        assert more.needs[device.name] >= fewer.needs.get(device.name, 0)
    for part in ("weights_bytes", "kv_bytes"):
        assert getattr(more.devices["cpu"], part) <= getattr(fewer.devices["cpu"], part)


@given(st.sampled_from(CACHE_TYPES), st.sampled_from(CACHE_TYPES), st.integers(1, 2**20))
def test_cache_type_is_exact(type_k: str, type_v: str, context_size: int) -> None:
    """A block of 32 elements has a whole number of bytes."""
    cache = kv_cache(
        FACTS,
        context_size=context_size,
        slots=1,
        unified=False,
        ubatch_size=512,
        cache_type_k=type_k,
        cache_type_v=type_v,
    )
    per_block = sum(CACHE_TYPE_BYTES[each] * 32 for each in (type_k, type_v))
    assert cache.attention_bytes == cache.cells * 8 * 4 * 2 * per_block
    assert cache.cells - 256 < context_size <= cache.cells


def test_logits_of_every_token_count_for_embeddings() -> None:
    """A vocabulary is wider than any layer."""
    facts = attrs.evolve(FACTS, vocabulary_size=128_000)
    few, many = (
        compute_buffer_bytes(
            facts, ubatch_size=512, cells=1024, outputs=outputs, flash_attention=True
        )
        for outputs in (4, 512)
    )
    assert many - few > 200 * MIB
