"""How a test opens a registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from gglib.ports.context import AdapterContext
from gglib.ports.server_registry import ServerRegistry
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import Contract

__all__ = ["OpenRegistry", "RegistryPromises"]


#: A registry adapter's factory.
OpenRegistry: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[ServerRegistry]]


class RegistryPromises(Contract):
    """What the tests of a registry need."""

    shared_by_openings: bool = True
    """Whether another opening over the same data directory, later or at the same time, has
    the same records. A registry that ends with its object has not."""

    @pytest.fixture
    def open_registry(self) -> OpenRegistry:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_registry: return your factory")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def registry(
        self, open_registry: OpenRegistry, context: AdapterContext
    ) -> AsyncIterator[ServerRegistry]:
        """Open an empty registry."""
        async with open_registry(context) as registry:
            yield registry

    def need_shared_openings(self) -> None:
        """Skip the test for registries that are not shared by openings."""
        if not self.shared_by_openings:
            pytest.skip("shared_by_openings = False: this registry ends with its object")
