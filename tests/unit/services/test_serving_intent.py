"""What a server of a model should be, and by which engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Capability, Model, ModelDefaults, ModelFacts
from gglib.errors import AdapterError, EngineNotFound, InvalidValue
from gglib.ports.context import EngineSet
from gglib.ports.engine import Engine
from gglib.services.intent import choose_engine, config_for
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
    config = config_for(model(*capabilities), {}, "stub")
    assert expected == (config.embeddings, config.pooling)
    assert not config_for(model(*capabilities), {"embeddings": False}, "stub").embeddings


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
