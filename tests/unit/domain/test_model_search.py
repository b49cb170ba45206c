"""Finding models among many."""

from __future__ import annotations

from typing import Any

import pytest

from gglib.domain.model import Capability, Model, ModelFacts
from gglib.domain.model_search import SORT_KEYS, find_models


def model(name: str, size_bytes: int = 1, **more: Any) -> Model:
    """Return a model; facts by their names."""
    fields = {"aliases", "tags", "added_at"}
    facts = ModelFacts(**{key: value for key, value in more.items() if key not in fields})
    rest = {key: value for key, value in more.items() if key in fields}
    return Model(
        id=0, name=name, paths=[f"/m/{name}-file.gguf"], size_bytes=size_bytes, facts=facts, **rest
    )


CHAT, VISION = Capability.CHAT, Capability.VISION
MODELS = [
    model("b", 20, architecture="llama", parameters=7, context_length=10, added_at=1.0),
    model("C", 30, architecture="qwen2", quantization="Q8_0", capabilities={CHAT, VISION}),
    model("a", 10, architecture="gemma3", parameters=9, tags=("work",), capabilities={CHAT}),
    model("d", 10, aliases=("small",), display_name="Big Thing", added_at=2.0),
]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", ["a", "b", "C", "d"]),
        ("QWEN", ["C"]),
        ("q8 c", ["C"]),
        ("q8 nothing", []),
        ("small", ["d"]),
        ("big thing", ["d"]),
        ("work", ["a"]),
        ("b-file", ["b"]),
    ],
)
def test_every_word_is_looked_for_everywhere(search: str, found: list[str]) -> None:
    """Without regard to case."""
    assert [each.name for each in find_models(MODELS, search=search)] == found


def test_capabilities_and_tags_narrow() -> None:
    """A model has all that is asked for."""
    assert [each.name for each in find_models(MODELS, capabilities=[CHAT])] == ["a", "C"]
    assert [each.name for each in find_models(MODELS, capabilities=[CHAT, VISION])] == ["C"]
    assert [each.name for each in find_models(MODELS, tags=["work"], capabilities=[CHAT])] == ["a"]
    assert find_models(MODELS, tags=["work", "play"]) == []


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", "abCd"),
        ("size", "Cbad"),
        ("added", "dbCa"),
        ("parameters", "abCd"),
        ("context", "bCad"),
        ("architecture", "abCd"),
        ("quantization", "Cabd"),
    ],
)
def test_models_are_sorted_and_the_unknown_come_last(sort: str, order: str) -> None:
    """Equal ones by name; the other way round if wished."""
    assert "".join(each.name for each in find_models(MODELS, sort=sort)) == order
    turned = find_models(MODELS, sort=sort, reverse=True)
    assert "".join(each.name for each in turned) == order[::-1]
    assert sort in SORT_KEYS
