"""What is wrong is said in one line, with the next step and the right exit status."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import pytest
from support.commands import Home, stub_config

from gglib.services.demo.tiny_gguf import tiny_gguf


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


def refused(home: Home, status: int, *arguments: str) -> str:
    """Run a command that must fail so, and return its one line."""
    done = home.run(*arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "Traceback" not in line
    return line


def test_unknown_command_and_flag_are_usage_errors(home: Home) -> None:
    """With the nearest known one."""
    assert "Unknown command" in refused(home, 2, "serv")
    assert "--json" in refused(home, 2, "ps", "--jsn")
    assert "port" in refused(home, 2, "serve", "--port", "many")
    assert "70000" in refused(home, 2, "serve", "--port", "70000")


def test_unknown_key_is_named_with_its_line_and_the_nearest_key(home: Home) -> None:
    """A typing error in the file is found without searching."""
    home.configure('[gateway]\nhost = "127.0.0.1"\nprot = 8081\n')
    line = refused(home, 2, "model", "list")
    assert f"{home.path / 'gglib.toml'}:3" in line
    assert "prot" in line
    assert "port" in line


def test_broken_toml_is_named_with_its_line(home: Home) -> None:
    """Whatever the parser says."""
    home.configure("[gateway]\nport = \n")
    assert "gglib.toml:2" in refused(home, 2, "ps")


def test_unwritable_data_directory_is_named(tmp_path: Path) -> None:
    """A file where the folder should be."""
    home = Home.make(tmp_path)
    home.path.write_text("in the way")
    assert "--data-dir" in refused(home, 1, "model", "list")


def test_corrupt_database_is_named(home: Home) -> None:
    """And not overwritten."""
    home.path.mkdir()
    (home.path / "gglib.db").write_bytes(b"this was a database once" * 100)
    assert str(home.path / "gglib.db") in refused(home, 1, "model", "list")
    assert (home.path / "gglib.db").read_bytes().startswith(b"this was")


def test_newer_database_is_refused_with_both_versions(home: Home) -> None:
    """A downgrade loses nothing."""
    home.run("model", "list")
    with sqlite3.connect(home.path / "gglib.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    line = refused(home, 4, "model", "list")
    assert "9999" in line
    assert "upgrade gglib" in line


def test_taken_port_is_named_with_its_holder(home: Home) -> None:
    """The user learns whom to stop."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(home, 1, "serve", "--port", str(port))
    assert f"port {port} is in use by " in line
    assert f"pid {os.getpid()}" in line
    assert not (home.path / "gateway.json").exists()


def test_second_gateway_is_refused_with_the_first_ones_address(home: Home) -> None:
    """One gateway per data directory."""
    with home.serve() as first:
        line = refused(home, 4, "serve", "--port", "0")
        assert first.address in line
        assert str(first.process.pid) in line


def test_open_address_without_a_key_is_refused(home: Home) -> None:
    """Unless it is asked for."""
    assert "--insecure" in refused(home, 4, "serve", "--host", "0.0.0.0", "--port", "0")
    with home.serve("--host", "0.0.0.0", "--insecure") as served, served.client() as client:
        assert client.get("/health").status_code == 200


def test_missing_engine_is_told_with_four_ways_to_get_one(home: Home, tmp_path: Path) -> None:
    """Nothing is started, and nothing is on record."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['xllamacpp'] = None\n")
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf())
    bare = Home(home.path, {**home.environment, "PYTHONPATH": str(blocked), "PATH": "/nowhere"})
    home.run("model", "add", str(path))
    line = refused(bare, 3, "start", "tiny")
    for way in ("pip install 'gglib[llama]'", "PATH", "GGLIB_LLAMA_SERVER", "[engines.NAME]"):
        assert way in line
    assert home.json("ps") == []


def test_vanished_model_file_is_named(home: Home, tmp_path: Path) -> None:
    """It was there when it was added."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf())
    home.run("model", "add", str(path))
    path.unlink()
    assert str(path) in refused(home, 3, "start", "tiny")


def test_engine_that_dies_while_starting_is_told_with_its_last_line(home: Home) -> None:
    """And leaves nothing behind but the engine's own words."""
    lines = ["loading", "CUDA error: out of memory"]
    config = stub_config("m", exit_status=3, lines=lines)
    home.configure(config, "m")
    line = refused(home, 1, "start", "m")
    assert "status 3" in line
    assert "CUDA error: out of memory" in line
    assert home.json("ps") == []
    assert home.run("logs", "m").stdout.splitlines() == lines


def test_stop_of_what_does_not_run_is_told(home: Home) -> None:
    """Exit status 3: not found."""
    home.configure(stub_config("m"), "m")
    assert "not running" in refused(home, 3, "stop", "m")
    assert home.run("stop", "--all").stdout == "nothing is running\n"


def test_reader_that_has_enough_is_no_error(home: Home) -> None:
    """``gglib model list | head -1``."""
    done = os.system(f"GGLIB_HOME={home.path} {' '.join(['gglib', 'model', 'list'])} | true")
    assert done == 0
