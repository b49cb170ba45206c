"""The how-to for Ollama's clients, followed with a real gateway on a port of its own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home, Served
from support.extras import require_curl, require_embedded_engine
from support.pages import ROOT, blocks_of

from gglib.services.demo.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine

PAGE = ROOT / "docs" / "how-to" / "use-ollama-clients.md"
ADDRESS = "http://127.0.0.1:11434"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway before the model that the page talks of."""
    require_embedded_engine()
    home = Home.make(tmp_path_factory.mktemp("real"))
    home.configure('[models.tiny]\npath = "tiny.gguf"\ncontext_size = 64\nthreads = 1\n')
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    with home.serve() as served:
        yield served


def test_program_of_the_page_runs(real: Served, tmp_path: Path) -> None:
    """Told of the address as the page says."""
    (block,) = (block for block in blocks_of(PAGE) if block.file == "ask.py")
    (tmp_path / "ask.py").write_text(block.code)
    done = subprocess.run(
        [sys.executable, "ask.py"],
        cwd=tmp_path,
        env={"OLLAMA_HOST": real.address, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("['tiny']\n['tiny']\n")


def test_every_line_of_curl_is_answered(real: Served) -> None:
    """With what the page says that it is for."""
    curl = require_curl()
    typed = [
        line.removeprefix("$ ")
        for block in blocks_of(PAGE)
        if block.language == "console"
        for line in block.code.splitlines()
        if line.startswith("$ curl")
    ]
    reasons = []
    for line in typed:
        words = shlex.split(line.replace(ADDRESS, real.address))
        done = subprocess.run(
            [curl, "--noproxy", "*", *words[1:]],
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        reasons.append(json.loads(done.stdout.splitlines()[-1])["done_reason"])
    assert reasons == ["length", "length", "load", "unload"]


def test_page_names_every_option_that_is_refused_or_ignored() -> None:
    """What it says of `/api` is all in one table."""
    rows = re.findall(r"^\| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    named = " ".join(rows)
    for each in ("num_ctx", "template", "context", "truncate", "/api/pull", "raw", "suffix"):
        assert f"`{each}`" in named
