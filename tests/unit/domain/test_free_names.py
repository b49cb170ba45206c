"""Names for models that come without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import model_names

from gglib.domain.free_names import FreeNames, appearance
from gglib.domain.model import Model


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Qwen", "qwen"),
        ("qwen", "qw\N{CYRILLIC SMALL LETTER IE}n"),
        ("alpha", "\N{GREEK SMALL LETTER ALPHA}lph\N{CYRILLIC SMALL LETTER A}"),
        ("qwen 2", "qwen_2"),
        ("qwen-2", "qwen\N{EN DASH}2"),
        ("cafe", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("qwen", "\N{FULLWIDTH LATIN SMALL LETTER Q}wen"),
        ("model", "mode1"),
    ],
)
def test_look_alikes_appear_the_same(one: str, other: str) -> None:
    """Who asks for one must not get the other."""
    assert appearance(one) == appearance(other)


def test_names_that_differ_appear_different() -> None:
    """Versions and sizes are what people look at."""
    names = ["qwen2.5-7b", "qwen2.5-7b-q4", "qwen25-7b", "qwen3-7b", "llama"]
    assert len({appearance(name) for name in names}) == len(names)


def test_taken_name_gets_its_folder_then_a_number() -> None:
    """The folder says most; a number always ends it."""
    names = FreeNames(["Model"])
    assert names.choose("model", "qwen") == "qwen-model"
    assert names.choose("model", "qwen") == "model-2"
    assert names.choose("model", "") == "model-3"
    assert names.choose("x" * 200, "y") == "x" * 200
    assert names.choose("x" * 200, "y") == "x" * 198 + "-2"


@given(st.lists(st.tuples(model_names, st.text("ab/. -", max_size=3)), max_size=8))
def test_chosen_names_are_valid_and_look_unlike(wanted: list[tuple[str, str]]) -> None:
    """Whatever was asked for, and however often."""
    names = FreeNames(())
    chosen = [names.choose(name, folder.strip("/. -")) for name, folder in wanted]
    assert len({appearance(name) for name in chosen}) == len(chosen)
    for name in chosen:
        Model(id=0, name=name, paths=(Path("m"),), size_bytes=0)
