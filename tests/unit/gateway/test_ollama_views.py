"""Models and what runs, in Ollama's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.gateway import model as make_model
from support.gateway import running_server

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Capability, Model, ModelDefaults, ModelFacts, ModelOrigin
from gglib.gateway.ollama.views import capabilities_of, listed, running, shown
from gglib.services.routing.state import ResidentPhase
from gglib.services.routing.views import ResidentView

pytestmark = pytest.mark.anyio

FACTS = ModelFacts(
    architecture="qwen2",
    quantization="Q4_K_M",
    parameters=7_615_616_512,
    context_length=32768,
    layers=28,
    chat_template="{{ messages }}",
    display_name="Qwen",
    capabilities=frozenset({Capability.CHAT, Capability.COMPLETION, Capability.TOOLS}),
)


@pytest.fixture
def anyio_backend() -> str:
    """One loop will do."""
    return "asyncio"


def qwen(**changes: Any) -> Model:
    """Return a model of which much is known."""
    known = attrs.evolve(make_model(1, "qwen"), facts=FACTS, size_bytes=4_683_073_184, added_at=1e9)
    return attrs.evolve(known, **changes)


def view(model: Model, number: int = 1, **fields: Any) -> ResidentView:
    """Return a server of a model."""
    server = attrs.evolve(running_server(f"server-{number}", model, 1), context_size=4096)
    shown: dict[str, Any] = {"phase": ResidentPhase.READY, "in_flight": 0, "queued": 0}
    return ResidentView(model=model, server=server, **{**shown, **fields})


async def test_model_is_listed_with_what_is_known() -> None:
    """As Ollama's own are."""
    (row,) = (await listed([qwen()]))["models"]
    assert row["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen2",
        "families": ["qwen2"],
        "parameter_size": "7.6B",
        "quantization_level": "Q4_K_M",
    }
    assert (row["name"], row["model"], row["size"]) == ("qwen", "qwen", 4_683_073_184)
    assert row["modified_at"] == "2001-09-09T01:46:40.000000Z"


async def test_digest_is_stable_and_the_files_own_where_known() -> None:
    """Two models of one file are two."""
    rows = (await listed([qwen(), qwen(), qwen(name="other")]))["models"]
    first, again, other = (row["digest"] for row in rows)
    assert first == again != other
    assert len(first) == 64
    hub = qwen(origin=ModelOrigin(kind="hub", sha256="ab" * 32))
    assert (await listed([hub]))["models"][0]["digest"] == "ab" * 32


async def test_declared_model_is_as_old_as_its_file(tmp_path: Path) -> None:
    """Nobody noted when it came; a file that is not there yet is no error."""
    file = tmp_path / "a.gguf"
    file.touch()
    here, gone = qwen(added_at=0, paths=(file,)), qwen(added_at=0)
    recent, oldest = [row["modified_at"] for row in (await listed([here, gone]))["models"]]
    assert datetime.fromisoformat(recent) > datetime.now(UTC) - timedelta(minutes=1)
    assert oldest == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("count", "written"),
    [(None, ""), (115, "115"), (115_392, "115K"), (494_032_768, "494.03M"), (10**12, "1.0T")],
)
async def test_parameters_are_counted_as_people_do(count: int | None, written: str) -> None:
    """In the steps that Ollama has."""
    model = qwen(facts=attrs.evolve(FACTS, parameters=count))
    (row,) = (await listed([model]))["models"]
    assert row["details"]["parameter_size"] == written


async def test_show_tells_settings_template_and_facts() -> None:
    """What is not known is not there."""
    inference = InferenceConfig(temperature=0.7, stop=("a", "b"), max_tokens=5)
    defaults = ModelDefaults(server={"context_size": 8192}, inference=inference)
    answer = await shown(qwen(defaults=defaults))
    assert [line.split() for line in answer["parameters"].splitlines()] == [
        ["num_ctx", "8192"],
        ["temperature", "0.7"],
        ["num_predict", "5"],
        ["stop", "a"],
        ["stop", "b"],
    ]
    assert answer["template"] == "{{ messages }}"
    assert answer["model_info"] == {
        "general.architecture": "qwen2",
        "general.name": "Qwen",
        "general.parameter_count": 7_615_616_512,
        "qwen2.context_length": 32768,
        "qwen2.block_count": 28,
    }
    assert "/models" not in answer["modelfile"], "where files lie is nobody's"


async def test_show_of_a_model_of_which_nothing_is_known() -> None:
    """Served by an engine that reads what we cannot."""
    unknown = Model(id=1, name="x", paths=(Path("/x/model.safetensors"),), size_bytes=0)
    answer = await shown(unknown)
    assert answer["details"]["format"] == "safetensors"
    assert (answer["model_info"], answer["capabilities"]) == ({}, ["completion"])


@pytest.mark.parametrize(
    ("known", "server", "named"),
    [
        ({Capability.CHAT, Capability.REASONING}, {}, ["completion", "thinking"]),
        ({Capability.EMBEDDING}, {}, ["embedding"]),
        ({Capability.CHAT}, {"embeddings": True}, ["completion", "embedding"]),
        ({Capability.CHAT}, {"mmproj_path": "/p.gguf"}, ["completion", "vision"]),
        ({Capability.COMPLETION, Capability.TOOLS}, {}, ["completion", "tools"]),
    ],
)
def test_capabilities_have_ollamas_names(
    known: set[Capability], server: dict[str, Any], named: list[str]
) -> None:
    """What a model is served for counts, too."""
    facts = attrs.evolve(FACTS, capabilities=frozenset(known))
    assert capabilities_of(qwen(facts=facts, defaults=ModelDefaults(server=server))) == named


def test_servers_of_one_model_are_one_row() -> None:
    """Their memory together; it goes when the last of them does."""
    model = qwen()
    views = [
        view(model, 1, memory={"cpu": 100, "cuda0": 200}, ttl_s=300.0, ttl_left_s=60.0),
        view(model, 2, memory={"cuda0": 50}, ttl_s=300.0),
        view(model, 3, phase=ResidentPhase.STARTING),
        view(attrs.evolve(model, id=2, name="other"), 4),
    ]
    first, other = running(views)["models"]
    assert (first["size"], first["size_vram"], first["context_length"]) == (350, 250, 4096)
    left = datetime.fromisoformat(first["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=295) < left <= timedelta(seconds=300)
    assert (other["size"], other["size_vram"]) == (model.size_bytes, 0)
    assert other["expires_at"].startswith("2200-")


@pytest.mark.parametrize("ttl_s", [1e9, 1e12, 9e9])
def test_long_idle_times_are_still_dates(ttl_s: float) -> None:
    """In every client's calendar."""
    (row,) = running([view(qwen(), ttl_s=ttl_s)])["models"]
    assert datetime.fromisoformat(row["expires_at"]).year <= 2200
