"""``gglib config``, as its users type it, and a gateway that is told to reload."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import termios
import time
from functools import partial
from pathlib import Path

import pytest
from support.commands import Home, Served, gglib, stub_config

from gglib.services.demo.tiny_gguf import tiny_gguf

FILE = """\
[gateway]
queue_limit = 7
api_keys = ["sk-nobody", "sk-sees"]

[engines.own]
command = ["own", "--api-key", "sk-flag", "--token=sk-joined", "--port", "{port}"]
environment = {HF_TOKEN = "sk-hub"}

[models.a]
path = "a.gguf"
engine = "own"
environment = {ANYTHING = "sk-any"}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A data directory with one model, which the stub serves."""
    home = Home.make(tmp_path)
    home.configure(stub_config("a"), "a")
    return home


def test_show_tells_each_value_and_its_source(home: Home) -> None:
    """Default, file with line, variable; and where the file and the data directory are from."""
    home.configure(FILE)
    home = Home(home.path, {**home.environment, "GGLIB_POOL_MAX_SIZE": "3"})
    shown = {each["key"]: (each["value"], each["source"]) for each in home.json("config", "show")}
    path = home.path / "gglib.toml"
    assert shown["gateway.port"] == (8080, "default")
    assert shown["gateway.queue_limit"] == (7, f"file {path}:2")
    assert shown["pool.max_size"] == (3, "environment GGLIB_POOL_MAX_SIZE")
    assert shown["models.a.engine"] == ("own", f"file {path}:11")
    assert shown["data_dir"] == (str(home.path), "environment GGLIB_HOME")
    assert shown["config_file"] == (str(path), "default")
    lines = home.run("config", "show").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("gateway.queue_limit")]
    assert line.split() == ["gateway.queue_limit", "7", "file", f"{path}:2"]


def test_show_keeps_secrets(home: Home) -> None:
    """Neither keys, nor what follows a flag that takes one, nor any variable; only how many."""
    home.configure(FILE)
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        printed = home.run(*arguments)
        assert printed.returncode == 0
        assert "sk-" not in printed.stdout + printed.stderr
        assert "2 (not shown)" in printed.stdout
        assert "HF_TOKEN" in printed.stdout


def test_check_accepts_what_serve_would(home: Home) -> None:
    """In a line; it makes no data directory, and nothing in one."""
    before = sorted(home.path.iterdir())
    done = home.run("config", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{home.path / 'gglib.toml'} is right: it declares 1 model\n"
    assert home.json("config", "check") == {
        "path": str(home.path / "gglib.toml"),
        "models": ["a"],
        "doubts": [],
    }
    assert sorted(home.path.iterdir()) == before


def test_check_without_a_file_checks_the_defaults(tmp_path: Path) -> None:
    """They are right."""
    home = Home.make(tmp_path)
    assert home.run("config", "check").stdout == "no file; the defaults are right\n"
    assert not home.path.exists()


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[gateway]\nprot = 1\n", 2, "did you mean 'port'"),
        ("[models.m]\npath = 'm'\nengine = 'stab'\n", 3, "unknown engine 'stab'"),
        ("[models.m]\npath = 'm'\nrunner = 'moon'\n", 3, "unknown runner 'moon'"),
        ("[models.m]\npath = 'm'\nrunner = ['local', 'moon']\n", 3, "unknown runner 'moon'"),
        ("[models.m]\npath = 'm'\nrunner = ['local', 'local']\n", 3, "a list of different ones"),
        ("[serving]\nrunner = 'lokal'\n", 2, "did you mean 'local'"),
        ("\n[engines.x]\ncommand = 3\n", 2, "[engines.x] command is 3"),
        ("[runners.local]\nstop_grace = 3\n", 1, "did you mean 'stop_grace_s'"),
        ("\n[runners.moon]\nkind = 'rocket'\n", 2, "not installed"),
        ("[gateway]\nhost = '0.0.0.0'\n", 2, "no key is set"),
        ("[routing]\nbudgets = {mars = 3}\n", 2, "no such device"),
    ],
)
def test_check_names_what_serve_would_refuse(home: Home, text: str, line: int, reason: str) -> None:
    """With its line; the file may be any."""
    file = home.path / "other.toml"
    file.write_text(text)
    done = home.run("config", "check", str(file))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"gglib: {file}:{line}: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


DOUBTFUL = """\
[routing]
planner = "groups"

[routing.groups.g]
members = ["a", "added", "b"]

