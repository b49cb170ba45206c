"""``gglib doctor``: whatever is broken, it is told with its fix, and the rest is looked at."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.commands import Home
from support.gguf_files import write_model

from gglib.cli.doctor import examination
from gglib.cli.doctor.machine import clock_finding

GROUPS = {
    "versions",
    "clock",
    "configuration",
    "data directory",
    "disk",
    "leftovers",
    "database",
    "models",
    "engine",
    "devices",
    "gateway",
    "servers",
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a data directory, with nothing but the system's programs on PATH."""
    home = Home.make(tmp_path, PATH=os.pathsep.join(["/usr/bin", "/bin"]))
    home.configure("[gateway]\nport = 0\n")
    return home


def findings(home: Home) -> list[dict[str, Any]]:
    """Return what the doctor finds, however it ends: never by an error of its own."""
    done = home.run("doctor", "--json")
    assert done.stderr == ""
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == int(any(each["state"] == "broken" for each in found))
    return found


def told(home: Home, subject: str) -> list[tuple[str, str, str | None]]:
    """Return state, detail and fix of what is found about a subject."""
    return [
        (each["state"], each["detail"], each["fix"])
        for each in findings(home)
        if each["subject"] == subject
    ]


def test_everything_is_looked_at(home: Home) -> None:
    """Each group tells something even where all is well."""
    assert {each["subject"] for each in findings(home)} >= GROUPS


def test_wrong_setting_is_told_with_its_line_and_the_rest_is_looked_at(home: Home) -> None:
    """By the defaults."""
    home.configure("[gateway]\n\nprot = 80\n")
    found = findings(home)
    assert {each["subject"] for each in found} >= GROUPS
    (configuration,) = [each for each in found if each["subject"] == "configuration"]
    assert configuration["state"] == "broken"
    assert "gglib.toml:3: [gateway] unknown key 'prot'; did you mean" in configuration["detail"]
    assert "gglib config check" in configuration["fix"]


def test_data_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    """Nothing else can be looked at."""
    (tmp_path / "home").write_text("mine")
    home = Home.make(tmp_path)
    ((state, detail, _),) = told(home, "data directory")
    assert (state, "it is not a directory" in detail) == ("broken", True)


def test_file_that_is_no_database_is_told_once(home: Home) -> None:
    """Though the models and the servers are in it, too."""
    (home.path / "gglib.db").write_bytes(b"no database" * 1000)
    broken = [each for each in findings(home) if each["state"] == "broken"]
    assert [each["subject"] for each in broken] == ["database"]
    assert "gglib.db cannot be read" in broken[0]["detail"]


