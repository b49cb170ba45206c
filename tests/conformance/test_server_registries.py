"""Every server registry keeps its port's promises."""

from __future__ import annotations

import pytest
from support.values import fields_at_default

from gglib.testing import ServerRegistryContract
from gglib.testing.contracts.samples import full_record
from gglib.testing.contracts.server_registry import OpenRegistry
from gglib_adapters.catalog.memory import open_memory_registry
from gglib_adapters.catalog.registry import open_sqlite_registry


class TestMemoryRegistry(ServerRegistryContract):
    """Records in a dictionary."""

    shared_by_openings = False

    @pytest.fixture
    def open_registry(self) -> OpenRegistry:
        return open_memory_registry


class TestSqliteRegistry(ServerRegistryContract):
    """Records in the data directory's database."""

    @pytest.fixture
    def open_registry(self) -> OpenRegistry:
        return open_sqlite_registry


def test_full_record_sets_every_field() -> None:
    """A field that a record gets later cannot be forgotten in the contract."""
    record = full_record()
    values = (record, record.owner, record.config, record.handle)
    assert [field for value in values for field in fields_at_default(value)] == []
