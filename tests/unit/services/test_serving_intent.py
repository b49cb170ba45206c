"""What a server of a model should be, and by which engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from gglib.domain.device import Device
from gglib.domain.inference import InferenceConfig
from gglib.domain.memory import estimate_memory
from gglib.domain.model import Capability, Model, ModelDefaults, ModelFacts
from gglib.errors import AdapterError, EngineNotFound, InvalidValue
from gglib.ports.context import EngineSet
from gglib.ports.engine import Engine
from gglib.services.intent import bounded_prompt_cache, choose_engine, config_for
from gglib.testing.stub_engine import MissingEngine, StubEngine


@pytest.fixture
def anyio_backend() -> str:
    """Nothing here depends on the loop."""
    return "asyncio"


def model(*capabilities: Capability, **defaults: Any) -> Model:
    """Return a model with those defaults."""
    return Model(
        id=4,
        name="alpha",
        paths=("/m/a-1.gguf", "/m/a-2.gguf"),
        size_bytes=1,
        facts=ModelFacts(capabilities=capabilities),
        defaults=ModelDefaults(**defaults),
    )


def engines(*engines: Engine) -> EngineSet:
    """Return the set of them."""
    return EngineSet({engine.name: engine for engine in engines})


def test_overrides_win_over_the_models_defaults() -> None:
    """What was asked for now changes what is said of the model; the rest stays."""
    sampling = InferenceConfig(temperature=0.5)
    server = {"context_size": 4096, "threads": 2, "environment": {"A": "1"}}
    config = config_for(
        model(server=server, inference=sampling), {"context_size": 512, "port": 9000}, "stub"
    )
    assert (
        config.context_size,
        config.threads,
        config.port,
        config.engine,
    ) == (512, 2, 9000, "stub")
    assert (4, "alpha", Path("/m/a-1.gguf")) == (
        config.model_id,
        config.model_name,
        config.model_path,
    )
    assert (sampling, {"A": "1"}) == (config.inference, dict(config.environment))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ((Capability.EMBEDDING,), (True, None)),
        ((Capability.RERANK,), (True, "rank")),
        ((Capability.CHAT, Capability.EMBEDDING), (False, None)),
        ((), (False, None)),
    ],
)
def test_model_that_only_embeds_is_served_for_that(
    capabilities: tuple[Capability, ...], expected: tuple[bool, str | None]
) -> None:
    """The file's own facts decide, where nobody says."""
    config = config_for(model(*capabilities), {}, "embedded")
    assert expected == (config.embeddings, config.pooling)
    assert not config_for(model(*capabilities), {"embeddings": False}, "embedded").embeddings


def test_engine_of_the_users_is_told_what_is_set_and_no_more() -> None:
    """A command that names nothing else would refuse an embedding model."""
    config = config_for(model(Capability.EMBEDDING), {}, "stub")
    assert (config.embeddings, config.pooling) == (False, None)
    assert config_for(model(Capability.EMBEDDING), {"embeddings": True}, "stub").embeddings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"contxt_size": 1}, "expected 'context_size'"),
        ({"model_path": "/etc/passwd"}, "model_path"),
        ({"context_size": 0}, "context_size is 0"),
    ],
)
def test_wrong_override_is_refused(overrides: dict[str, Any], message: str) -> None:
    """An unknown setting names the nearest; identity cannot be overridden."""
    with pytest.raises(InvalidValue, match=message):
        config_for(model(), overrides, "stub")


def with_context(**server: Any) -> Model:
    """Return a model whose context takes a mebibyte for each 256 tokens."""
    facts = ModelFacts(
        architecture="llama",
        capabilities=(Capability.CHAT,),
        layers=8,
        heads=4,
        kv_heads=4,
        embedding_size=256,
        context_length=8192,
    )
    return attrs.evolve(model(server=server), facts=facts)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({"context_size": 256}, 1),
        ({"context_size": 8192}, 16),
        ({"context_size": 8192, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 9),
        ({"context_size": 2**26}, 1024),
        ({"cache_ram_mib": 5}, 5),
        ({"cache_ram_mib": 0}, 0),
        ({"cache_ram_mib": -1}, -1),
        ({"environment": {"LLAMA_ARG_CACHE_RAM": "7"}}, None),
    ],
)
def test_earlier_prompts_are_bounded_by_a_part_of_the_context(
    server: dict[str, Any], expected: int | None
) -> None:
    """A quarter of it, at most a gibibyte; whoever has said something else has it."""
    found = with_context(**server)
    config = bounded_prompt_cache(found, config_for(found, {}, "stub"))
    assert config.cache_ram_mib == expected


