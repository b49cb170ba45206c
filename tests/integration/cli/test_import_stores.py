"""``gglib model import``: models of Ollama, LM Studio and Hugging Face, where they lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import Home
from support.stores import HfCache, OllamaFolder

from gglib.services.demo.tiny_gguf import tiny_gguf


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A data directory with nothing in it."""
    return Home.make(tmp_path)


@pytest.fixture
def ollama(tmp_path: Path) -> OllamaFolder:
    """A store of Ollama's with two tags of one model that can be served."""
    store = OllamaFolder(tmp_path / "ollama")
    for name in ("tiny:1b", "tiny:latest"):
        store.tag(name, tiny_gguf(), params={"num_ctx": 512, "num_predict": 3, "numa": True})
    return store


@pytest.mark.engine
def test_imported_blob_is_served(home: Home, ollama: OllamaFolder) -> None:
    """By a real engine, though it has no suffix; taken up by a gateway that runs already."""
    files = {path: path.stat().st_mtime_ns for path in ollama.path.rglob("*")}
    with home.serve() as gateway:
        done = home.run("model", "import", "ollama", str(ollama.path))
        assert done.returncode == 0, done.stderr
        for name in ("tiny:1b", "tiny"):
            answer = gateway.chat(name)
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 3
        (server,) = home.json("ps")
        assert server["model"] == "tiny:1b"
        with gateway.client() as client:
            (listed,) = client.get("/api/tags").json()["models"]
        assert listed["digest"] == home.json("model", "show", "tiny")["origin"]["sha256"]
    assert {path: path.stat().st_mtime_ns for path in ollama.path.rglob("*")} == files


def test_import_says_what_it_did_and_what_it_left_out(home: Home, ollama: OllamaFolder) -> None:
    """Once; the second time there is nothing to say."""
    ollama.manifest("registry.ollama.ai/library/bad:1").write_text("{")
    done = home.run("model", "import", "ollama", str(ollama.path))
    blob = next(path for path in (ollama.path / "blobs").iterdir() if path.stat().st_size > 1000)
    assert done.stdout.splitlines() == [f"added tiny:1b ({blob})", "1 added, 1 refused"]
    bad = ollama.manifest("registry.ollama.ai/library/bad:1")
    left_out, refused = done.stderr.splitlines()
    assert left_out == "tiny:1b: left out parameter 'numa': gglib has none like it"
    assert refused.startswith(f"refused {bad}: damaged: not JSON")
    bad.unlink()
    done = home.run("model", "import", "ollama", str(ollama.path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 unchanged\n", "")
    (model,) = home.json("model", "list")
    assert (model["source"], model["aliases"]) == ("ollama", ["tiny:latest", "tiny"])
    shown = home.run("model", "show", "tiny").stdout.splitlines()
    assert "source           ollama" in shown
    assert any(
        line.startswith("from             registry.ollama.ai/library/tiny:1b") for line in shown
    )


def test_events_are_lines_of_json(home: Home, ollama: OllamaFolder) -> None:
    """One for each model, and one at the end."""
    done = home.run("model", "import", "ollama", str(ollama.path), "--json")
    first, last = map(json.loads, done.stdout.splitlines())
    assert (first["event"], first["model"], first["done"], first["total"]) == (
        "added",
        "tiny:1b",
        1,
        1,
    )
    assert first["left_out"] == ["parameter 'numa': gglib has none like it"]
    assert (last["event"], last["added"], last["unchanged"]) == ("finished", 1, 0)


def test_vanished_models_are_removed_when_asked(home: Home, ollama: OllamaFolder) -> None:
    """Until then they are told; files are never deleted, here or by ``remove``."""
    home.run("model", "import", "ollama", str(ollama.path))
    refused = home.run("model", "remove", "tiny:1b", "--delete-file")
    assert (refused.returncode, "gglib did not fetch" in refused.stderr) == (2, True)
    for path in [*ollama.path.rglob("*")]:
        if path.is_file():
            path.unlink()
    done = home.run("model", "import", "ollama", str(ollama.path))
    assert "`gglib model remove tiny:1b`, or import with --prune" in done.stderr
    assert done.stdout == "1 vanished\n"
    done = home.run("model", "import", "ollama", str(ollama.path), "--prune")
    assert done.stdout.splitlines()[-1] == "1 removed"
    assert home.run("model", "import", "ollama", str(ollama.path)).stdout == "no models there\n"


def test_other_tools_models_are_found_where_they_keep_them(tmp_path: Path) -> None:
    """Without naming a folder, as far as their variables or the home say it."""
    user = tmp_path / "user"
    place = user / ".lmstudio" / "models" / "acme" / "Tiny-GGUF"
    place.mkdir(parents=True)
    (place / "tiny-F32.gguf").write_bytes(tiny_gguf())
    HfCache(tmp_path / "hub").file("acme/other", "a" * 40, "other.gguf", tiny_gguf(1))
    variables = {"HOME": str(user), "HF_HUB_CACHE": str(tmp_path / "hub")}
    home = Home.make(tmp_path, **variables)
    assert home.run("model", "import", "lm-studio").returncode == 0
    assert home.run("model", "import", "huggingface").returncode == 0
    models = {each["name"]: each["source"] for each in home.json("model", "list")}
    assert models == {"tiny-F32": "lm-studio", "other": "huggingface"}
    origin = home.json("model", "show", "other")["origin"]
    assert (origin["repository"], origin["revision"]) == ("acme/other", "a" * 40)
    done = home.run("model", "import", "ollama", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
