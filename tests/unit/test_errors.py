"""The error tree: drawn as it is, and every error fit to be shown and sent."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.errors import ERROR_FIELDS, ERRORS, error_sample

from gglib import errors
from gglib.errors import (
    AmbiguousModel,
    ConfigurationError,
    DatabaseCorrupt,
    EngineNotFound,
    GatewayRunning,
    GglibError,
    InvalidValue,
    ModelNotFound,
    PortInUse,
    StartFailed,
)

LEAVES = [kind for kind in ERRORS if attrs.has(kind)]

#: Fields for programs rather than readers, or said by a stronger one.
SILENT = {
    ("InvalidRequest", "param"),
    ("InvalidRequest", "code"),
    ("HubUnavailable", "retry_after_s"),
    ("StartFailed", "exit_status"),
    ("StartTimeout", "log_tail"),
}
SHOWN = {"available_bytes": "3.0 GiB", "needed_bytes": "7.0 GiB", "log_tail": "last line"}


def drawn() -> list[tuple[str, str]]:
    """Return (class, parent) as the docstring of the module draws them."""
    pairs, stack = [], []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+)", line)
        if match is not None:
            depth = len(match[1]) // 4
            del stack[depth:]
            pairs.append((match[2], stack[-1] if stack else "Exception"))
            stack.append(match[2])
    return pairs


def test_tree_is_drawn_as_it_is() -> None:
    """The docstring lists every class, once, under its parent."""
    assert sorted(drawn()) == sorted((kind.__name__, kind.__bases__[0].__name__) for kind in ERRORS)


def test_every_error_is_exported() -> None:
    """Nobody has to import a private name to catch one."""
    assert sorted(errors.__all__) == sorted(kind.__name__ for kind in ERRORS)


@pytest.mark.parametrize("kind", LEAVES)
def test_error_survives_pickling_with_its_fields(kind: type[Any]) -> None:
    """Errors cross processes."""
    error = error_sample(kind)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert attrs.asdict(back) == attrs.asdict(error)
    assert str(back) == str(error)


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind not in LEAVES])
def test_family_of_errors_survives_pickling(kind: type[Any]) -> None:
    """A family's name is an error too, without fields."""
    assert type(pickle.loads(pickle.dumps(kind()))) is kind


@pytest.mark.parametrize("kind", LEAVES)
def test_message_names_every_field_in_one_line(kind: type[Any]) -> None:
    """Who reads the message alone knows what happened, to which thing."""
    message = str(error_sample(kind))
    assert "\n" not in message
    for field in attrs.fields(kind):
        if (kind.__name__, field.name) in SILENT:
            continue
        value = ERROR_FIELDS[field.name]
        for part in value if isinstance(value, tuple) and field.name != "log_tail" else (value,):
            shown = SHOWN.get(field.name, f"{part:g}" if isinstance(part, float) else str(part))
            assert shown in message


@pytest.mark.parametrize("kind", LEAVES)
def test_message_without_the_optional_fields_is_whole(kind: type[Any]) -> None:
    """What is not known leaves no 'None' and no hole."""
    needed = {
        field.name: ERROR_FIELDS[field.name]
        for field in attrs.fields(kind)
        if field.default is attrs.NOTHING
    }
    message = str(kind(**needed))
    assert "None" not in message
    assert "()" not in message
    assert message == message.strip()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigurationError("wrong", None, 3), "line 3: wrong"),
        (ConfigurationError("wrong", "--port"), "--port: wrong"),
        (AmbiguousModel("a", ("b",)), "'a' could be 'b'; use the full name"),
        (PortInUse(1), "port 1 is in use; choose another with --port"),
        (EngineNotFound("e", "gone"), "engine 'e' not found: gone"),
        (StartFailed("m", None), "model 'm' did not start: the engine ended"),
        (StartFailed("m", 1), "model 'm' did not start: the engine exited with status 1"),
        (StartFailed("m", -9), "model 'm' did not start: the engine was killed by signal 9"),
    ],
)
def test_message_reads_well(error: GglibError, message: str) -> None:
    """Each form of a message is a sentence."""
    assert str(error) == message


def test_message_says_what_to_do_next() -> None:
    """The remedies that exist are in the message."""
    assert "gglib model list" in str(ModelNotFound("a"))
    assert "gglib makes a new one" in str(DatabaseCorrupt(Path("/x"), "damaged"))
    assert "another process" in str(GatewayRunning(Path("/x")))


@pytest.mark.parametrize(
    "error", [InvalidValue("f", "x" * 10_000, "less"), ModelNotFound("\x1b[31m" + "x" * 10_000)]
)
def test_message_stays_short_and_printable(error: GglibError) -> None:
    """A request's megabytes and escape codes do not reach a log or a terminal."""
    assert len(str(error)) < 400
    assert str(error).isprintable()


def test_invalid_value_is_a_value_error() -> None:
    """Code that knows nothing of gglib catches what it expects."""
    assert issubclass(InvalidValue, ValueError)
