"""Every promise of ``Engine``, as a test that its adapters inherit."""

from __future__ import annotations

from gglib.testing.contracts.engine.finding import FindingPromises
from gglib.testing.contracts.engine.kit import INTENTS, OpenEngine
from gglib.testing.contracts.engine.spelling import SpellingPromises

__all__ = ["INTENTS", "EngineContract", "OpenEngine"]


class EngineContract(
    FindingPromises,
    SpellingPromises,
):
    """What every engine keeps.

    Subclass it in a test module under a name that begins with ``Test``, override the fixture
    ``open_engine``, and name the fields of ``ServerConfig`` that your engine can express::

        class TestMyEngine(EngineContract):
            expressible = frozenset({"context_size", "gpu_layers"})

            @pytest.fixture
            def open_engine(self):
                return open_my_engine

    Override ``context`` for an engine with settings, and ``missing_engine`` with a factory
    that cannot find it. Where it is not installed, say ``present = False``.
    """