[pool]
warmup = ["aa"]
"""


def test_check_doubts_names_that_nobody_has(home: Home) -> None:
    """On standard error, with their lines: those of the catalog are known, too. All is well."""
    home.configure(stub_config("a", extra=DOUBTFUL), "a")
    (home.path.parent / "x.gguf").write_bytes(tiny_gguf())
    home.json("model", "add", str(home.path.parent / "x.gguf"), "--name", "added")
    done = home.run("config", "check")
    path = home.path / "gglib.toml"
    assert (done.returncode, done.stdout) == (0, f"{path} is right: it declares 1 model\n")
    first, second = done.stderr.splitlines()
    assert first == (
        f"gglib: warning: {path}:4: routing.groups.g.members names 'b': "
        "there is no such model, and it means nothing until there is"
    )
    assert second == (
        f"gglib: warning: {path}:8: pool.warmup names 'aa': "
        "there is no such model; did you mean 'a'?"
    )
    assert [
        each.partition("gglib.toml:")[2][0] for each in home.json("config", "check")["doubts"]
    ] == [
        "4",
        "8",
    ]


def test_serve_and_reload_doubt_names_that_nobody_has(home: Home) -> None:
    """As events, and to whoever asks for the reload; until there is such a model."""
    home.configure(stub_config("a", extra=DOUBTFUL), "a")
    with home.serve() as served:
        missed = logged(home, served, "config.model_missed")
        assert (missed["level"], missed["key"]) == ("warning", "routing.groups.g.members")
        assert missed["model_name"] in {"added", "b"}
        home.configure(stub_config("a", "b", "added", extra=DOUBTFUL), "a", "b", "added")
        done = home.run("config", "reload")
        assert done.returncode == 0
        assert "changed models.b" in done.stdout
        assert done.stderr.startswith("gglib: warning: pool.warmup names 'aa'")
        assert done.stderr.count("\n") == 1
        assert len(home.json("config", "reload")["doubts"]) == 1


def test_path_is_told_whether_the_file_is_right_or_not(home: Home) -> None:
    """And whether it is there."""
    path = home.path / "gglib.toml"
    path.write_text("[broken\n")
    assert home.run("config", "path").stdout == f"{path}\n"
    assert home.json("config", "path") == {"path": str(path), "exists": True, "source": "default"}
    told = home.json("config", "path", "--config", "/nowhere.toml")
    assert told == {"path": "/nowhere.toml", "exists": False, "source": "flag --config"}


def test_schema_is_printed(home: Home) -> None:
    """As JSON, whether asked for it or not."""
    assert home.json("config", "schema")["title"] == "gglib.toml"
    assert json.loads(home.run("config", "schema").stdout)["additionalProperties"] is False


def test_reload_without_a_gateway_says_how_to_get_one(home: Home) -> None:
    """It is an error: nothing was reloaded."""
    done = home.run("config", "reload")
    assert done.returncode == 3
    assert "`gglib serve` starts one" in done.stderr


def test_reload_prints_what_changed(home: Home) -> None:
    """Or what is wrong, with its line; then nothing has changed."""
    with home.serve() as served:
        assert home.run("config", "reload").stdout == "nothing has changed\n"
        text = stub_config("a", "b", extra="[gateway]\nport = 81\nqueue_limit = 9\n")
        home.configure(text, "b")
        done = home.run("config", "reload")
        assert (done.returncode, done.stdout.splitlines()) == (
            0,
            ["changed gateway.queue_limit", "changed models.b"],
        ), "the port is a flag's, here as at the start"
        assert served.chat("b").status_code == 200
        home.configure(text + "\n[models.c]\npth = 'c'\n")
        broken = home.run("config", "reload")
        line = text.count("\n") + 3
        assert broken.returncode == 2
        assert f"gglib.toml:{line}: " in broken.stderr
        assert served.chat("b").status_code == 200
        home.configure(text.replace("queue_limit = 9", "orphans = 'stop'"))
        assert home.json("config", "reload") == {
            "changed": ["gateway.queue_limit"],
            "at_next_start": ["gateway.orphans"],
            "doubts": [],
        }


def logged(home: Home, served: Served, event: str) -> dict[str, object]:
    """Return a gateway's line about ``event``, when it is there."""
    log = home.path.parent / "serve.log"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if f'"{event}"' in line:
                found: dict[str, object] = json.loads(line)
                return found
        assert served.process.poll() is None, log.read_text()
        time.sleep(0.01)
    raise AssertionError(log.read_text())


def test_hangup_reloads(home: Home) -> None:
    """It ends nothing; a broken file is in the log, and the gateway goes on."""
    with home.serve() as served:
        home.configure("[broken\n")
        served.process.send_signal(signal.SIGHUP)
        failed = logged(home, served, "config.reload_failed")
        assert "gglib.toml:1: not TOML" in str(failed["reason"])
        assert served.chat("a").status_code == 200
        home.configure(stub_config("a", "b"), "b")
        served.process.send_signal(signal.SIGHUP)
        assert logged(home, served, "config.reloaded")["changed"] == ["models.b"]
        assert served.chat("b").status_code == 200
    assert served.process.returncode == 0


def test_gateway_whose_terminal_is_gone_ends(home: Home) -> None:
    """Nobody would see it, and its models would stay in memory."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [gglib(), "serve", "--port", "0"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(home.environment),
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    try:
        said = b""
        while b"Ctrl-C stops" not in said:
            said += os.read(ours, 1000)
        process.send_signal(signal.SIGHUP)
        while b"config.reloaded" not in said:
            said += os.read(ours, 1000)
        os.close(ours)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
