"""The estimate of a server's memory beside what a real one takes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from integration.engine_process import Server
from support.extras import require_embedded_engine
from support.llama_files import SHAPES, write_llama

from gglib.domain.config import ServerConfig
from gglib.domain.memory import estimate_memory
from gglib.domain.model import Model
from gglib_adapters.process_table import PsutilProcessTable
from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import read_gguf_header

pytestmark = pytest.mark.engine
MIB = 2**20


CONTEXTS = (512, 4096, 16384, 32768)
CACHES = ("f16", "q8_0", "f32")


def as_model(path: Path) -> Model:
    """Return the model in a file."""
    facts = facts_of(read_gguf_header(path))
    return Model(id=1, name="m", paths=[path], size_bytes=path.stat().st_size, facts=facts)


def config_of(model: Model, **values: Any) -> ServerConfig:
    """Return a configuration whose server tells what it reserves."""
    return ServerConfig(
        model_id=1,
        model_name="m",
        model_path=model.path,
        extra_args=["--log-verbosity", "4"],
        **values,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a model of 13 MiB."""
    require_embedded_engine()
    path = tmp_path_factory.mktemp("model") / "m.gguf"
    return as_model(write_llama(path, width=256, feed_forward=768, layers=3))


def reported(log: str, what: str) -> float:
    """Return the MiB that llama.cpp says it has reserved for something."""
    return sum(map(float, re.findall(rf"{what} buffer size = +([\d.]+) MiB", log)))


def check_breakdown(model: Model, folder: Path, **values: Any) -> None:
    """Fail if a part of the estimate is not what the server reports."""
    config = config_of(model, **values)
    with Server(config, folder) as server:
        server.until_ready()
        log = server.text()
    parts = estimate_memory(model, config).parts
    weights, working = reported(log, "model"), reported(log, "compute")
    context = reported(log, "KV") + reported(log, "RS")
    whole = weights + context + working
    told = f"{values}: {parts} beside {weights} + {context} + {working} MiB"
    assert parts.weights_bytes / MIB == pytest.approx(weights, rel=0.01), told
    assert parts.kv_bytes / MIB == pytest.approx(context, rel=0.01, abs=0.01), told
    estimated = (parts.weights_bytes + parts.kv_bytes + parts.compute_bytes) / MIB
    assert abs(estimated - whole) <= max(whole / 10, 16), told
    assert parts.compute_bytes / MIB >= working, told


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("dense", (4096, "f16")),
        ("grouped queries", (512, "q8_0")),
        ("experts", (16384, "f16")),
        ("sliding", (32768, "q8_0")),
        ("recurrent", (16384, "f16")),
        ("hybrid", (32768, "f32")),
    ],
)
def test_each_shape_takes_what_was_estimated(
    tmp_path: Path, shape: str, values: tuple[int, str]
) -> None:
    """Weights and context within 1 %; all of it within 10 % or 16 MiB, never too little."""
    require_embedded_engine()
    of_shape = as_model(SHAPES[shape](tmp_path / "m.gguf"))
    size, cache = values
    check_breakdown(of_shape, tmp_path, context_size=size, cache_type_k=cache, cache_type_v=cache)


@pytest.mark.soak
@pytest.mark.parametrize("shape", SHAPES)
def test_every_context_and_cache_takes_what_was_estimated(tmp_path: Path, shape: str) -> None:
    """As above, for 4 contexts and 3 kinds of cache, and with slots of their own."""
    require_embedded_engine()
    of_shape = as_model(SHAPES[shape](tmp_path / "m.gguf"))
    for size, cache, parallel in itertools.product(CONTEXTS, CACHES, (None, 2)):
        check_breakdown(
            of_shape,
            tmp_path,
            context_size=size,
            cache_type_k=cache,
            cache_type_v=cache,
            parallel=parallel,
        )


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
    config = config_of(model, **values)
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
