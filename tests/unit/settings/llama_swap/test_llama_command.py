"""llama-server's command lines, read back."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from gglib.settings.llama_swap.llama_command import LlamaCommand, read_llama_command


def read(text: str) -> LlamaCommand:
    """Return what a command line of llama-server says."""
    found = read_llama_command(shlex.split(text))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("-c 8192", {"context_size": 8192}),
        ("--ctx-size 0 -np -1 -t -1 -ngl auto", {}),
        ("--N-GPU-LAYERS 99", {"gpu_layers": 99}),
        ("-ngl all", {"extra_args": ["-ngl", "all"]}),
        ("-fa", {"flash_attention": "on"}),
        ("-fa off --jinja", {"flash_attention": "off", "jinja": True}),
        ("--no-jinja --mlock --no-mmap", {"jinja": False, "mlock": True, "mmap": False}),
        ("-ctk q8_0 -ctv q4_0", {"cache_type_k": "q8_0", "cache_type_v": "q4_0"}),
        ("-ctk q9_9", {"extra_args": ["-ctk", "q9_9"]}),
        ("-b 256 -ub 128 -s 1", {"batch_size": 256, "ubatch_size": 128, "seed": 1}),
        ("--embeddings --pooling mean", {"embeddings": True, "pooling": "mean"}),
        ("--lora a.gguf --verbose", {"extra_args": ["--lora", "a.gguf", "--verbose"]}),
        ("--mmproj p.gguf", {"mmproj_path": "p.gguf"}),
        ("--host 0.0.0.0 --port 80 -a me", {}),
        ("-c", {"extra_args": ["-c"]}),
        ("-c many", {"extra_args": ["-c", "many"]}),
    ],
)
def test_flags_become_settings(text: str, server: dict[str, Any]) -> None:
    """What has no setting, or a value that has none, stays an argument, in its order."""
    assert read(f"llama-server {text}").server == server


def test_sampling_is_the_requests() -> None:
    """With us it is no part of a server."""
    found = read("/opt/llama-server-b5 -m m.gguf --temp 0.7 --top-k 40 --top-p 2 -n 5")
    assert found.inference == {"temperature": 0.7, "top_k": 40, "max_tokens": 5}
    assert found.server == {"extra_args": ["--top-p", "2"]}
    assert (found.program, found.model_path) == ("/opt/llama-server-b5", "m.gguf")


@pytest.mark.parametrize("text", ["", "vllm serve x", "/bin/my-llama-server -m x", "docker run a"])
def test_other_programs_are_not_read(text: str) -> None:
    """Their flags mean something else."""
    assert read_llama_command(shlex.split(text)) is None
