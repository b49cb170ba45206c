"""What two settings differ in: every difference is told, once, and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Profile
from gglib.settings import (
    DeclaredModel,
    GatewaySettings,
    PoolSettings,
    RoutingSettings,
    ServingSettings,
    Settings,
)
from gglib.settings.difference import Difference, difference, while_running

seconds = st.integers(1, 3).map(float)
words = st.sampled_from(["a", "b", "c d"])
few = st.integers(0, 2)


def models() -> st.SearchStrategy[dict[str, DeclaredModel]]:
    """Return up to three models, of which some say something."""
    server = st.dictionaries(st.sampled_from(["context_size", "threads"]), st.integers(1, 2))
    built = st.builds(
        lambda server, **more: DeclaredModel(name="n", path=Path("/m"), server=server, **more),
        server=server,
        ttl_s=st.none() | seconds,
        pinned=st.booleans(),
        aliases=st.just(()) | st.just(("x",)),
        engine=st.none() | words,
    )
    return st.dictionaries(words, built, max_size=3).map(
        lambda found: {name: attrs.evolve(model, name=name) for name, model in found.items()}
    )


tables = st.dictionaries(words, st.dictionaries(words, few, max_size=1), max_size=2)
settings = st.builds(
    Settings,
    data_dir=st.just(Path("/data")),
    gateway=st.builds(
        GatewaySettings,
        host=st.sampled_from(["127.0.0.1", "::1"]),
        port=few,
        queue_limit=few,
        api_keys=st.just(()) | st.just(("k",)),
        keepalive_comment_s=st.none() | seconds,
    ),
    serving=st.builds(ServingSettings, runner=st.sampled_from(["local", "mock"])),
    routing=st.builds(RoutingSettings, planner=st.sampled_from(["count", "memory"])),
    pool=st.builds(PoolSettings, max_size=st.integers(1, 2), warmup=st.just(()) | st.just(("a",))),
    engines=tables,
    runners=tables,
    models=models(),
)


@given(settings)
def test_equal_settings_do_not_differ(one: Settings) -> None:
    """Nothing to do, and false."""
    assert difference(one, attrs.evolve(one)) == Difference()
    assert not difference(one, one)


@given(settings, settings)
def test_settings_that_differ_tell_it_and_both_ways_alike(old: Settings, new: Settings) -> None:
    """A key is told once, whichever is the older."""
    found, back = difference(old, new), difference(new, old)
    assert bool(found) == (old != new)
    assert (set(found.now), set(found.at_next_start)) == (set(back.now), set(back.at_next_start))
    told = [*found.now, *found.at_next_start]
    assert len(told) == len(set(told))


@given(settings, settings)
def test_what_runs_on_has_all_that_can_be_taken_up_and_nothing_else(
    old: Settings, new: Settings
) -> None:
    """What is left to the next start is told again by the next reload, and nothing else is."""
    found = difference(old, new)
    running = while_running(old, new)
    assert difference(old, running) == Difference(now=found.now)
    assert difference(running, new) == Difference(at_next_start=found.at_next_start)


COLD = InferenceConfig(temperature=0.0)
BASE = Settings(
    data_dir=Path("/data"),
    models=MappingProxyType(
        {"q.5": DeclaredModel(name="q.5", path=Path("/q"), server={"threads": 1}, ttl_s=5.0)}
    ),
)


def with_model(**more: Any) -> Settings:
    """Return settings whose model is otherwise."""
    return attrs.evolve(BASE, models={"q.5": attrs.evolve(BASE.models["q.5"], **more)})


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (with_model(ttl_s=6.0), Difference(now=('models."q.5".ttl_s',))),
        (with_model(server={}), Difference(now=('models."q.5".threads',))),
        (with_model(server={"threads": 2}), Difference(now=('models."q.5".threads',))),
        (with_model(set_parameters={"x": 1}), Difference(now=('models."q.5".set',))),
        (with_model(strip_parameters=("x",)), Difference(now=('models."q.5".strip',))),
        (with_model(inference=COLD), Difference(now=('models."q.5".inference',))),
        (with_model(profiles=(Profile(name="p"),)), Difference(now=('models."q.5".profiles',))),
        (attrs.evolve(BASE, inference=COLD), Difference(now=("inference.temperature",))),
        (attrs.evolve(BASE, models={}), Difference(now=('models."q.5"',))),
        (
            attrs.evolve(BASE, engines={"vllm": {"command": "vllm"}}),
            Difference(at_next_start=("engines.vllm",)),
        ),
        (
            attrs.evolve(BASE, gateway=GatewaySettings(port=1, api_keys=("k",), orphans="stop")),
            Difference(
                now=("gateway.api_keys",), at_next_start=("gateway.port", "gateway.orphans")
            ),
        ),
        (
            attrs.evolve(BASE, serving=ServingSettings(engine="x")),
            Difference(at_next_start=("serving.engine",)),
        ),
        (
            attrs.evolve(BASE, routing=RoutingSettings(budgets={"cpu": 1})),
            Difference(now=("routing.budgets",)),
        ),
    ],
)
def test_difference_is_told_as_the_file_writes_it(new: Settings, expected: Difference) -> None:
    """Dotted, with quotes where TOML has them."""
    assert difference(BASE, new) == expected
