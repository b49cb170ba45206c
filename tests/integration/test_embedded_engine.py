"""The embedded engine for real: child processes that serve a tiny model."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import httpx
import pytest
from integration.engine_process import DEADLINE_S, KEY, Server, lora
from support.extras import require_embedded_engine

from gglib.domain.config import LoraAdapter, ServerConfig
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib_adapters.engines.embedded_flags import FLAGS
from gglib_adapters.engines.embedded_server import common_params, parse

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def _package() -> None:
    """Skip without the extra, unless the run must have it."""
    require_embedded_engine()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServerConfig:
    """Return a configuration of a real, tiny model."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    path.write_bytes(tiny_gguf())
    return ServerConfig(
        model_id=1, model_name="tiny:1", model_path=path, context_size=1024, threads=1
    )


@pytest.fixture(scope="module")
def server(model: ServerConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for chat and embeddings at once."""
    config = attrs.evolve(model, embeddings=True, pooling="mean")
    with Server(config, tmp_path_factory.mktemp("server")) as running:
        yield running.until_ready()


CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}


def test_a_chat_completion_is_answered(server: Server) -> None:
    """The answer carries the model's name and what it cost."""
    answer = server.client.post("/v1/chat/completions", json=CHAT).json()
    assert answer["model"] == "tiny:1"
    assert answer["usage"]["completion_tokens"] == 6
    assert len(answer["choices"][0]["message"]["content"]) > 0


def test_a_chat_completion_is_streamed(server: Server) -> None:
    """Chunk by chunk, up to [DONE]."""
    with server.client.stream(
        "POST", "/v1/chat/completions", json={**CHAT, "stream": True}
    ) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert sum("content" in chunk["choices"][0]["delta"] for chunk in chunks) >= 6


def test_the_same_server_makes_embeddings(server: Server) -> None:
    """One unit vector per input."""
    answer = server.client.post("/v1/embeddings", json={"input": ["one", "two"]}).json()
    vectors = [item["embedding"] for item in answer["data"]]
    assert [len(vector) for vector in vectors] == [64, 64]
    assert vectors[0] != vectors[1]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_without_the_key_only_health_is_answered(server: Server, headers: dict[str, str]) -> None:
    """The key comes by environment; it is in no argument."""
    base = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=base, headers=headers, trust_env=False) as stranger:
        assert stranger.get("/health").status_code == 200
        assert stranger.post("/v1/chat/completions", json=CHAT).status_code == 401
        assert stranger.get("/slots").status_code == 401
    assert KEY not in " ".join(map(str, server.process.args))  # type: ignore[arg-type]


def test_slots_and_metrics_are_served(server: Server) -> None:
    """What the engine says its servers can do, they do."""
    assert len(server.client.get("/slots").json()) == 4
    assert "llamacpp:" in server.client.get("/metrics").text


def test_the_log_is_in_its_file_while_the_server_runs(server: Server) -> None:
    """Nothing waits in a buffer for the end."""
    assert f"listening on http://127.0.0.1:{server.port}" in server.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_busy_server_at_once(
    model: ServerConfig, tmp_path: Path, number: signal.Signals
) -> None:
    """A stream in flight holds nothing up, and the status is 0."""
    with Server(model, tmp_path) as running:
        running.until_ready()
        endless = {**CHAT, "stream": True, "max_tokens": 100_000}
        with running.client.stream("POST", "/v1/chat/completions", json=endless) as answer:
            next(answer.iter_bytes())
            running.process.send_signal(number)
            assert running.process.wait(1) == 0


def test_a_port_is_free_again_after_the_end(model: ServerConfig, tmp_path: Path) -> None:
    """The next server takes the port of one that has just served."""
    with Server(model, tmp_path) as first:
        first.until_ready().complete()
        first.process.terminate()
        first.process.wait(DEADLINE_S)
    with Server(model, tmp_path, first.port) as second:
        second.until_ready().complete()


