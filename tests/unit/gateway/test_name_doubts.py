"""Names of models in the settings that are nobody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gglib.domain.model import Model, ModelFacts, Profile
from gglib.gateway.name_doubts import name_doubts
from gglib.settings import PoolSettings, RoutingSettings, Settings

MODELS = [
    Model(
        id=number,
        name=name,
        paths=(Path(f"/m/{name}-file.gguf"),),
        size_bytes=1,
        facts=ModelFacts(),
        aliases=(f"{name}-alias",),
        profiles=(Profile(name="cold"),),
    )
    for number, name in enumerate(("qwen", "llama"), 1)
]


def doubted(*, warmup: tuple[str, ...] = (), **routing: Any) -> list[str]:
    """Return what is doubted of these settings."""
    settings = Settings(
        data_dir=Path("/nowhere"),
        routing=RoutingSettings(**routing),
        pool=PoolSettings(warmup=warmup),
    )
    return [str(doubt) for doubt in name_doubts(settings, MODELS)]


def test_names_of_models_are_not_doubted() -> None:
    """The warm-up may use any name that a request may."""
    assert (
        doubted(
            planner="groups",
            groups={"g": {"members": ["qwen"]}},
            matrix={"sets": [["llama", "qwen"]], "costs": {"qwen": 2}},
            warmup=("qwen", "llama-alias", "qwen:cold", "llama-file"),
        )
        == []
    )


@pytest.mark.parametrize(
    ("routing", "key"),
    [
        ({"groups": {"g.h": {"members": ["qwne"]}}}, 'routing.groups."g.h".members'),
        ({"matrix": {"sets": [["qwen"], ["qwne"]]}}, "routing.matrix.sets"),
        ({"matrix": {"sets": [["qwen"]], "costs": {"qwne": 1}}}, "routing.matrix.costs"),
        ({"warmup": ("qwne",)}, "pool.warmup"),
    ],
)
def test_name_that_nobody_has_is_told_with_close_ones(routing: dict[str, Any], key: str) -> None:
    """And where it stands."""
    (said,) = doubted(**routing)
    assert said.startswith(f"{key} names 'qwne': there is no such model; did you mean 'qwen'")


def test_name_like_none_says_what_it_means() -> None:
    """It may come later."""
    (said,) = doubted(warmup=("zzz",))
    assert said.endswith("there is no such model, and it means nothing until there is")


def test_planners_do_not_know_aliases() -> None:
    """It would be in no group, silently."""
    (said,) = doubted(groups={"g": {"members": ["qwen-alias"]}})
    assert said.endswith("that is another name of 'qwen', and only that one counts here")
