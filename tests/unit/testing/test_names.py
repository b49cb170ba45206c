"""The public names of ports and kit: light, resolved on use, and on the page that lists them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import gglib.ports
import gglib.testing
from gglib.plugins import GROUPS

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "ports.md").read_text()


@pytest.mark.parametrize("module", [gglib.ports, gglib.testing])
def test_every_name_resolves_and_is_listed(module: ModuleType) -> None:
    """In order; an unknown one is an AttributeError, as of any module."""
    names: list[str] = module.__all__
    assert sorted(names) == names
    assert set(names) <= set(dir(module))
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Prots'"):
        module.Prots  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", ["gglib.ports", "gglib.testing", "gglib.testing.pytest_plugin"])
def test_import_brings_nothing_of_weight(module: str) -> None:
    """Above all the plugin, which every run of pytest in the environment loads."""
    heavy = {"anyio", "attrs", "httpx", "litestar", "psutil", "sqlalchemy", "structlog", "uvicorn"}
    code = f"import {module}, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ports_page_has_every_port_with_its_contract_and_group() -> None:
    """And every capability that the contracts know."""
    contracts = [name for name in gglib.testing.__all__ if name.endswith("Contract")]
    for name in contracts:
        assert f"`{name}`" in PAGE
        assert f"`{name.removesuffix('Contract')}`" in PAGE
        kit = getattr(gglib.testing, name)
        for parent in kit.__mro__:
            for attribute in getattr(parent, "__annotations__", {}):
                if not attribute.startswith("_") and parent.__name__ != "Contract":
                    assert f"`{attribute}" in PAGE, (name, attribute)
    for group in GROUPS:
        assert f"`{group}`" in PAGE
