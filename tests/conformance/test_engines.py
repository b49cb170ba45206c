"""Every engine keeps its port's promises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from gglib.ports.context import AdapterContext
from gglib.testing import EngineContract, make_context
from gglib.testing.contracts.engine import INTENTS, OpenEngine
from gglib_adapters.engines.command import open_command_engine
from gglib_adapters.engines.embedded import open_embedded_engine
from gglib_adapters.engines.llama_server import open_llama_server_engine

GOLDEN = Path(__file__).parents[1] / "unit" / "engines" / "golden"


def with_settings(factory: OpenEngine, **settings: Any) -> OpenEngine:
    """Return ``factory``, given these settings instead of its context's."""
    return lambda context: factory(attrs.evolve(context, settings=settings))


def llama_server(folder: Path, help_text: str) -> Path:
    """Write a program that answers as a llama-server does."""
    path = folder / "llama-server"
    path.write_text(f"#!/bin/sh\ncase \"$1\" in\n--help) cat '{GOLDEN / help_text}' ;;\nesac\n")
    path.chmod(0o755)
    return path


class TestNewLlamaServer(EngineContract):
    """llama.cpp's server of today."""

    expressible = frozenset(INTENTS)
    help_text = "help-new.txt"

    @pytest.fixture
    def open_engine(self) -> OpenEngine:
        return open_llama_server_engine

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        path = llama_server(tmp_path, self.help_text)
        return make_context(tmp_path, name="llama", settings={"path": str(path)})

    @pytest.fixture
    def missing_engine(self) -> OpenEngine:
        return with_settings(open_llama_server_engine, path="/no/such/llama-server")


class TestOldLlamaServer(TestNewLlamaServer):
    """One of August 2025: it cannot draft, and keeps no prompts in memory."""

    backends = ("asyncio",)
    expressible = frozenset(INTENTS) - {"spec_draft_n_max", "spec_draft_p_min", "cache_ram_mib"}
    help_text = "help-old.txt"


class TestEmbeddedEngine(EngineContract):
    """llama.cpp out of a wheel; the package is found, never imported."""

    expressible = INTENTS

    @pytest.fixture
    def open_engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenEngine:
        package = tmp_path / "xllamacpp"
        package.mkdir()
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
        return open_embedded_engine

    @pytest.fixture
    def missing_engine(self, monkeypatch: pytest.MonkeyPatch) -> OpenEngine:
        # In sys.modules, None says that there is no such module, wherever it may be.
        monkeypatch.setitem(sys.modules, "xllamacpp", None)
        return open_embedded_engine


class TestCommandEngine(EngineContract):
    """A template that names all there is to name, and a server of the shell's."""

    expressible = frozenset({"context_size"})
    required = {"context_size": 4096}
    needs_probe = False

    @pytest.fixture
    def open_engine(self) -> OpenEngine:
        return open_command_engine

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        settings = {
            "command": [
                "sh",
                "{model_path}",
                "--at={host}:{port}",
                "{model_name}",
                "",
                "{{",
                "{context_size}",
            ],
            "environment": {"A": "{port}"},
            "health_path": "/v1/models",
            "health_status": [200, 401],
            "working_directory": str(tmp_path),
            "api_key_variable": "VLLM_API_KEY",
        }
        return make_context(tmp_path, name="stub", settings=settings)

    @pytest.fixture
    def missing_engine(self) -> OpenEngine:
        return with_settings(open_command_engine, command=["/no/such/program", "{port}"])


class TestSmallestCommandEngine(TestCommandEngine):
    """A template that names the port alone."""

    backends = ("asyncio",)
    expressible = frozenset()
    required = {}

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        return make_context(tmp_path, name="small", settings={"command": "sh {port}"})
