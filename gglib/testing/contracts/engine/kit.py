"""How a test opens an engine, and what it asks of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pytest

from gglib.domain.config import LoraAdapter, ServerConfig
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import Contract
from gglib.testing.contracts.samples import SERVER_FIELDS

__all__ = ["INTENTS", "EnginePromises", "OpenEngine"]


#: An engine adapter's factory.
OpenEngine: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[Engine]]

#: Fields that runners and requests see to, or that every engine takes.
_NO_INTENT = frozenset({"base_port", "port", "inference", "environment", "engine", "extra_args"})

#: An intent for every field that an engine expresses or refuses, as changes of a plain
#: configuration. The field itself comes last; what comes before is what it needs to mean
#: anything.
INTENTS: Mapping[str, Mapping[str, Any]] = {
    name: {name: values[0]} for name, values in SERVER_FIELDS.items() if name not in _NO_INTENT
} | {
    "context_size": {"context_size": 8191},
    "threads": {"threads": 3},
    "batch_size": {"batch_size": 512},
    "ubatch_size": {"ubatch_size": 256},
    "parallel": {"parallel": 5},
    "spec_draft_n_max": {"spec_draft_n_max": 4},
    "spec_draft_p_min": {"spec_draft_n_max": 4, "spec_draft_p_min": 0.625},
    "mmproj_path": {"mmproj_path": Path("/m/mmproj.gguf")},
    "lora_adapters": {"lora_adapters": (LoraAdapter("/m/lora.gguf", 0.5),)},
    "slot_save_path": {"slot_save_path": Path("/m/slots")},
}


class EnginePromises(Contract):
    """What the tests of an engine need."""

    present: bool = True
    """Whether the engine is on this machine. Where it is not, most tests are skipped."""

    expressible: ClassVar[Collection[str]] = frozenset()
    """The fields of ``ServerConfig`` that the engine has a way to express. Every other one
    must be refused when it is set. Not counted: what is no matter of engines (ports, the
    environment, sampling) and what every engine takes (model, extra arguments)."""

    required: ClassVar[Mapping[str, Any]] = {}
    """Fields of ``ServerConfig`` that a configuration must set for this engine."""

    needs_probe: bool = True
    """Whether ``command`` needs what ``probe`` finds."""

    @pytest.fixture
    def open_engine(self) -> OpenEngine:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_engine: return your factory")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path, name="under-test")

    @pytest.fixture
    def missing_engine(self) -> OpenEngine | None:
        """Return a factory of the engine as it is where it cannot be found.

        ``None`` = that cannot be arranged here.
        """
        return None

    @pytest.fixture
    def config(self) -> ServerConfig:
        """Return a plain configuration; its model's file need not be there."""
        path = Path("/models/ü 模型/a model.gguf")
        return ServerConfig(model_id=1, model_name="a model", model_path=path, **self.required)

    @pytest.fixture
    async def engine(
        self, open_engine: OpenEngine, context: AdapterContext
    ) -> AsyncIterator[Engine]:
        """Open the engine, and find it."""
        if not self.present:
            pytest.skip("present = False: this engine is not on this machine")
        async with open_engine(context) as engine:
            await engine.probe()
            yield engine
