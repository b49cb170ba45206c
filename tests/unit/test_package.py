"""``import gglib``: light, and every name is there when it is used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import gglib
from gglib.library import open_library


def python(code: str) -> str:
    """Run code in a bare interpreter, and return what it prints."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=bare
    )
    return done.stdout.strip()


def test_import_brings_nothing_of_weight() -> None:
    """What is not used is not paid for."""
    heavy = {
        "sqlalchemy",
        "anyio",
        "attrs",
        "httpx",
        "cyclopts",
        "litestar",
        "structlog",
        "uvicorn",
    }
    code = f"import gglib, sys; dir(gglib); print(sorted({heavy!r} & set(sys.modules)))"
    assert python(code) == "[]"


@pytest.mark.parametrize("name", gglib.__all__)
def test_name_resolves_when_it_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also as the first thing that is asked of the package."""
    if name != "__version__":
        monkeypatch.delitem(vars(gglib), name, raising=False)
    assert getattr(gglib, name) is not None
    assert name in vars(gglib), "the second use costs nothing"


def test_errors_may_be_the_first_thing_asked_for() -> None:
    """A module, not a name in one."""
    assert python("import gglib; print(gglib.errors.__name__)") == "gglib.errors"


def test_names_are_listed() -> None:
    """For people at a prompt, and for those who complete."""
    assert set(gglib.__all__) <= set(dir(gglib))
    assert sorted(gglib.__all__) == list(gglib.__all__)
    assert gglib.open is open_library


def test_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'gglib' has no attribute 'opne'"):
        gglib.opne
    with pytest.raises(ImportError):
        exec("from gglib import opne")
