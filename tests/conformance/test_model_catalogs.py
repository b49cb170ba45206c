"""Every model catalog keeps its port's promises."""

from __future__ import annotations

import attrs
import pytest
from support.values import fields_at_default

from gglib.domain.inference import InferenceConfig
from gglib.testing import ModelCatalogContract
from gglib.testing.contracts.model_catalog import OpenCatalog
from gglib.testing.contracts.samples import full_model
from gglib_adapters.catalog.memory import open_memory_catalog
from gglib_adapters.catalog.sqlite import open_sqlite_catalog


class TestMemoryCatalog(ModelCatalogContract):
    """Models in a dictionary."""

    shared_by_openings = False

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        return open_memory_catalog


class TestSqliteCatalog(ModelCatalogContract):
    """Models in the data directory's database."""

    @pytest.fixture
    def open_catalog(self) -> OpenCatalog:
        return open_sqlite_catalog


def test_full_model_sets_every_field() -> None:
    """A field that a model gets later cannot be forgotten in the contract."""
    model = full_model()
    values = (model, model.facts, model.defaults, model.origin, *model.profiles)
    assert [field for value in values for field in fields_at_default(value)] == []
    inference = model.profiles[0].inference
    assert len(inference.set_fields()) == len(attrs.fields(InferenceConfig))
