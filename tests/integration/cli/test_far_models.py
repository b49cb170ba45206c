"""Models that lie on another machine are added, scanned and measured by their headers alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.commands import Home, gglib
from support.far_machine import FarMachine, far_machine, readers_of
from support.gguf_files import write_model

from gglib.services.demo.tiny_gguf import tiny_gguf

SPARSE_BYTES = 3 * 2**30


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarMachine]:
    """Give a machine behind an OpenSSH server."""
    with far_machine(tmp_path_factory.mktemp("box")) as machine:
        yield machine


@pytest.fixture
def home(tmp_path: Path, machine: FarMachine) -> Home:
    """Give a data directory with the runner ``box``."""
    home = Home.make(tmp_path)
    section = "\n".join(f"{key} = {json.dumps(value)}" for key, value in machine.settings.items())
    home.configure(f'[runners.box]\nkind = "ssh"\n{section}\n')
    return home


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Give the folder there with the models: hostile names, shards, a projector, and no model."""
    folder = tmp_path / "far models; $(exit 7) 'x'"
    (folder / "deep é").mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(tiny_gguf())
    with (folder / "deep é" / "Large One.GGUF").open("wb") as large:
        large.write(tiny_gguf(1))
        large.truncate(SPARSE_BYTES)
    for number in (1, 2):
        write_model(folder / f"split-0000{number}-of-00002.gguf")
    write_model(folder / "half-00001-of-00002.gguf")
    write_model(folder / "mmproj.gguf", architecture="clip")
    (folder / "broken.gguf").write_bytes(b"GGUF and nothing else")
    (folder / "line\nend.gguf").write_bytes(tiny_gguf())
    (folder / "also tiny.gguf").symlink_to(folder / "tiny.gguf")
    return folder


def outcomes(home: Home, *arguments: str) -> dict[str, str]:
    """Scan, and return what became of each file by its name."""
    done = home.run("model", "scan", "--runner", "box", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(each["path"]).name: each["event"] for each in told if "path" in each}


def test_scan_adds_what_lies_there_and_skips_what_has_not_changed(home: Home, models: Path) -> None:
    """By paths there, with size and facts; shards are one; what is written anew is read."""
    assert outcomes(home, str(models)) == {
        "also tiny.gguf": "added",
        "Large One.GGUF": "added",
        "split-00001-of-00002.gguf": "added",
        "half-00001-of-00002.gguf": "refused",
        "broken.gguf": "refused",
    }
    large = home.json("model", "show", "Large One")
    assert large["size_bytes"] == SPARSE_BYTES
    assert {"key": "runner", "value": "box", "source": "model"} in large["settings"]
    assert (
        "from             the machine of runner box"
        in home.run("model", "show", "Large One").stdout
    )
    assert large["origin"]["runner"] == "box"
    assert large["paths"] == [str(models / "deep é" / "Large One.GGUF")]
    assert large["facts"]["context_length"] == 2048
    (models / "split-00002-of-00002.gguf").touch()
    os.utime(models / "split-00002-of-00002.gguf", (1, 1))
    (models / "deep é" / "Large One.GGUF").unlink()
    again = outcomes(home, str(models))
    assert again.pop("broken.gguf") == again.pop("half-00001-of-00002.gguf") == "refused"
    assert again == {
        "also tiny.gguf": "unchanged",
        "split-00001-of-00002.gguf": "changed",
        "Large One.GGUF": "vanished",
    }
    assert outcomes(home, "--prune", str(models))["Large One.GGUF"] == "removed"


def test_scanned_model_gets_a_name_that_no_other_has(
    home: Home, models: Path, tmp_path: Path
) -> None:
    """Nor one that looks like another's, wherever that one's file is."""
    (tmp_path / "large one.gguf").write_bytes(tiny_gguf())
    assert home.run("model", "add", str(tmp_path / "large one.gguf")).returncode == 0
    outcomes(home, str(models))
    names = {each["name"] for each in home.json("model", "list")}
    assert {"large one", "deep é-Large One"} <= names


def test_scan_here_leaves_alone_what_lies_there(home: Home, models: Path) -> None:
    """The same path on two machines is two files."""
    outcomes(home, str(models))
    hidden = models.with_name("away")
    models.rename(hidden)
    models.mkdir()
    done = home.run("model", "scan", "--prune", "--json", str(models))
    assert done.returncode == 0
    assert {each["name"] for each in home.json("model", "list")} >= {"Large One"}


def test_model_is_added_by_its_path_there_and_fits_by_the_memory_there(
    home: Home, machine: FarMachine
) -> None:
    """``~`` is the home there; ``fit`` tells the other machine's budget, which may be set."""
    (machine.folder / "home" / "tiny.gguf").write_bytes(tiny_gguf())
    assert home.run("model", "add", "--runner", "box", "~/tiny.gguf").returncode == 0
    fit = home.json("model", "fit", "tiny")
    assert [device["name"] for device in fit["devices"]] == ["box/cpu"]
    assert fit["fits"]
    assert home.run("model", "fit", "tiny").stdout.endswith("ctx 2048, on box\n")
    settings = home.path / "gglib.toml"
    settings.write_text(settings.read_text() + '[routing.budgets]\n"box/cpu" = 1000\n')
    done = home.run("model", "fit", "tiny", "--json")
    assert done.returncode == 1
    fit = json.loads(done.stdout)
    assert fit["devices"][0]["free_bytes"] == 1000


