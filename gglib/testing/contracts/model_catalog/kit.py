"""How a test opens a catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from gglib.ports.context import AdapterContext
from gglib.ports.model_catalog import ModelCatalog
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import Contract

__all__ = ["CatalogPromises", "OpenCatalog"]


#: A catalog adapter's factory.
OpenCatalog: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[ModelCatalog]]


class CatalogPromises(Contract):
    """What the tests of a catalog need."""

    shared_by_openings: bool = True
    """Whether another opening over the same data directory, later or at the same time, has
    the same models. A catalog that ends with its object has not."""

    remembers_runs: bool = True
    """Whether it keeps what ``add_run`` tells it."""

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_catalog: return your factory")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def catalog(
        self, open_catalog: OpenCatalog, context: AdapterContext
    ) -> AsyncIterator[ModelCatalog]:
        """Open an empty catalog."""
        async with open_catalog(context) as catalog:
            yield catalog

    def need_runs(self) -> None:
        """Skip the test for catalogs that remember no runs."""
        if not self.remembers_runs:
            pytest.skip("remembers_runs = False: this catalog forgets them")

    def need_shared_openings(self) -> None:
        """Skip the test for catalogs that are not shared by openings."""
        if not self.shared_by_openings:
            pytest.skip("shared_by_openings = False: this catalog ends with its object")