def test_damage_inside_the_database_is_told(home: Home, tmp_path: Path) -> None:
    """It can be opened, and a page of it is not what it was."""
    assert home.run("model", "add", str(write_model(tmp_path / "a.gguf"))).returncode == 0
    with closing(sqlite3.connect(home.path / "gglib.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
        query = "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = ?"
        (page,) = database.execute(query, ("model_names",)).fetchone()
    with (home.path / "gglib.db").open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\x0a" + bytes(page_bytes - 1))
    found = told(home, "database")
    assert {state for state, _, _ in found} == {"broken"}
    assert "backups" in (found[0][2] or "")


def test_database_of_a_newer_gglib_is_told_with_both_versions(home: Home) -> None:
    """The fix is to upgrade."""
    home.run("model", "list")
    with closing(sqlite3.connect(home.path / "gglib.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    ((state, detail, fix),) = told(home, "database")
    assert state == "broken"
    assert "has schema 9999, this gglib knows" in detail
    assert (fix or "").startswith("pip install --upgrade gglib")


def test_unfinished_downloads_are_told(home: Home, tmp_path: Path) -> None:
    """In the data directory and beside the models, and what a killed installation left."""
    (home.path / "engines" / "llama-server" / ".new-x").mkdir(parents=True)
    models = tmp_path / "my models"
    models.mkdir()
    home.run("model", "add", str(write_model(models / "a.gguf")))
    (models / "b.gguf.partial").write_bytes(bytes(2048))
    (home.path / "backups").mkdir(exist_ok=True)
    (home.path / "backups" / "x.partial").write_bytes(b"")
    left = told(home, "leftovers")
    assert [state for state, _, _ in left] == ["warning", "warning"]
    assert "b.gguf.partial is an unfinished download (2.0 KiB)" in left[0][1]
    assert f"rm '{models}/b.gguf.partial'" in (left[0][2] or "")
    assert ".new-x is left of an installation" in left[1][1]
    for number in range(12):
        (models / f"{number}.partial").write_bytes(b"")
    assert told(home, "leftovers")[-1] == ("warning", "and 4 more", None)


@pytest.mark.parametrize(
    ("free", "state"), [(50 << 20, "broken"), (1 << 30, "warning"), (5 << 30, "ok")]
)
def test_disk_that_is_nearly_full_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    """Once for each disk, with how much is free."""
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    (found,) = told(home, "disk")
    assert found[0] == state
    assert "iB free for" in found[1]


def test_disk_without_room_for_files_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are not all that a disk can run out of."""
    none = os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, 1 << 30, 1000, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: none)
    (found,) = told(home, "disk")
    assert (found[0], "no more files can be made" in found[1]) == ("broken", True)


def test_data_directory_that_is_open_to_others_is_told(home: Home) -> None:
    """With what in it they could read."""
    home.path.chmod(0o755)
    (home.path / "logs").mkdir(mode=0o755)
    (home.path / "logs").chmod(0o755)
    first, second = told(home, "data directory")
    assert first[1:] == (f"{home.path} is open to other users", f"chmod 700 {home.path}")
    assert second[1] == f"{home.path / 'logs'} can be read by others"


def test_clock_before_the_installation_is_told() -> None:
    """As on a board without a battery."""
    assert clock_finding().state == "ok"
    finding = clock_finding(0.0)
    assert finding.state == "warning"
    assert "it says 1970-01-01 00:00:00 UTC, and gglib was installed on" in finding.detail
    assert clock_finding(time.time() + 10**9).state == "ok"


@pytest.fixture
def nvidia_smi(home: Home, tmp_path: Path) -> Path:
    """Return where a program lies that passes for NVIDIA's."""
    folder = tmp_path / "tools"
    folder.mkdir()
    program = folder / "nvidia-smi"
    path = f"{folder}{os.pathsep}{home.environment['PATH']}"
    home.environment = {**home.environment, "PATH": path}
    return program


def write_program(path: Path, body: str) -> None:
    """Write a shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_driver_that_does_not_fit_its_library_is_told(home: Home, nvidia_smi: Path) -> None:
    """The fix is to restart."""
    said = "Failed to initialize NVML: Driver/library version mismatch"
    write_program(nvidia_smi, f"echo '{said}'; exit 18")
    (found,) = [each for each in told(home, "devices") if "nvidia-smi" in each[1]]
    assert found[:2] == ("warning", f"nvidia-smi: {said}")
    assert (found[2] or "").startswith("restart the machine")


def test_gpu_that_only_nvidia_smi_sees_is_told(home: Home, nvidia_smi: Path) -> None:
    """With what NVML says of it."""
    write_program(nvidia_smi, 'for n in $(seq 99); do echo "GPU $n: NVIDIA H200 (UUID: $n)"; done')
    details = [detail for state, detail, _ in told(home, "devices") if state == "warning"]
    assert any("nvidia-smi sees 99 GPUs" in detail for detail in details)


def test_nvidia_smi_that_cannot_run_is_told(home: Home, nvidia_smi: Path) -> None:
    """And the rest is looked at."""
    nvidia_smi.write_bytes(b"\x7fELF")
    nvidia_smi.chmod(0o755)
    assert any("Exec format error" in detail for _, detail, _ in told(home, "devices"))


def test_look_that_fails_harms_no_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises: even a fault of gglib's own is a line."""

    async def fail(_parts: object) -> list[Any]:
        raise ZeroDivisionError("of all things")

    monkeypatch.setitem(examination._LOOKS, "leftovers", fail)
    assert told(home, "leftovers") == [("broken", "ZeroDivisionError: of all things", None)]
    assert told(home, "servers") == [("ok", "no orphans", None)]


def test_machine_without_an_engine_is_told_how_to_get_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 1."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    (found,) = told(home, "engines")
    assert found == (
        "broken",
        "there is none",
        "gglib engine install, or pip install 'gglib[llama]'",
    )
