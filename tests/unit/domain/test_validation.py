"""Validators accept exactly their range, and say the field, the value and the range."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import not_integers

from gglib.domain.validation import (
    at_least,
    between,
    flag,
    model_name,
    number_at_least,
    one_of,
    positive,
    text,
    texts,
)
from gglib.errors import InvalidValue

ATTRIBUTE = SimpleNamespace(name="some_field")


def accepts(validator: Callable[[Any, Any, Any], None], value: object) -> bool:
    """Return whether ``value`` passes; a refusal must name field, value and range."""
    try:
        validator(None, ATTRIBUTE, value)
    except InvalidValue as error:
        check_refusal(error)
        return False
    return True


def check_refusal(error: InvalidValue) -> None:
    """Check that ``error`` says everything."""
    assert error.field == "some_field"
    assert error.expected
    assert str(error).startswith("some_field is ")
    assert str(error).endswith(f"; expected {error.expected}")


@given(st.integers(), st.integers(), st.integers())
def test_between_accepts_its_closed_interval(low: int, high: int, value: int) -> None:
    """Both ends belong to it."""
    assert accepts(between(low, high), value) == (low <= value <= high)


@given(st.integers(), st.integers())
def test_at_least_accepts_its_bound_and_above(low: int, value: int) -> None:
    """The bound belongs to it."""
    assert accepts(at_least(low), value) == (value >= low)


@given(not_integers)
def test_integer_validators_refuse_everything_else(value: object) -> None:
    """A truth, a fraction or a text is no integer, even if Python would add it up."""
    assert not accepts(between(-10, 10), value)
    assert not accepts(at_least(-10), value)
    assert not accepts(positive, value)


@given(st.floats(-5, 5), st.floats(-5, 5), st.none() | st.floats(-5, 5), st.booleans())
def test_number_accepts_its_range(
    value: float, low: float, high: float | None, exclusive: bool
) -> None:
    """From the bound, or above it, up to the other, when there is one."""
    expected = value >= low and (high is None or value <= high) and not (exclusive and value == low)
    assert accepts(number_at_least(low, high, exclusive=exclusive), value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", b"1", [], 1j])
def test_number_refuses_what_is_not_finite_or_no_number(value: object) -> None:
    """Infinities and the like break JSON and arithmetic."""
    assert not accepts(number_at_least(-1e308), value)


@pytest.mark.parametrize(
    ("validator", "part"),
    [
        (number_at_least(0, 1), "a number from 0 to 1"),
        (number_at_least(0), "a number of at least 0"),
        (number_at_least(0, exclusive=True), "a number above 0"),
        (between(1, 9), "an integer from 1 to 9"),
        (at_least(3), "an integer of 3 or more"),
        (one_of(None, "on", "off"), "one of on, off"),
        (flag(), "true or false"),
        (text(), "a text without NUL characters"),
        (texts(), "a list of texts"),
    ],
)
def test_refusal_says_what_would_be_right(validator: Any, part: str) -> None:
    """The range is in the message, in words."""
    with pytest.raises(InvalidValue) as caught:
        validator(None, ATTRIBUTE, -7.5)
    assert str(caught.value) == f"some_field is -7.5; expected {part}"


@pytest.mark.parametrize(
    ("optional", "required"),
    [
        (between(0, 1), between(0, 1, optional=False)),
        (at_least(0), at_least(0, optional=False)),
        (number_at_least(0), number_at_least(0, optional=False)),
        (text(), text(optional=False)),
        (flag(), flag(optional=False)),
        (one_of(None, "a"), one_of("a")),
    ],
)
def test_nothing_is_accepted_only_where_it_is_optional(optional: Any, required: Any) -> None:
    """``None`` means "not said", where a field allows that."""
    assert accepts(optional, None)
    assert not accepts(required, None)


@given(st.text())
def test_text_refuses_nul_and_emptiness(value: str) -> None:
    """What the system's calls cannot carry is refused; emptiness only unless allowed."""
    assert accepts(text(), value) == (value != "" and "\0" not in value)
    assert accepts(text(empty=True), value) == ("\0" not in value)
    assert accepts(texts(), (value,)) == (value != "" and "\0" not in value)
    assert accepts(texts(empty=True), (value,)) == ("\0" not in value)


@pytest.mark.parametrize("value", [5, b"a", ["a"], True])
def test_text_refuses_other_types(value: object) -> None:
    """Only a text is a text."""
    assert not accepts(text(), value)
    assert not accepts(texts(), value)
    assert not accepts(texts(), (value,))


@pytest.mark.parametrize("value", [0, 1, "true", "", [], 1.0])
def test_flag_refuses_what_merely_looks_true(value: object) -> None:
    """The text "false" would be true."""
    assert accepts(flag(), True)
    assert accepts(flag(), False)
    assert not accepts(flag(), value)


@pytest.mark.parametrize(
    "name", ["a", "qwen2.5:7b", "Größe", "a/b", "base+lora", "x" * 200, "a b", "_", "0"]
)
def test_usual_name_is_accepted(name: str) -> None:
    """Names as people and repositories give them."""
    assert accepts(model_name, name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 201, "-a", ".a", "/a", "a/", "a//b", "a/../b", "..", "a\\b", " a", "a ", "a\n",
     "a\0", "a\x1b[0m", "\ud800", "\u202ea", 5, None, b"a"],
)  # fmt: skip
def test_dangerous_name_is_refused(name: object) -> None:
    """Nothing that is an option, a hidden file, a way out of a folder, or invisible."""
    assert not accepts(model_name, name)


@given(st.text())
def test_accepted_name_stays_in_its_folder(name: str) -> None:
    """No accepted name leads out of a folder it is joined to."""
    if accepts(model_name, name):
        assert not name.startswith(("/", "-", "."))
        assert ".." not in name
        assert name == name.strip()
        assert name.isprintable()
