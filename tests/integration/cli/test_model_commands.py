"""``gglib model``: scanning, changing and verifying, as a user does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Home
from support.gguf_files import write_model

from gglib.cli.main import run
from gglib.services.demo.tiny_gguf import tiny_gguf


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(tiny_gguf())
    write_model(folder / "sub" / "small.gguf", architecture="qwen2")
    return folder


def said(home: Home, *arguments: str, status: int = 0) -> str:
    """Run a command that ends so, and return the one line that it says."""
    done = home.run(*arguments)
    assert done.returncode == status, done.stderr
    text = done.stderr if status else done.stdout
    assert "Traceback" not in text
    (line,) = text.splitlines()
    return line


def test_folder_is_scanned_and_scanned_again(home: Home, models: Path) -> None:
    """What was found, what is wrong, and the sum of it; then nothing new."""
    (models / "broken.gguf").write_text("once upon a time")
    done = home.run("model", "scan", str(models))
    assert done.stdout.splitlines() == [
        f"added small ({models}/sub/small.gguf)",
        f"added tiny ({models}/tiny.gguf)",
        "2 added, 1 refused",
    ]
    assert done.stderr == (f"refused {models}/broken.gguf: not a GGUF file (starts with b'once')\n")
    assert said(home, "model", "scan", str(models / "sub")) == "1 unchanged"
    assert said(home, "model", "scan", str(models / "gone"), status=3).endswith("check the path")
    assert "name a folder" in said(home, "model", "scan", status=2)


def test_scan_for_programs_is_a_line_for_each_step(home: Home, models: Path) -> None:
    """And one at the end with the counts."""
    done = home.run("model", "scan", str(models), "--json")
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert steps[0] == {
        "event": "added",
        "path": str(models / "sub" / "small.gguf"),
        "model": "small",
        "reason": None,
        "done": 1,
        "total": 2,
    }
    assert (steps[-1]["event"], steps[-1]["added"], steps[-1]["refused"]) == ("finished", 2, 0)


def test_vanished_model_is_said_and_pruned(home: Home, models: Path) -> None:
    """Not before that is wished."""
    home.run("model", "scan", str(models))
    (models / "tiny.gguf").unlink()
    done = home.run("model", "scan", str(models))
    assert done.stderr.startswith(f"vanished {models}/tiny.gguf; `gglib model remove tiny`, or")
    assert done.stdout == "1 unchanged, 1 vanished\n"
    assert "1 removed" in home.run("model", "scan", str(models), "--prune").stdout
    assert [model["name"] for model in home.json("model", "list")] == ["small"]


def test_file_names_cannot_write_to_the_terminal(home: Home, models: Path) -> None:
    """Nor end a program that reads JSON: what is no text is told by its numbers."""
    name = os.fsdecode(b"\x1b[2J\xff.gguf")
    write_model(models / name)
    done = home.run("model", "scan", str(models))
    assert "\x1b" not in done.stdout
    assert "\\x1b[2J\\udcff.gguf" in done.stdout
    (model,) = (each for each in home.json("model", "list") if "2J" in each["name"])
    assert model["paths"] == [str(models / name)]
    assert "\x1b" not in home.run("model", "show", model["name"]).stdout
    assert "\x1b" not in home.run("model", "remove", model["name"]).stdout


def test_list_is_searched_sorted_and_narrowed(home: Home, models: Path) -> None:
    """By words, size, tag and what a model can do."""
    home.run("model", "scan", str(models))
    home.run("model", "tag", "add", "small", "work")

    def names(*arguments: str) -> list[str]:
        return [model["name"] for model in home.json("model", "list", *arguments)]

    assert names("qwen2") == names("--tag", "work") == ["small"]
    assert names("--capability", "chat") == ["tiny"]
    assert names("--sort", "size") == ["tiny", "small"]
    assert names("--sort", "size", "--reverse") == ["small", "tiny"]
    assert "none of 2 models" in home.run("model", "list", "nothing").stdout
    assert "choose from" in said(home, "model", "list", "--sort", "colour", status=2).lower()


def test_settings_are_set_shown_with_their_sources_and_taken_back(home: Home, models: Path) -> None:
    """The command line's, the file's, and what follows from the model."""
    home.configure("[inference]\ntop_p = 0.9\n\n[pool]\nttl_s = 60\n")
    home.run("model", "add", str(models / "tiny.gguf"))
    done = home.run("model", "set", "tiny", "context_size=512", "inference.temperature=0.7")
    assert done.stdout.splitlines() == [
        "tiny: context_size = 512",
        "tiny: inference.temperature = 0.7",
    ]
    settings = {each["key"]: each for each in home.json("model", "show", "tiny")["settings"]}
    assert {key: (each["value"], each["source"]) for key, each in settings.items()} == {
        "context_size": (512, "model"),
        "inference.temperature": (0.7, "model"),
        "inference.top_p": (0.9, f"file {home.path}/gglib.toml:2"),
        "ttl_s": (60.0, f"file {home.path}/gglib.toml:5"),
    }
    text = home.run("model", "show", "tiny").stdout
    assert "setting          context_size = 512 (model)" in text
    assert "heads            4" in text
    assert said(home, "model", "set", "tiny", "context_size=") == "tiny: context_size is not set"
    assert said(home, "model", "unset", "tiny", "inference") == "tiny: inference is not set"
    assert [each["key"] for each in home.json("model", "show", "tiny")["settings"]] == [
        "inference.top_p",
        "ttl_s",
    ]
    listed = home.json("model", "set", "tiny")
    assert (listed["settings"], "inference.top_k" in listed["keys"]) == ({}, True)
    assert "flash_attention" in home.run("model", "set", "tiny").stdout


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("contxt_size=1", "did you mean 'context_size'?"),
        ("context_size=many", "expected an integer of 1 or more"),
        ("context_size", "is no KEY=VALUE"),
        ("=1", "is no KEY=VALUE"),
        ("engine=embeded", "did you mean 'embedded'?"),
        ("runner=moon", "no runner is called 'moon'; there are"),
    ],
)
def test_wrong_setting_is_refused_in_one_line(
    home: Home, models: Path, written: str, reason: str
) -> None:
    """And nothing else is set with it."""
    home.run("model", "add", str(models / "tiny.gguf"))
    assert reason in said(home, "model", "set", "tiny", "pinned=true", written, status=2)
    assert home.json("model", "show", "tiny")["settings"] == []


def test_declared_model_is_read_only(home: Home) -> None:
    """Shown with its lines; every change says where to make it."""
    home.configure('[models.d]\npath = "d.gguf"\nttl_s = 5\n\n[models.d.inference]\ntop_k = 3\n')
    settings = {each["key"]: each["source"] for each in home.json("model", "show", "d")["settings"]}
    assert settings == {
        "ttl_s": f"file {home.path}/gglib.toml:3",
        "inference.top_k": f"file {home.path}/gglib.toml:5",
    }
    for change in (
        ("set", "d", "pinned=true"),
        ("unset", "d", "ttl_s"),
        ("rename", "d", "e"),
        ("alias", "add", "d", "e"),
        ("tag", "add", "d", "e"),
        ("profile", "set", "d", "p", "strip=seed"),
        ("remove", "d"),
    ):
        assert "change it there" in said(home, "model", *change, status=2)


def test_secrets_are_not_shown(home: Home, models: Path) -> None:
    """Variables carry tokens; so do arguments."""
    home.run("model", "add", str(models / "tiny.gguf"))
    secret = ["environment.TOKEN=sesame", "extra_args=--api-key sesame"]
    done = home.run("model", "set", "tiny", *secret)
    assert done.stdout.count("(not shown)") == 2
    for command in (("show", "tiny"), ("show", "tiny", "--json"), ("set", "tiny", "--json")):
        assert "sesame" not in home.run("model", *command).stdout
    assert "sesame" not in home.run("model", "set", "tiny", *secret, "--json").stdout


def test_names_tags_and_profiles_are_changed(home: Home, models: Path) -> None:
    """Each says what there is now."""
    home.run("model", "add", str(models / "tiny.gguf"), "--name", "old")
    for command, line in (
        (("rename", "old", "new"), "renamed to new"),
        (("alias", "add", "new", "a", "b"), "new is also a, b"),
        (("alias", "remove", "new", "b"), "new is also a"),
        (("tag", "add", "a", "x", "y"), "new has tags: x, y"),
        (("tag", "remove", "a", "x", "y"), "new has tags: none"),
        (("profile", "list", "new"), "new has no profiles; `gglib model profile set` makes one"),
        (("profile", "set", "new", "cold", "inference.temperature=0"), "new:cold is set"),
        (("rename", "new", "new/../er"), None),
    ):
        if line is None:
            said(home, "model", *command, status=2)
        else:
            assert said(home, "model", *command) == line
    assert home.json("model", "profile", "list", "new") == {"cold": {"inference.temperature": 0.0}}
    assert "cold: inference.temperature = 0.0" in home.run("model", "show", "new").stdout
    assert said(home, "model", "profile", "remove", "new", "cold") == "removed new:cold"
    assert "no profile 'cold'; it has none" in said(
        home, "model", "profile", "remove", "new", "cold", status=2
    )
    assert "name an alias" in said(home, "model", "alias", "add", "new", status=2)
    home.run("model", "add", str(models / "sub" / "small.gguf"))
    assert "taken by model 'new'" in said(home, "model", "rename", "small", "new", status=4)


def test_file_that_gglib_did_not_fetch_is_not_deleted(home: Home, models: Path) -> None:
    """Nor is the model forgotten then."""
    home.run("model", "scan", str(models))
    line = said(home, "model", "remove", "tiny", "--delete-file", status=2)
    assert "did not fetch" in line
    assert (models / "tiny.gguf").exists()
    assert len(home.json("model", "list")) == 2
    assert home.json("model", "remove", "tiny") == {"removed": "tiny", "deleted": []}


def test_models_are_verified(home: Home, models: Path) -> None:
    """Recorded, compared, and told when they are others."""
    home.run("model", "scan", str(models))
    done = home.run("model", "verify", "--all")
    assert (done.returncode, done.stdout.count("recorded now (sha256 ")) == (0, 2)
    (verified,) = home.json("model", "verify", "tiny")
    assert (verified["intact"], verified["files"][0]["state"]) == (True, "intact")
    (file,) = home.json("model", "show", "tiny")["files"]
    assert file["sha256"] == verified["files"][0]["sha256"]
    with (models / "tiny.gguf").open("ab") as more:
        more.write(b"x")
    assert "was written to since it was added" in said(home, "model", "verify", "tiny", status=1)
    assert home.run("model", "verify", "tiny", "--accept").returncode == 0
    (models / "tiny.gguf").unlink()
    assert said(home, "model", "verify", "tiny", status=1).endswith("is not there")
    assert "name the models to verify" in said(home, "model", "verify", status=2)


def test_live_gateway_sees_every_change(home: Home, models: Path) -> None:
    """Without being told, within a second or two."""
    with home.serve() as served, served.client() as client:

        def shown(name: str) -> Any:
            return client.post("/api/show", json={"model": name})

        def until(is_so: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 20
            while not is_so():
                assert time.monotonic() < deadline
                time.sleep(0.05)

        home.run("model", "scan", str(models))
        assert shown("tiny").status_code == 200, "an unknown name is looked up"
        home.run("model", "set", "tiny", "inference.temperature=0.25")
        home.run("model", "rename", "tiny", "renamed")
        home.run("model", "alias", "add", "renamed", "also")
        until(lambda: shown("also").status_code == 200)
        until(lambda: "0.25" in shown("renamed").json()["parameters"])
        home.run("model", "remove", "also")
        until(lambda: shown("renamed").status_code == 404)


def test_bar_is_for_terminals_alone(
    home: Home, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes to standard error, and is gone at the end."""
    monkeypatch.setenv("GGLIB_HOME", str(home.path))
    assert run(["model", "scan", str(models)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run(["model", "verify", "--all"]) == 0
    captured = capsys.readouterr()
    assert "verifying" in captured.err
    assert captured.out.count("recorded now") == 2
