"""The model that gglib makes by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from gglib.services.demo.tiny_gguf import tiny_gguf

SERVE_AND_ASK = """
import json, sys, urllib.request
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.port = sys.argv[1], 256, 0
server = xllamacpp.Server(params)
request = urllib.request.Request(
    server.listening_address + "/v1/chat/completions",
    json.dumps({"messages": [{"role": "user", "content": "Grüße"}], "max_tokens": 40}).encode(),
    {"content-type": "application/json"},
)
print(urllib.request.urlopen(request).read().decode())
"""


def test_same_seed_and_name_give_the_same_bytes() -> None:
    """Fixtures made of it are reproducible; another seed or name is another file."""
    assert tiny_gguf(7, name="a") == tiny_gguf(7, name="a")
    assert len({tiny_gguf(7), tiny_gguf(8), tiny_gguf(7, name="a")}) == 3


def test_reference_reader_reads_it_to_the_last_byte(tmp_path: Path) -> None:
    """The reference implementation finds every tensor within the file."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf(name="Tiny 🙂"))
    reader = gguf.GGUFReader(path)
    last = reader.tensors[-1]
    assert last.data_offset + last.n_bytes == path.stat().st_size
    assert len(reader.tensors) == 21
    assert reader.fields["general.name"].contents() == "Tiny 🙂"


@pytest.mark.engine
def test_engine_answers_with_as_many_letters_as_it_may(tmp_path: Path) -> None:
    """A real engine loads it and completes a chat, to the length that was asked for."""
    pytest.importorskip("xllamacpp", reason="needs the extra [llama]")
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf())
    done = subprocess.run(
        [sys.executable, "-c", SERVE_AND_ASK, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    choice = json.loads(done.stdout.splitlines()[-1])["choices"][0]
    text = choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    assert len(text) == 40
    assert set(text) <= set(" abcdefghijklmnopqrstuvwxyz")