def test_model_without_a_context_keeps_no_prompts() -> None:
    """There is nothing to keep."""
    encoder = attrs.evolve(
        with_context(), facts=ModelFacts(architecture="bert", capabilities=(Capability.EMBEDDING,))
    )
    assert bounded_prompt_cache(encoder, config_for(encoder, {}, "stub")).cache_ram_mib == 0


@pytest.mark.parametrize(("said", "counted_mib"), [(None, 16), (5, 5), (0, 0), (-1, 16)])
def test_earlier_prompts_count_as_memory_that_is_needed(said: int | None, counted_mib: int) -> None:
    """Of the machine's own, wherever the context is."""
    found = with_context(context_size=8192)
    config = config_for(found, {"cache_ram_mib": said}, "stub")
    without = config_for(found, {"cache_ram_mib": 0}, "stub")
    for devices in ((), (Device(name="cuda0", kind="cuda", total_bytes=1, free_bytes=1),)):
        needs = estimate_memory(found, config, devices).needs
        bare = estimate_memory(found, without, devices).needs
        assert needs["cpu"] - bare["cpu"] == counted_mib * 2**20


async def test_engine_asked_for_wins_over_the_models_own() -> None:
    """Asked for, then the model's, then llama-server, then embedded."""
    own, asked = StubEngine("own"), StubEngine("asked")
    found, embedded = StubEngine("llama-server"), StubEngine("embedded")
    there = engines(own, asked, embedded, found)
    assert asked is await choose_engine(there, model(engine="own"), "asked")
    assert own is await choose_engine(there, model(engine="own"), None)
    assert found is await choose_engine(there, model(), None)
    assert embedded is await choose_engine(
        engines(MissingEngine("llama-server"), embedded), model(), None
    )


async def test_default_engine_serves_models_that_name_none() -> None:
    """It is stronger than what is found, and weaker than what a model says; never replaced."""
    own, usual = StubEngine("own"), StubEngine("usual")
    there = engines(own, usual, StubEngine("llama-server"))
    assert usual is await choose_engine(there, model(), None, "usual")
    assert own is await choose_engine(there, model(engine="own"), None, "usual")
    with pytest.raises(EngineNotFound, match="known engines: llama-server, own, usual"):
        await choose_engine(there, model(), None, "warp")


async def test_broken_engine_is_told_to_who_asks_and_passed_over_by_who_does_not() -> None:
    """Where nothing else is left, its reason comes along."""
    broken = {"llama-server": AdapterError("gglib.engines", "llama-server", "half removed")}
    embedded = StubEngine("embedded")
    there = EngineSet({"embedded": embedded}, broken)
    assert embedded is await choose_engine(there, model(), None)
    with pytest.raises(AdapterError, match="half removed"):
        await choose_engine(there, model(), "llama-server")
    with pytest.raises(EngineNotFound, match="half removed"):
        await choose_engine(EngineSet({}, broken), model(), None)


async def test_engine_asked_for_and_missing_is_not_replaced() -> None:
    """Its own error comes out, however many others are there."""
    there = engines(MissingEngine("llama-server"), StubEngine("embedded"))
    with pytest.raises(EngineNotFound, match="not here"):
        await choose_engine(there, model(), "llama-server")


async def test_no_engine_at_all_tells_every_way_to_get_one() -> None:
    """The error is the way out."""
    with pytest.raises(EngineNotFound) as caught:
        await choose_engine(engines(MissingEngine("llama-server")), model(), None)
    text = str(caught.value)
    ways = ("gglib engine install", "gglib[llama]", "on PATH", "GGLIB_LLAMA_SERVER", "command = ")
    for way in ways:
        assert way in text
    assert len(caught.value.ways) == 5
