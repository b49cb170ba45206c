"""Every promise of ``ServerRegistry``, as a test that its adapters inherit."""

from __future__ import annotations

from gglib.testing.contracts.server_registry.keeping import KeepingPromises
from gglib.testing.contracts.server_registry.kit import OpenRegistry
from gglib.testing.contracts.server_registry.transactions import TransactionPromises

__all__ = ["OpenRegistry", "ServerRegistryContract"]


class ServerRegistryContract(
    KeepingPromises,
    TransactionPromises,
):
    """What every server registry keeps.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    fixture ``open_registry``::

        class TestMyRegistry(ServerRegistryContract):
            @pytest.fixture
            def open_registry(self):
                return open_my_registry

    A registry with settings overrides ``context`` too; one whose records end with its object
    says ``shared_by_openings = False``.
    """
