"""How a name finds its model."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import model_names

from gglib.domain.model import Model, Profile
from gglib.domain.names import NameIndex
from gglib.errors import AmbiguousModel, ModelNotFound


def model(
    name: str,
    *,
    aliases: tuple[str, ...] = (),
    profiles: tuple[str, ...] = (),
    path: str = "/m/file.gguf",
) -> Model:
    """Return a model."""
    return Model(
        id=0,
        name=name,
        paths=(Path(path),),
        size_bytes=0,
        aliases=aliases,
        profiles=tuple(Profile(name=profile) for profile in profiles),
    )


def resolved(models: list[Model], name: str) -> tuple[str, str | None]:
    """Return the names of the model and the profile that ``name`` means."""
    found = NameIndex(models).resolve(name)
    return found.model.name, found.profile.name if found.profile else None


A_NAME = model("x")
AN_ALIAS = model("b", aliases=("x",))
A_STEM = model("c", path="/m/x.gguf")
A_PROFILE = model("qwen", profiles=("fast", "7b"))


@pytest.mark.parametrize(
    ("models", "name", "expected"),
    [
        ([A_STEM, AN_ALIAS, A_NAME], "x", ("x", None)),
        ([A_STEM, AN_ALIAS], "x", ("b", None)),
        ([A_STEM], "x", ("c", None)),
        ([A_PROFILE], "qwen:fast", ("qwen", "fast")),
        ([A_PROFILE, model("qwen:7b")], "qwen:7b", ("qwen:7b", None)),
        ([A_PROFILE, model("z", aliases=("qwen:7b",))], "qwen:7b", ("z", None)),
        ([A_PROFILE, model("z", path="/m/qwen:fast.gguf")], "qwen:fast", ("qwen", "fast")),
        ([model("q:7b", profiles=("fast",))], "q:7b:fast", ("q:7b", "fast")),
        ([model("b", aliases=("q",), profiles=("fast",))], "q:fast", ("b", "fast")),
        ([model("n", path="/m/q:slow.gguf"), model("q")], "q:slow", ("n", None)),
    ],
)
def test_name_precedes_alias_precedes_profile_precedes_stem(
    models: list[Model], name: str, expected: tuple[str, str | None]
) -> None:
    """The stronger meaning wins, whatever the order of the models."""
    assert resolved(models, name) == expected
    assert resolved(models[::-1], name) == expected


def test_stem_of_two_is_ambiguous() -> None:
    """Two files of one stem are an error that lists both models, sorted."""
    models = [model("b", path="/1/x.gguf"), model("a", path="/2/x.gguf")]
    with pytest.raises(AmbiguousModel) as caught:
        NameIndex(models).resolve("x")
    assert (caught.value.name, caught.value.candidates) == ("x", ("a", "b"))


@pytest.mark.parametrize("name", ["", ":", "qwen:", ":fast", "qwen:unknown", "QWEN", "other"])
def test_name_of_nothing_is_not_found(name: str) -> None:
    """A near miss is a miss: no profile, no case folding, no guess."""
    with pytest.raises(ModelNotFound) as caught:
        NameIndex([A_PROFILE]).resolve(name)
    assert caught.value.name == name


def test_close_names_are_suggested_the_closest_first() -> None:
    """Names and aliases are candidates, whatever their case; three at most."""
    index = NameIndex(
        [model("Qwen3-8B"), model("z", aliases=("qwen3-4b",)), model("llama"), model("qwen"),
         model("qwen3-14b")]
    )  # fmt: skip
    names = index.close_names("qwen3-8b")
    assert names[0] == "Qwen3-8B"
    assert len(names) == 3
    assert "qwen3-4b" in names
    assert index.close_names("zzzzzzzz") == ()


def test_empty_index_knows_nothing() -> None:
    """Without models there is nothing to suggest."""
    with pytest.raises(ModelNotFound) as caught:
        NameIndex([]).resolve("a")
    assert caught.value.close_names == ()


def test_hostile_name_of_megabytes_costs_no_more_than_a_short_one() -> None:
    """A request's name may be as long as its body: no work or message grows with it."""
    index = NameIndex([model(f"model-{number}") for number in range(200)])
    name = "model-" * (1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(ModelNotFound) as caught:
            index.resolve(name)
        message = str(caught.value)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(message) < 500
    assert peak < 3 * len(name)


@given(
    st.text(max_size=20).filter(lambda name: name[:1] != "-"),
    st.lists(model_names, max_size=5, unique=True),
)
def test_text_that_is_no_name_is_not_found(name: str, names: list[str]) -> None:
    """A name resolves to the model of that name, or to nothing."""
    index = NameIndex([model(known, path=f"/-{n}.gguf") for n, known in enumerate(names)])
    if name in names:
        assert index.resolve(name).model.name == name
        return
    with pytest.raises(ModelNotFound) as caught:
        index.resolve(name)
    assert set(caught.value.close_names) <= set(names)
