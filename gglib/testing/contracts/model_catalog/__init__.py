"""Every promise of ``ModelCatalog``, as a test that its adapters inherit."""

from __future__ import annotations

from gglib.testing.contracts.model_catalog.editing import EditingPromises
from gglib.testing.contracts.model_catalog.keeping import KeepingPromises
from gglib.testing.contracts.model_catalog.kit import OpenCatalog
from gglib.testing.contracts.model_catalog.naming import NamingPromises
from gglib.testing.contracts.model_catalog.runs import RunPromises
from gglib.testing.contracts.model_catalog.transactions import TransactionPromises

__all__ = ["ModelCatalogContract", "OpenCatalog"]


class ModelCatalogContract(
    EditingPromises,
    KeepingPromises,
    NamingPromises,
    RunPromises,
    TransactionPromises,
):
    """What every model catalog keeps.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    fixture ``open_catalog``::

        class TestMyCatalog(ModelCatalogContract):
            @pytest.fixture
            def open_catalog(self):
                return open_my_catalog

    A catalog with settings overrides ``context`` too; one whose models end with its object
    says ``shared_by_openings = False``, and one that remembers no runs
    ``remembers_runs = False``.
    """
