"""The how-to for a gateway that others reach, followed with a certificate made as it says."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Home
from support.extras import require_curl, require_embedded_engine, require_openssl
from support.pages import ROOT, blocks_of

from gglib.services.demo.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine

PAGE = ROOT / "docs" / "how-to" / "open-to-the-network.md"


def typed(command: str) -> list[str]:
    """Return the words of the page's one line that begins so."""
    (line,) = (
        line.removeprefix("$ ")
        for block in blocks_of(PAGE)
        if block.language == "console"
        for line in block.code.splitlines()
        if line.startswith(f"$ {command}")
    )
    return shlex.split(line)


def run(words: list[str], folder: Path, **environment: str) -> str:
    """Run a command, which has to end well, and return what it prints."""
    done = subprocess.run(
        words,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "NO_PROXY": "*", **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_page_opens_a_gateway_to_others(tmp_path: Path) -> None:
    """On loopback and a free port, with a tiny model; all else is as it is written."""
    require_embedded_engine()
    curl = require_curl()
    require_openssl()
    home = Home.make(tmp_path)
    settings = next(block.code for block in blocks_of(PAGE) if block.language == "toml")
    key = run(typed("openssl rand"), tmp_path).strip()
    written = re.search(r'sha256 = "(\w+)"', settings)
    assert written is not None
    settings = settings.replace(written[1], hashlib.sha256(key.encode()).hexdigest())
    settings = settings.replace('host = "0.0.0.0"\n', "")
    home.configure(
        f'{settings}\n[models.tiny]\npath = "tiny.gguf"\ncontext_size = 64\nthreads = 1\n'
    )
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    run(typed("openssl req"), home.path)
    assert home.run("config", "check").returncode == 0
    with home.serve() as served:
        address = served.address.replace("127.0.0.1", "localhost")

        def there(words: list[str]) -> list[str]:
            return [word.replace("https://localhost:8443", address) for word in words]

        asked = there(typed("curl"))
        listed = json.loads(run([curl, "--noproxy", "*", "-s", *asked[1:]], home.path))
        assert [model["id"] for model in listed["data"]] == ["tiny"]
        (program,) = (block.code for block in blocks_of(PAGE) if block.file == "ask.py")
        (home.path / "ask.py").write_text(program)
        for opens in ("change-me", key):
            words = there(typed("python"))[1:-1]
            said = run([sys.executable, *words, opens], home.path, SSL_CERT_FILE="models.pem")
            assert said.splitlines() == ["assistant", "['tiny']"]
        # The name that it is certified for is one of its own.
        assert home.run("config", "reload").returncode == 0
        named = [*asked[1:], "-H", "Host: models.example"]
        assert json.loads(run([curl, "--noproxy", "*", "-s", *named], home.path))["data"]
