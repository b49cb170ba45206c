"""llama-swap's macros, as its users write them."""

from __future__ import annotations

import pytest

from gglib.settings.llama_swap.macros import MacroError, Macros

GROWING = {f"m{number}": f"${{m{number + 1}}}" * 9 for number in range(20)}
MACROS = Macros({"size": 4096, "args": "--ctx ${size}", "on": True}, {"HOME": "/home/ada"})


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("plain", "plain"),
        ("${size}", 4096),
        ("x${size}y", "x4096y"),
        ("${args} -v", "--ctx 4096 -v"),
        ("${env.HOME}/models", "/home/ada/models"),
        ("is ${on}", "is true"),
        ("${PORT} and ${PID}", "${PORT} and ${PID}"),
        ({"a": ["${size}", {"${on}": "${args}"}]}, {"a": [4096, {"True": "--ctx 4096"}]}),
        (None, None),
        (1.5, 1.5),
    ],
)
def test_macros_are_filled_in(said: object, means: object) -> None:
    """In texts, tables and lists; alone, one keeps its type."""
    assert MACROS.expanded(said) == means


def test_inner_definitions_count_wherever_a_macro_is_used() -> None:
    """A model's own value goes into the macros of the whole file, too."""
    assert MACROS.with_({"size": 1}).expanded("${args}") == "--ctx 1"
    assert MACROS.expanded("${args}") == "--ctx 4096"


def test_macros_that_use_each_other_often_are_worked_out_once() -> None:
    """A million times nothing is nothing, at once."""
    levels = {f"m{number}": f"${{m{number + 1}}}" * 10 for number in range(30)}
    assert Macros({**levels, "m30": ""}, {}).expanded("x${m0}") == "x"


@pytest.mark.parametrize(
    ("values", "said", "why"),
    [
        ({}, "${nobody}", "no macro 'nobody'"),
        ({}, "${env.GGLIB_NOT_SET}", "GGLIB_NOT_SET is not set"),
        ({"a": "${b}", "b": "x ${a}"}, "${a}", "uses itself"),
        (
            {f"m{n}": f"${{m{n + 1}}}" * 9 for n in range(20)} | {"m20": "xx"},
            "${m0}",
            "longer than",
        ),
    ],
)
def test_macros_that_mean_nothing_are_refused(
    values: dict[str, object], said: str, why: str
) -> None:
    """Also those that would never end, or grow without bounds."""
    with pytest.raises(MacroError, match=why):
        Macros(values, {}).expanded(said)
