"""The estimate of a server's memory beside what a real one takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from integration.engine_process import Server
from support.extras import require_embedded_engine
from support.llama_files import write_llama

from gglib.domain.config import ServerConfig
from gglib.domain.memory import estimate_memory
from gglib.domain.model import Model
from gglib_adapters.process_table import PsutilProcessTable
from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import read_gguf_header

pytestmark = pytest.mark.engine
MIB = 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a model of 13 MiB."""
    require_embedded_engine()
    path = write_llama(
        tmp_path_factory.mktemp("model") / "m.gguf", width=256, feed_forward=768, layers=3
    )
    facts = facts_of(read_gguf_header(path))
    return Model(id=1, name="m", paths=[path], size_bytes=path.stat().st_size, facts=facts)


def reported(log: str, what: str) -> float:
    """Return the MiB that llama.cpp says it has reserved for something."""
    return sum(map(float, re.findall(rf"{what} buffer size = +([\d.]+) MiB", log)))


@pytest.mark.parametrize(
    "values",
    [
        {"context_size": 8192},
        {"context_size": 16384, "cache_type_k": "q8_0", "cache_type_v": "q4_0", "parallel": 2},
    ],
)
def test_server_takes_what_was_estimated(
    model: Model, tmp_path: Path, values: dict[str, Any]
) -> None:
    """Each part is what llama.cpp reports; the whole is not below what the system sees."""
    config = ServerConfig(
        model_id=1,
        model_name="m",
        model_path=model.path,
        extra_args=["--log-verbosity", "4"],
        **values,
    )
    estimate = estimate_memory(model, config)
    with Server(config, tmp_path) as server:
        server.until_ready().complete("a" * 520)
        observed = PsutilProcessTable().memory_bytes(server.process.pid)
        log = server.text()

    parts = estimate.parts
    assert parts.kv_bytes / MIB == pytest.approx(reported(log, "KV"), abs=0.01)
    assert reported(log, "compute") <= parts.compute_bytes / MIB
    assert parts.compute_bytes / MIB <= reported(log, "compute") * 1.1 + 2
    assert observed is not None
    assert observed <= estimate.total_bytes <= observed * 1.5