def test_a_broken_model_ends_with_status_1_and_the_reason(
    model: ServerConfig, tmp_path: Path
) -> None:
    """The last line names the file and does not look like a lost port."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.model_path.read_bytes()[:100_000])
    with Server(attrs.evolve(model, model_path=broken), tmp_path) as running:
        assert running.process.wait(DEADLINE_S) == 1
        assert f"cannot load {broken}" in running.text().splitlines()[-1]
        assert "not within the file bounds" in running.text()
        assert "bind" not in running.text()


def test_a_busy_port_ends_with_status_1_and_says_bind(model: ServerConfig, tmp_path: Path) -> None:
    """So that a start can be tried on another port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Server(model, tmp_path, port) as running:
            assert running.process.wait(DEADLINE_S) == 1
            # The engine's own threads may have a last word, too.
            assert f"cannot bind 127.0.0.1:{port}" in running.text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--no-such-flag",), "unrecognized arguments: --no-such-flag"),
        (("--ctx-size", str(2**40)), "out of its range"),
        (("--lora-scaled", "x:y"), "out of its range"),
    ],
)
def test_an_extra_argument_it_cannot_take_ends_with_status_2(
    model: ServerConfig, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    """The flag or the value is named."""
    with Server(attrs.evolve(model, extra_args=arguments), tmp_path) as running:
        assert running.process.wait(DEADLINE_S) == 2
        assert reason in running.text()


def test_adapters_at_scale_0_are_loaded_and_applied_by_request_only(
    model: ServerConfig, tmp_path: Path
) -> None:
    """A fresh server answers as the base model; each request chooses. Ids follow the order."""
    adapters = tuple(
        LoraAdapter(lora(tmp_path / name, seed), scale=0)
        for seed, name in enumerate(("one, two.gguf", 'quo"te.gguf'))
    )
    with Server(model, tmp_path) as running:
        base = running.until_ready().complete()["tokens"]
    with Server(attrs.evolve(model, lora_adapters=adapters), tmp_path) as running:
        running.until_ready()
        assert base == running.complete()["tokens"]
        listed = running.client.get("/lora-adapters").json()
        assert [str(adapter.path) for adapter in adapters] == [item["path"] for item in listed]
        first = running.complete(lora=[{"id": 0, "scale": 1.0}])["tokens"]
        second = running.complete(lora=[{"id": 1, "scale": 1.0}])["tokens"]
        assert first != base != second != first
        # Without the explicit zeros, this build would reuse what the adapter computed.
        none = [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}]
        assert base == running.complete(lora=none)["tokens"]
    applied = tuple(attrs.evolve(adapter, scale=index) for index, adapter in enumerate(adapters))
    with Server(attrs.evolve(model, lora_adapters=applied), tmp_path) as running:
        assert second == running.until_ready().complete()["tokens"]


def test_a_saved_slot_survives_a_restart(model: ServerConfig, tmp_path: Path) -> None:
    """A new process reuses what an old one computed."""
    slots = tmp_path / "slots"
    slots.mkdir()
    config = attrs.evolve(model, slot_save_path=slots, parallel=1)
    prompt = "the quick brown fox " * 20
    with Server(config, tmp_path) as running:
        running.until_ready().complete(prompt)
        answer = running.client.post("/slots/0?action=save", json={"filename": "s"})
        assert answer.status_code == 200
    assert (slots / "s").is_file()
    with Server(config, tmp_path) as running:
        running.until_ready()
        running.client.post("/slots/0?action=restore", json={"filename": "s"})
        timings = running.complete(prompt)["timings"]
        assert timings["cache_n"] > 300
        assert timings["prompt_n"] < 10


def test_every_flag_that_has_choices_reaches_the_library() -> None:
    """No word of the table is unknown to the installed xllamacpp."""
    for flag in FLAGS:
        for choice in flag.choices:
            common_params(parse(["--model", "m", flag.spellings[-1], choice]), {})


def test_flags_become_parameters() -> None:
    """A sample of each kind: numbers, texts, switches, words, defaults."""
    line = (
        "--model m --alias a,b --port 5 --ctx-size 512 --threads 3 --seed -1 --no-jinja "
        "--reasoning-budget 0 --spec-type draft-mtp --spec-draft-n-max 2 "
        "--spec-draft-p-min 0.75 --load-mode mmap+mlock --no-slots --metrics --pooling last"
    )
    params = common_params(parse(line.split()), {"LLAMA_API_KEY": "k1,k2"})
    assert params.model.path == "m"
    assert params.model_alias == {"a", "b"}
    assert (params.port, params.n_ctx, params.n_parallel) == (5, 512, -1)
    assert params.cpuparams.n_threads == 3
    assert params.sampling.seed == 2**32 - 1
    assert params.use_jinja is False
    assert params.sampling.reasoning_budget_tokens == 0
    assert [kind.name for kind in params.speculative.types] == ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"]
    assert params.speculative.draft.n_max == 2
    assert params.speculative.draft.p_min == pytest.approx(0.75)
    assert params.load_mode.name == "LLAMA_LOAD_MODE_MMAP_MLOCK"
    assert (params.endpoint_slots, params.endpoint_metrics) == (False, True)
    assert params.pooling_type.name == "LLAMA_POOLING_TYPE_LAST"
    assert params.api_keys == ["k1", "k2"]
    assert params.hostnames == ["127.0.0.1"]
