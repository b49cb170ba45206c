"""Expressions of a matrix, beside what they mean by definition."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.settings.llama_swap.matrix import MatrixError, expand_sets

#: A name, or a sign and two of the same.
TREES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["a", "b", "qwen2.5:7b", "org/model-x"]),
    lambda inner: st.tuples(st.sampled_from("&|"), inner, inner),
    max_leaves=8,
)


def written(tree: Any) -> str:
    """Return a tree as an expression."""
    if isinstance(tree, str):
        return tree
    sign, left, right = tree
    return f"({written(left)} {sign} {written(right)})"


def meant(tree: Any) -> list[frozenset[str]]:
    """Return the sets that a tree allows."""
    if isinstance(tree, str):
        return [frozenset({tree})]
    sign, left, right = tree
    if sign == "|":
        return meant(left) + meant(right)
    return [a | b for a, b in product(meant(left), meant(right))]


@given(TREES)
def test_expression_allows_what_it_means(tree: Any) -> None:
    """For every expression, in its order."""
    found = [frozenset(each) for each in expand_sets({"x": written(tree)}, "x")]
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(meant(tree)))


@pytest.mark.parametrize(
    ("expression", "sets"),
    [
        ("L", [("L",)]),
        ("a | b & c", [("a",), ("b", "c")]),
        ("(g|q)&v", [("g", "v"), ("q", "v")]),
        ("+llms & v", [("a", "v"), ("b", "v")]),
        ("a & a", [("a",)]),
    ],
)
def test_expressions_of_its_manual(expression: str, sets: list[tuple[str, ...]]) -> None:
    """``&`` binds more closely than ``|``; ``+`` names another set."""
    assert expand_sets({"llms": "a | b", "x": expression}, "x") == sets


@pytest.mark.parametrize(
    "expression", ["", "a &", "(a", "a)", "a b", "& a", "+x", "+nobody", " & ".join(["(a|b)"] * 40)]
)
def test_expression_that_makes_no_sense_is_refused(expression: str) -> None:
    """Among them those that use themselves, and those that allow too much."""
    names = {f"n{number}": f"m{number} | k{number}" for number in range(20)}
    if expression.count("&") > 10:
        expression = " & ".join(f"+{name}" for name in names)
    with pytest.raises(MatrixError):
        expand_sets({**names, "x": expression}, "x")