def test_declared_model_is_read_where_it_is_served(home: Home, machine: FarMachine) -> None:
    """Its path leads nowhere here, and yet its size is known."""
    path = machine.folder / "home" / "declared.gguf"
    path.write_bytes(tiny_gguf())
    settings = home.path / "gglib.toml"
    settings.write_text(
        settings.read_text() + '[models.far]\npath = "/proc/self/cwd/../home/declared.gguf"\n'
        'runner = "box"\n'
    )
    fit = home.json("model", "fit", "far")
    assert fit["context_size"] == 2048
    assert fit["devices"][0]["weights_bytes"] > 300_000


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("add", "--runner", "box", "/nowhere.gguf"), 3, "/nowhere.gguf"),
        (("add", "--runner", "box", "/etc"), 1, "a directory"),
        (("add", "--runner", "box", "/etc/hostname"), 1, "not a GGUF file"),
        (("scan", "--runner", "box", "/nowhere"), 3, "/nowhere"),
        (("scan", "--runner", "box", "/etc/hostname"), 1, "not a folder"),
        (("add", "--runner", "cellar", "/a.gguf"), 1, "no such runner"),
    ],
)
def test_what_cannot_be_added_is_told_in_a_line(
    home: Home, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """Which path, and why."""
    done = home.run("model", *arguments)
    assert said in done.stderr
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1


def verified(home: Home, *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Verify; return the status, and of each file by its name its state and its sum."""
    done = home.run("model", "verify", "--json", *arguments)
    files = [file for each in json.loads(done.stdout) for file in each["files"]]
    return done.returncode, {
        Path(file["path"]).name: (file["state"], file["sha256"]) for file in files
    }


def test_files_there_are_verified_there(home: Home, models: Path) -> None:
    """Recorded, intact, damaged, changed, accepted, missing: as here, and of every shard."""
    outcomes(home, str(models))
    shards = [models / f"split-0000{number}-of-00002.gguf" for number in (1, 2)]
    sums = [hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards]
    first, second = (shard.name for shard in shards)
    assert verified(home, "split") == (
        0,
        {first: ("recorded", sums[0]), second: ("recorded", sums[1])},
    )
    assert verified(home, "split") == (0, {first: ("intact", sums[0]), second: ("intact", sums[1])})
    before = shards[1].stat()
    content = bytearray(shards[1].read_bytes())
    content[-1] ^= 1
    shards[1].write_bytes(content)
    changed = hashlib.sha256(content).hexdigest()
    os.utime(shards[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert verified(home, "split")[1][second] == ("damaged", changed)
    os.utime(shards[1], (5, 5))
    status, files = verified(home, "split")
    assert (status, files[second]) == (1, ("changed", changed))
    assert verified(home, "split", "--accept")[0] == 0
    assert verified(home, "split") == (0, {first: ("intact", sums[0]), second: ("intact", changed)})
    shards[1].unlink()
    assert verified(home, "split")[1][second] == ("missing", None)


def test_declared_model_is_verified_where_it_is_served(home: Home, machine: FarMachine) -> None:
    """With all its shards, though nothing of them is here; nothing of it is on record."""
    for number in (1, 2):
        write_model(machine.folder / "home" / f"pair-0000{number}-of-00002.gguf")
    settings = home.path / "gglib.toml"
    settings.write_text(
        settings.read_text()
        + '[models.far]\npath = "/proc/self/cwd/../home/pair-00001-of-00002.gguf"'
        '\nrunner = "box"\n'
    )
    status, files = verified(home, "far")
    assert status == 0
    assert {state for state, _ in files.values()} == {"recorded"}
    assert len(files) == 2
    (machine.folder / "home" / "pair-00002-of-00002.gguf").unlink()
    done = home.run("model", "verify", "far")
    assert done.returncode == 3
    assert "pair-00002-of-00002.gguf: no such file" in done.stderr


def test_machine_that_is_away_keeps_no_other_model_from_being_verified(
    home: Home, models: Path, tmp_path: Path
) -> None:
    """The others are told of, then why this one was not."""
    outcomes(home, str(models))
    (tmp_path / "here.gguf").write_bytes(tiny_gguf())
    assert home.run("model", "add", str(tmp_path / "here.gguf")).returncode == 0
    settings = home.path / "gglib.toml"
    settings.write_text(settings.read_text().replace('host = "box"', 'host = "nobox.invalid"'))
    done = home.run("model", "verify", "also tiny", "here")
    assert "here.gguf recorded now (sha256 " in done.stdout
    assert "nobox.invalid cannot be reached" in done.stderr
    assert done.returncode == 1


def test_ctrl_c_ends_the_reading_there(home: Home, models: Path) -> None:
    """Not only the command here."""
    path = models / "deep é" / "Large One.GGUF"
    with path.open("r+b") as large:
        large.truncate(2**40)
    outcomes(home, str(models))
    with subprocess.Popen(
        [gglib(), "model", "verify", "Large One"], env=dict(home.environment)
    ) as command:
        until = time.monotonic() + 20
        while not (readers := readers_of(path)):
            assert time.monotonic() < until, "nothing reads it"
        command.send_signal(signal.SIGINT)
        assert command.wait(20) == 130
    _, alive = psutil.wait_procs(readers, timeout=5)
    assert not alive
